"""What the control plane's role and playbook compute, and what they may never do."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles" / "control_plane"


def rendered(template: str, **variables: Any) -> Any:
    """Return what Ansible makes of a template."""
    return Templar(loader=DataLoader(), variables=variables).template(trust_as_template(template))


def plays() -> dict[str, dict[str, Any]]:
    return {play["name"]: play for play in yaml.safe_load((ROOT / "playbooks" / "cluster.yml").read_text())}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        # How Ansible reaches a machine says nothing about its addresses.
        ({"ansible_host": "worker-1.example.com"}, ["192.0.2.21"]),
        ({"worker_node_ip": "10.0.0.21"}, ["10.0.0.21"]),
        ({"worker_node_ip": "10.0.0.21,2001:db8::21"}, ["10.0.0.21", "2001:db8::21"]),
        ({"control_plane_node_ip": "10.0.0.11", "group_names": ["control_plane"]}, ["10.0.0.11"]),
        ({"ansible_facts": {"default_ipv4": {}}}, []),
    ],
)
def test_a_nodes_addresses_are_those_that_its_kubelet_uses(host: dict[str, Any], expected: list[str]) -> None:
    tasks = plays()["Prepare the nodes"]["tasks"][0]["block"]
    facts = next(task["ansible.builtin.set_fact"] for task in tasks if "ansible.builtin.set_fact" in task)
    plain = {"group_names": ["workers"], "ansible_facts": {"default_ipv4": {"address": "192.0.2.21"}}}
    assert rendered(facts["cluster_node_addresses"], **(plain | host)) == expected


def test_a_node_that_a_run_does_not_reach_stays_known() -> None:
    known = rendered(
        plays()["Create the control plane"]["vars"]["control_plane_known_nodes"],
        groups={"kube_nodes": ["a", "b", "c"]},
        hostvars={"a": {"cluster_node_addresses": ["192.0.2.1"]}, "b": {}, "c": {}},
    )
    assert known == {"a": ["192.0.2.1"], "b": [], "c": []}
    before = {"content": "eyJhIjogWyIxOTIuMC4yLjkiXSwgImIiOiBbIjE5Mi4wLjIuMiJdLCAiZCI6IFsiMTkyLjAuMi40Il19"}
    kept = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["__control_plane_known_nodes"]
    variables = {"control_plane_known_nodes": known}
    assert rendered(kept, **variables, __control_plane_known_before=before) == {
        "a": ["192.0.2.1"],
        "b": ["192.0.2.2"],
        "c": [],
    }
    for nothing in ({"skipped": True}, {"failed": True, "msg": "file not found"}):
        assert rendered(kept, **variables, __control_plane_known_before=nothing)["b"] == []


def test_the_labs_image_has_the_packages_of_a_node() -> None:
    """The lab's nodes reach no archive of their distribution."""
    image = set(yaml.safe_load((ROOT / "lab/node/node.yml").read_text())["packages"])
    assert image >= set(
        yaml.safe_load((ROOT / "roles/host_baseline/defaults/main.yml").read_text())["host_baseline_packages"]
    )
