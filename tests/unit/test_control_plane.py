"""What the control plane's role and playbook compute, and what they may never do."""

import json
import os
import re
import subprocess
import sys
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


@pytest.mark.parametrize(
    ("hosts", "known", "expected"),
    [
        (["a", "b", "c"], {}, True),
        # --limit: the others may be a cluster.
        (["b", "c"], {}, False),
        (
            ["a", "b", "c"],
            {"kubernetes_packages_joined": True, "kubernetes_packages_join_finished": True},
            False,
        ),
    ],
)
def test_a_cluster_is_made_where_there_can_be_none(
    hosts: list[str], known: dict[str, Any], expected: bool
) -> None:
    asked = plays()["Create the control plane"]["vars"]["control_plane_initialize"]
    groups = {"control_plane": ["a", "b"], "kube_nodes": ["a", "b", "c"]}
    hostvars = {"a": {}, "b": {}, "c": known}
    assert rendered(asked, groups=groups, hostvars=hostvars, ansible_play_hosts_all=hosts) is expected


def test_the_virtual_address_knows_control_planes_by_the_addresses_that_they_use() -> None:
    given = plays()["Create the control plane"]["vars"]
    hostvars = {
        "a": {"cluster_node_addresses": ["192.0.2.1", "2001:db8::1"], "ansible_host": "a.example.com"}
    }
    servers = rendered(
        given["api_endpoint_servers"], groups={"control_plane": ["a", "b"]}, hostvars=hostvars | {"b": {}}
    )
    assert servers == {"a": "192.0.2.1", "b": ""}
    role = yaml.safe_load((ROOT / "roles/api_endpoint/vars/main.yml").read_text())
    before = "active haproxy\nserver b 192.0.2.2:6443\nserver c 192.0.2.3:6443\n"
    variables = {
        "api_endpoint_servers": servers,
        "api_endpoint_node_ip": "192.0.2.1",
        "__api_endpoint_probe": {"stdout": before},
    }
    for name in ("__api_endpoint_before", "__api_endpoint_known", "__api_endpoint_peers"):
        variables[name] = rendered(role[name], **variables)
    assert variables["__api_endpoint_known"] == {"a": "192.0.2.1", "b": "192.0.2.2"}
    assert variables["__api_endpoint_peers"] == ["192.0.2.2"]


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


SECRETS = ("", "secrets")
KUBE_SYSTEM = ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"]


def level(user: str, groups: list[str], verb: str, resource: tuple[str, str]) -> str:
    """Return the level at which a request is audited: that of the first rule that fits."""
    template = (ROLE / "templates" / "audit-policy.yaml.j2").read_text()
    for rule in yaml.safe_load(rendered(template, ansible_managed="Ansible"))["rules"]:
        kinds = rule.get("resources")
        if (
            user in rule.get("users", [user])
            and set(rule.get("userGroups", groups)) & set(groups)
            and verb in rule.get("verbs", [verb])
            and "nonResourceURLs" not in rule
            and (
                kinds is None
                or any(
                    kind["group"] == resource[0] and resource[1] in kind.get("resources", [resource[1]])
                    for kind in kinds
                )
            )
        ):
            return str(rule["level"])
    return "None"


@pytest.mark.parametrize(
    ("user", "groups"),
    [
        ("system:node:worker-1", ["system:nodes", "system:authenticated"]),
        ("system:serviceaccount:kube-system:anything", KUBE_SYSTEM),
        ("system:kube-proxy", ["system:authenticated"]),
        ("system:kube-scheduler", ["system:authenticated"]),
        ("system:kube-controller-manager", ["system:authenticated"]),
        ("system:apiserver", ["system:masters"]),
        ("kubernetes-admin", ["kubeadm:cluster-admins"]),
        ("system:anonymous", ["system:unauthenticated"]),
    ],
)
@pytest.mark.parametrize(
    "verb", ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]
)
def test_every_touch_of_a_secret_is_audited_without_its_content(
    user: str, groups: list[str], verb: str
) -> None:
    assert level(user, groups, verb, SECRETS) == "Metadata"


def test_what_the_machinery_asks_all_day_is_not_audited() -> None:
    assert level("system:node:worker-1", ["system:nodes"], "get", ("", "pods")) == "None"
    assert level("system:serviceaccount:kube-system:x", KUBE_SYSTEM, "watch", ("", "configmaps")) == "None"
    assert level("kubernetes-admin", ["system:masters"], "get", ("", "pods")) == "Metadata"


@pytest.mark.parametrize(
    "resource", [("coordination.k8s.io", "leases"), ("", "events"), ("events.k8s.io", "events")]
)
def test_of_events_and_leases_only_deletions_are_audited(resource: tuple[str, str]) -> None:
    for user, groups in (
        ("system:node:worker-1", ["system:nodes"]),
        ("kubernetes-admin", ["system:masters"]),
    ):
        for verb in ("get", "list", "watch", "create", "update", "patch"):
            assert level(user, groups, verb, resource) == "None"
        for verb in ("delete", "deletecollection"):
            assert level(user, groups, verb, resource) == "Metadata"


# What the nodes' commands do; NODE names the node. A container is replaced half a second after its manifest.
COMMANDS = {
    "kubeadm": """
case "$*" in
  "init phase upload-certs "*) echo "key $RANDOM$RANDOM" | tee key | sed 's/key //' ;;
  "token create "*) echo "kubeadm join --token abcdef.0123 --discovery-token-ca-cert-hash sha256:1" ;;
  "join --config /dev/stdin")
    mkdir joining || exit 1
    sed -n 's/^ *certificateKey: /key /p' | cmp - key || { echo "message authentication failed" >&2; exit 1; }
    sleep 1; rmdir joining; echo "$NODE joined" >> log ;;
  "init phase certs apiserver "*)
    folder=$(sed -n 's/certificatesDir: //p' "$6")
    cp "$NODE/sans" "$folder/apiserver.crt"; echo anew > "$folder/apiserver.key" ;;
  "init phase control-plane "*)
    echo "$NODE changes kube-$4" >> log; echo changed > "$NODE/manifests/kube-$4.yaml" ;;
  *--print-manifest*) cat proxy ;;
  *) echo "$NODE kubeadm $3 $4" >> log ;;
esac""",
    "crictl": """
[ "$1" = inspecti ] && exit 1
[ "$1" = ps ] || { echo "$NODE crictl $*" >> log; exit 0; }
name=${6#^} name=${name%$} manifest=$NODE/manifests/$name.yaml
age=$(($(date +%s%3N) - $(date +%s%3N --reference="$manifest")))
if grep -qE 'changed|:2' "$manifest" && [ "$age" -gt 500 ]; then state=new; else state=old; fi
echo "$name $state" | tee $NODE/last""",
    "openssl": 'cat "$3"',
    "sleep": "/bin/sleep 0.1",
    "curl": """echo "$NODE asks $(cat "$NODE/last")" >> log""",
    "kubectl": """
case "$*" in
  *" get daemonset "*) cat annotation ;;
  *" taint "*) echo "$NODE $6" >> taints ;;
  *" annotate "*) echo "${7#*=}" | tr -d '\n' > annotation ;;
  *) echo "$NODE kubectl $3 $4" >> log ;;
esac""",
}


class Nodes:
    """Control planes that are folders, and what was done to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        for name, text in COMMANDS.items():
            (folder / "bin" / name).write_text(f"#!/bin/bash\ncd {folder}\n{text.strip()}\n")
            (folder / "bin" / name).chmod(0o755)
        (folder / "annotation").touch()
        (folder / "proxy").write_text("mode: nftables")
        (folder / "log").touch()
        for node in ("m1", "m2", "m3"):
            (folder / node / "manifests").mkdir(parents=True)
            (folder / node / "pki").mkdir()
            (folder / node / "kubeadm.yaml").write_text("kind: ClusterConfiguration\n")
            for name in ("sans", "pki/apiserver.crt", "pki/apiserver.key"):
                (folder / node / name).write_text("as it was")
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"):
                manifest = folder / node / "manifests" / f"{name}.yaml"
                manifest.write_text(f"    image: r/{name}:1\n    args: [--initial-cluster=all of them]\n")

    def run(self, *tasks: dict[str, Any], hosts: str = "m1,m2", status: int = 0, **variables: Any) -> str:
        """Run tasks of the role, with its handlers; return what Ansible printed."""
        play = {
            "hosts": "all",
            "gather_facts": False,
            "environment": {"NODE": "{{ inventory_hostname }}"},
            "vars_files": [str(ROLE / "vars/main.yml")],
            "tasks": list(tasks),
            "handlers": [{"ansible.builtin.import_tasks": str(ROLE / "handlers/main.yml")}],
        }
        (self.folder / "play.yml").write_text(json.dumps([play]))
        given = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "__control_plane_folder": f"{self.folder}/{{{{ inventory_hostname }}}}",
            "__control_plane_manifests": f"{self.folder}/{{{{ inventory_hostname }}}}/manifests",
            "__control_plane_pki": f"{self.folder}/{{{{ inventory_hostname }}}}/pki",
            "__control_plane_lock": ["env"],
            "control_plane_schedulable": False,
            "__control_plane_primary": "m1",
            "control_plane_image_repository": "r",
            "control_plane_etcd_image_tag": "1",
            "control_plane_coredns_image_repository": "r",
            "control_plane_coredns_image_tag": "1",
            "control_plane_restart_timeout": 50,
            **variables,
        }
        path = f"{self.folder}/bin:{Path(sys.executable).parent}:/usr/bin:/bin"
        command: list[str | Path] = [
            "ansible-playbook",
            "-i",
            f"{hosts},",
            self.folder / "play.yml",
            "-e",
            json.dumps(given),
        ]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == status, done.stdout[-3000:] + done.stderr[-500:]
        return done.stdout

    def log(self) -> list[str]:
        """Return what was done since the last look."""
        lines = (self.folder / "log").read_text().splitlines()
        (self.folder / "log").write_text("")
        return lines


def test_several_control_planes_join_by_one_key(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    join = {
        "ansible.builtin.include_role": {"name": "control_plane", "tasks_from": "join"},
        "when": "inventory_hostname != 'm1'",
    }
    output = nodes.run(
        join,
        hosts="m1,m2,m3",
        control_plane_endpoint="api.example.com:6443",
        control_plane_node_ip="192.0.2.11",
        __control_plane_node_registration={},
    )
    assert [line for line in nodes.log() if line.endswith(" joined")] == ["m2 joined", "m3 joined"]
    assert (tmp_path / "key").read_text().split()[1] not in output


NETWORKS = {"podSubnet": "10.244.0.0/16", "serviceSubnet": "10.96.0.0/16", "dnsDomain": "cluster.local"}


@pytest.mark.parametrize(
    ("name", "value", "joined", "refused"),
    [
        ("cluster_pod_cidr", NETWORKS["podSubnet"], True, ""),
        ("cluster_pod_cidr", "10.200.0.0/16", True, "podSubnet 10.244.0.0/16, not 10.200.0.0/16"),
        ("cluster_service_cidr", "10.97.0.0/16", True, "serviceSubnet 10.96.0.0/16, not 10.97.0.0/16"),
        ("cluster_dns_domain", "own.local", True, "dnsDomain cluster.local, not own.local"),
        # A run that was killed before kubeadm.
        ("cluster_dns_domain", "own.local", False, ""),
    ],
)
def test_a_cluster_keeps_its_networks(
    name: str, value: str, joined: bool, refused: str, tmp_path: Path
) -> None:
    """Not each playbook begins with validate.yml, and handlers would bring others to the API server."""
    nodes = Nodes(tmp_path)
    config = [{"kind": "InitConfiguration"}, {"kind": "ClusterConfiguration", "networking": NETWORKS}]
    (tmp_path / "m1/kubeadm.yaml").write_text(yaml.safe_dump_all(config))
    choices = {
        "cluster_pod_cidr": NETWORKS["podSubnet"],
        "cluster_service_cidr": NETWORKS["serviceSubnet"],
        "cluster_dns_domain": NETWORKS["dnsDomain"],
        "kubernetes_packages_joined": joined,
    }
    task = {"ansible.builtin.include_role": {"name": "control_plane", "tasks_from": "networks"}}
    prepared = (ROOT / "playbooks/cluster.yml").read_text().partition("name: outbound")[0]
    assert "name: control_plane\n            tasks_from: networks\n" in prepared
    output = nodes.run(task, hosts="m1", status=2 if refused else 0, **choices | {name: value})
    assert not refused or f"m1: its cluster was built with {refused}, which cannot be changed" in " ".join(
        output.split()
    )


CHANGE = {
    "ansible.builtin.debug": {},
    "changed_when": True,
    "notify": "Apply the changed configuration of kubeadm",
}


def test_a_change_reaches_one_control_plane_after_the_other(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path)
    (tmp_path / "m2/sans").write_text("one name more")
    nodes.run(CHANGE, __control_plane_finished=True, control_plane_etcd_image_tag="2")
    assert (tmp_path / "m1/pki/apiserver.key").read_text() == "as it was"
    assert (tmp_path / "m2/pki/apiserver.key").read_text() == "anew\n"
    assert (tmp_path / "m2/pki/apiserver.crt").read_text() == "one name more"
    taint = "node-role.kubernetes.io/control-plane:NoSchedule"
    assert sorted((tmp_path / "taints").read_text().splitlines()) == [f"m1 {taint}", f"m2 {taint}"]
    expected = []
    for node in ("m1", "m2"):
        for name in ("kube-scheduler", "kube-controller-manager", "kube-apiserver"):
            expected += [f"{node} changes {name}", f"{node} asks {name} new"]
        expected += [f"{node} crictl pull r/etcd:2", f"{node} asks etcd new"]
        etcd = (tmp_path / node / "manifests/etcd.yaml").read_text()
        assert etcd == "    image: r/etcd:2\n    args: [--initial-cluster=all of them]\n"
    published = ["m1 kubeadm upload-config all", "m1 kubectl set image", "m1 kubeadm addon kube-proxy"]
    assert nodes.log() == [*expected, *published, "m1 kubectl rollout restart", "m1 kubectl rollout status"]
    # What is as it was is restarted nowhere.
    settings: dict[str, Any] = {
        "hosts": "m1",
        "__control_plane_finished": True,
        "control_plane_etcd_image_tag": "2",
    }
    (tmp_path / "proxy").write_text("mode: iptables")
    nodes.run(CHANGE, **settings)
    again = nodes.log()
    assert again[-2:] == ["m1 kubectl rollout restart", "m1 kubectl rollout status"]
    assert not [line for line in again if "pull" in line]
    nodes.run(CHANGE, **settings)
    assert nodes.log()[-2:] == published[:2]


def test_a_node_that_is_off_fails_a_limited_run(tmp_path: Path) -> None:
    off = {"ansible_host": "127.0.0.1", "ansible_port": 1}
    children = {"control_plane": {"hosts": {"m1": off}}, "workers": {"hosts": {"w1": off, "w2": off}}}
    groups = {"kube_nodes": {"children": children}}
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"children": groups}}))
    command: list[str | Path] = [
        "ansible-playbook",
        "-i",
        tmp_path / "hosts.yml",
        "playbooks/cluster.yml",
        "--limit",
        "w2",
        "--extra-vars",
        f"cluster_secrets_dir={tmp_path}/secrets",
    ]
    environment = os.environ | {"ANSIBLE_TIMEOUT": "5"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 2, done.stdout[-3000:]
    assert "1 of 1 nodes failed" in done.stdout
    assert "* w2: Check that the node answers: cannot be reached over SSH" in done.stdout
    assert (tmp_path / "secrets/inventory").read_text() == f"{tmp_path}/hosts.yml\n"


def test_the_address_is_handed_on_by_what_every_distribution_can_do() -> None:
    """Of VRRP 3, keepalived as Ubuntu 22.04 builds it makes wrong checksums."""
    text = (ROOT / "roles/api_endpoint/templates/keepalived.conf.j2").read_text()
    assert re.findall(r"^ *vrrp_version (\d)$", text, re.MULTILINE) == ["2"]
