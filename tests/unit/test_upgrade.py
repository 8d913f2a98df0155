"""The plan of an upgrade: what is done with which node, and every reason for which it is refused."""

import os
import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from api_server import api_server

from quote_platform import upgrade
from quote_platform.mirror import catalogue
from quote_platform.mirror.source import Source
from quote_platform.upgrade.cluster import Cluster, _selector, deprecated
from quote_platform.upgrade.plan import Bounds, Findings, Machine, Member, Refused, Wanted, plan

ROOT = Path(__file__).resolve().parents[2]
WANTED = Wanted(
    "1.36.3",
    {"kubelet": "1.36.3-1.1", "kubeadm": "1.36.3-1.1", "containerd.io": "2.3.5-1"},
    ["r.io/kube-apiserver:v1.36.3", "r.io/etcd:3.6.14-0"],
)
BOUNDS = Bounds(free_mib=2048, batch="1")


def node(name: str, version: str = "1.35.4", containerd: str = "2.3.5-1~debian.12~bookworm") -> Machine:
    """Return a node at a version; master-1 and its like are control planes."""
    plane = name.startswith("master")
    packages = {"kubelet": f"{version}-1.1", "kubeadm": f"{version}-1.1", "containerd.io": containerd}
    images = [f"r.io/kube-apiserver:v{version}", "r.io/etcd:3.6.14-0"] if plane else []
    return Machine(name, plane, packages, images, free_mib=9000)


def member(machine: Machine, **more: Any) -> Member:
    """Return what the API server says of a node."""
    version = machine.packages["kubelet"].split("-")[0]
    return replace(Member(machine.name, True, f"v{version}", machine.control_plane), **more)


def planned(*machines: Machine, bounds: Bounds = BOUNDS, **more: Any) -> list[str]:
    """Return the lines of a plan."""
    members = [member(machine) for machine in machines]
    steps, notes = plan(list(machines), members, WANTED, bounds, more.get("findings", Findings()))
    return [step.line() for step in steps] + notes


def refusal(*machines: Machine, **more: Any) -> str:
    """Return why a plan is refused."""
    members = more.get("members") or [member(machine) for machine in machines]
    with pytest.raises(Refused) as caught:
        plan(list(machines), members, WANTED, BOUNDS, more.get("findings", Findings()))
    return str(caught.value)


def test_control_planes_go_first_and_workers_in_the_order_of_the_inventory() -> None:
    lines = planned(node("worker-2"), node("master-2"), node("worker-1"), node("master-1"))
    assert [line.split(",")[0] for line in lines] == [
        "1. master-2",
        "2. master-1",
        "3. worker-2",
        "4. worker-1",
    ]
    assert (
        lines[0]
        == "1. master-2, drained: kubelet, kubeadm 1.35.4-1.1 -> 1.36.3-1.1; image kube-apiserver:v1.36.3"
    )


def test_updates_of_hosts_go_the_same_way_and_ask_for_no_version() -> None:
    """Only what machines say is pending counts; a control plane may be left for another run."""
    machines = [
        replace(node("worker-1", "1.34.9"), pending=["2 packages: openssl 3.1, curl 8.2", "restart"]),
        replace(node("master-1"), pending=["1 packages: openssl 3.1"]),
        node("worker-2"),
    ]
    members = [*map(member, machines), member(node("master-2"))]
    steps, notes = plan(machines, members, None, BOUNDS, Findings())
    assert [step.line() for step in steps] == [
        "1. master-1, drained: 1 packages: openssl 3.1",
        "2. worker-1, drained: 2 packages: openssl 3.1, curl 8.2; restart",
    ]
    assert not any(step.kubeadm for step in steps)
    assert notes == ["left as they are: master-2; the next run without --limit upgrades them"]


def test_what_ran_before_a_restart_is_not_taken_for_running() -> None:
    def pod(name: str, started: int | None) -> Any:
        running = started and SimpleNamespace(started_at=datetime.fromtimestamp(started, UTC))
        status = SimpleNamespace(state=SimpleNamespace(running=running))
        return SimpleNamespace(
            metadata=SimpleNamespace(namespace="kube-system", name=name),
            status=SimpleNamespace(container_statuses=[status]),
        )

    asked = []

    def listed(field_selector: str, **_: Any) -> Any:
        asked.append(field_selector)
        return SimpleNamespace(items=[pod("before", 90), pod("after", 110), pod("not-yet", None)])

    cluster = Cluster.__new__(Cluster)
    cluster.core = SimpleNamespace(list_pod_for_all_namespaces=listed)
    assert cluster.stale({"worker-1": 100}) == [
        "Pod kube-system/before (not seen since worker-1 was restarted)"
    ]
    assert asked == ["spec.nodeName=worker-1,status.phase=Running"]


def test_an_upgraded_cluster_has_no_steps() -> None:
    assert planned(node("master-1", "1.36.3"), node("worker-1", "1.36.3")) == []


def test_a_run_that_was_killed_is_gone_on_with() -> None:
    done, half = node("master-1", "1.36.3"), node("worker-1", "1.36.3")
    steps, _ = plan([done, half], [member(done), member(half, marked=True)], WANTED, BOUNDS, Findings())
    assert [step.line() for step in steps] == [
        "1. worker-1, drained: back into service, which a run before this one took it out of"
    ]
    # It comes first, and what waits for it keeps nobody.
    found = Findings(budgets={"worker-0": ["a budget"]}, databases=["PostgreSQL is short"])
    both = [node("worker-0"), half]
    steps, _ = plan(both, [member(both[0]), member(half, marked=True)], WANTED, BOUNDS, found)
    assert [step.name for step in steps] == ["worker-1", "worker-0"]
    assert planned(replace(done, unfinished=True)) == [
        "1. master-1, drained: the rest of a kubeadm that was interrupted"
    ]
    assert planned(done, replace(half, outdated=["containerd"])) == [
        "1. worker-1, drained: restart of containerd, whose program was replaced"
    ]
    old = [member(done), member(half, kubelet="v1.35.4")]
    steps, _ = plan([done, half], old, WANTED, BOUNDS, Findings())
    assert steps[0].changes == ["restart of kubelet, which runs as v1.35.4"]


def test_another_containerd_goes_through_the_same_door() -> None:
    assert planned(node("master-1", "1.36.3"), node("worker-1", "1.36.3", "2.3.4-1~ubuntu.22.04~jammy")) == [
        "1. worker-1, drained: containerd.io 2.3.4-1~ubuntu.22.04~jammy -> 2.3.5-1"
    ]


@pytest.mark.parametrize(
    ("batch", "numbers"), [("1", "1234"), ("2", "1122"), ("50%", "1122"), ("10%", "1234"), ("9", "1111")]
)
def test_workers_go_in_batches(batch: str, numbers: str) -> None:
    machines = [node("master-1", "1.36.3"), *(node(f"worker-{number}") for number in range(1, 5))]
    lines = planned(*machines, bounds=replace(BOUNDS, batch=batch))
    assert [line[0] for line in lines] == list(numbers)


@pytest.mark.parametrize("batch", ["0", "", "all", "-1", "1.5", "25 %"])
def test_a_batch_that_is_none_is_refused(batch: str) -> None:
    with pytest.raises(Refused, match=r"upgrade_batch: .*; allowed is a number such as 2, or a percentage"):
        planned(node("master-1"), bounds=replace(BOUNDS, batch=batch))


def test_versions_go_up_one_minor_at_a_time() -> None:
    assert "master-1 runs Kubernetes 1.34.9: control planes go up one minor version at a time; " in refusal(
        node("master-1", "1.34.9")
    )
    assert "set kubernetes_version to a 1.35 first" in refusal(node("master-1", "1.34.9"))
    assert "master-1 runs Kubernetes 1.36.4, newer than 1.36.3: versions only go up." in refusal(
        node("master-1", "1.36.4")
    )
    assert "worker-1 has kubelet 1.37.0-1.1, kubeadm 1.37.0-1.1, newer than what is pinned" in refusal(
        node("master-1"), node("worker-1", "1.37.0")
    )
    assert "worker-1 has a kubelet 1.32.0, too old for the API server 1.36.3" in refusal(
        node("master-1"), node("worker-1", "1.32.0")
    )
    assert len(planned(node("master-1"), node("worker-1", "1.33.0"))) == 2


def test_nodes_that_cannot_be_upgraded_are_named_with_what_to_do() -> None:
    master, worker = node("master-1"), node("worker-1")
    silent = replace(worker, packages={}, silent="cannot be reached over SSH")
    assert refusal(master, silent, members=[member(master), member(worker)]).splitlines() == [
        "Nothing was changed.",
        "* worker-1: cannot be reached over SSH; bring it back, or leave it for the next run with "
        "--limit 'all:!worker-1'",
    ]
    assert "* worker-1 is not Ready; bring it back" in refusal(
        master, worker, members=[member(master), member(worker, ready=False)]
    )
    assert "* master-1 is not Ready; repair it first" in refusal(
        master, worker, members=[member(master, ready=False), member(worker)]
    )
    assert "worker-1 has 100 MiB free in /var; packages and images need 2048 (upgrade_free_mib)" in refusal(
        master, replace(worker, free_mib=100)
    )


def test_who_is_left_out_is_told_or_refused() -> None:
    master, worker = node("master-1"), node("worker-1")
    _, notes = plan([master], [member(master), member(worker)], WANTED, BOUNDS, Findings())
    assert notes == ["left as they are: worker-1; the next run without --limit upgrades them"]
    assert "master-1 is left out: all control planes are upgraded in one run" in refusal(
        worker, members=[member(master), member(worker)]
    )
    _, notes = plan([master, worker], [member(master)], WANTED, BOUNDS, Findings())
    assert notes == ["worker-1 is no node of the cluster yet; site.yml adds it after the upgrade"]


def test_what_stands_in_the_way_is_named_for_the_nodes_that_are_drained() -> None:
    found = Findings(
        budgets={"worker-1": ["a budget"], "worker-2": ["another"]},
        databases=["PostgreSQL is short"],
        deprecated=["flowschemas are used"],
    )
    text = refusal(node("master-1", "1.36.3"), node("worker-1"), node("worker-2", "1.36.3"), findings=found)
    assert text.splitlines()[1:] == [
        "* worker-1 could not be drained: a budget",
        "* PostgreSQL is short",
        "* flowschemas are used",
    ]
    assert (
        planned(node("master-1", "1.36.3"), findings=found) == []
    )  # nothing is done, so nothing is in the way


def test_what_a_node_says_is_read() -> None:
    state = [
        "installed kubelet 1.35.4-1.1",
        "image r.io/kube-apiserver:v1.35.4",
        "outdated kubelet",
        "unfinished",
    ]
    said = {"name": "master-1", "control_plane": True, "state": [*state, "free 512"], "silent": ""}
    assert upgrade.machine(said) == Machine(
        name="master-1",
        control_plane=True,
        packages={"kubelet": "1.35.4-1.1"},
        images=["r.io/kube-apiserver:v1.35.4"],
        outdated=["kubelet"],
        unfinished=True,
        free_mib=512,
    )


def test_a_selector_is_written_as_the_api_takes_it() -> None:
    def expression(operator: str, *values: str) -> SimpleNamespace:
        return SimpleNamespace(key="tier", operator=operator, values=list(values) or None)

    expressions = [expression("In", "a", "b"), expression("Exists"), expression("DoesNotExist")]
    selector = SimpleNamespace(match_labels={"app": "x"}, match_expressions=expressions)
    assert _selector(selector) == "app=x,tier in (a,b),tier,!tier"
    assert (
        _selector(SimpleNamespace(match_labels={}, match_expressions=[expression("NotIn", "a")]))
        == "tier notin (a)"
    )


# --- deprecated APIs --------------------------------------------------------------------------------------


def test_what_any_api_server_was_asked_for_is_found() -> None:
    """Each counts its own requests only; what goes later, or never, is left out."""

    def sample(group: str, version: str, resource: str, removed: str) -> str:
        labels = f'group="{group}",removed_release="{removed}",resource="{resource}",version="{version}"'
        return f"requested apiserver_requested_deprecated_apis{{{labels}}} 1"

    flow = sample("flowcontrol.apiserver.k8s.io", "v1beta3", "flowschemas", "1.36")
    nodes = [
        {"state": [sample("", "v1", "endpoints", ""), sample("batch", "v1beta1", "cronjobs", "1.40")]},
        {"state": [flow, "audit /apis/flowcontrol.apiserver.k8s.io/v1beta3/flowschemas\tola (old/1.0)"]},
        {"state": [flow]},
    ]
    requested, audit = (
        [line for one in nodes for line in upgrade._of(one, word)] for word in ("requested", "audit")
    )
    assert deprecated("1.36.3", requested, audit) == [
        "flowschemas.v1beta3.flowcontrol.apiserver.k8s.io is used, which Kubernetes 1.36 no longer has; "
        "asked for by ola (old/1.0)"
    ]
    assert deprecated("1.35.9", requested, audit) == []


def test_a_control_plane_reads_it_of_its_own_api_server(tmp_path: Path) -> None:
    tasks = yaml.safe_load((ROOT / "roles/upgrade/tasks/read.yml").read_text())
    script = tasks[0]["ansible.builtin.shell"]["cmd"]
    (asks,) = re.findall(r"^test -e admin\.conf .*?/p'$", script, re.MULTILINE | re.DOTALL)
    folder = tmp_path / "server"
    folder.mkdir()
    with api_server(folder) as server:
        server.ask("GET", "/api/v1/namespaces/default/endpoints")
        server.kubeconfig(tmp_path / "admin.conf")
        source = Source(catalogue.load(), lambda _: None)
        programs = source.artifacts / "binaries" / f"kubernetes-{source.binaries_key('kubernetes')}"
        # The server of a test has another port, and no name in its certificate.
        asks = asks.replace("https://127.0.0.1:6443 --tls-server-name kubernetes", str(server.http.base_url))
        done = subprocess.run(
            ["/bin/bash", "-c", asks],
            cwd=tmp_path,
            env={"PATH": f"{programs}:{os.defpath}"},
            capture_output=True,
            text=True,
            check=True,
        )
    assert 'requested apiserver_requested_deprecated_apis{group="",' in done.stdout
    assert 'resource="endpoints"' in done.stdout
    assert set(re.findall(r"^\w+", done.stdout, re.MULTILINE)) == {"requested"}
