"""Each of what makes a place unkind, alone: a cluster comes up, and a second run changes nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from quote_platform.lab.model import Unkind
from quote_platform.mirror import catalogue

from .conftest import Machines, gone_before_and_after
from .test_hostile import NAMED_WITHIN, arrive, changed
from .test_platform import succeeded

NAME, SUBNET = "e2e-unkind", "10.89.48.0/24"
CHECKS = ["nodes", "pod to pod", "service address", "names"]
SMALL = ("--components", "core")
NODES = ("master-1", "worker-1")
# A container and a package that need the runtime that is there.
USED = """
ctr images pull --plain-http 10.89.48.2:5000/docker.io/library/busybox:1.37.0 > /dev/null
ctr run --detach 10.89.48.2:5000/docker.io/library/busybox:1.37.0 used sleep 3600
mkdir --parents /root/used/DEBIAN
printf '%s\\n' 'Package: used' 'Version: 1' 'Architecture: all' 'Maintainer: nobody <nobody@example.com>' \
  'Description: needs containerd' 'Depends: containerd (>= 1.4~)' > /root/used/DEBIAN/control
dpkg-deb --build /root/used /root/used.deb && dpkg --install /root/used.deb
"""

pytestmark = pytest.mark.proof(minutes=5)


def before_runtime(found: Machines) -> None:
    """Have a run refuse to take from a machine what is used there."""
    for node in NODES:
        assert " 1.6." in found.ssh(node, "containerd --version")
    found.ssh("master-1", USED)
    run = found.play("refused run, runtime", "playbooks/cluster.yml")
    assert run.status != 0
    said = " ".join(run.output.split())
    assert "cannot replace: the package used needs it. Nothing was changed." in said
    assert run.changed[f"{NAME}-master-1"] == 0
    found.ssh("master-1", "dpkg --purge used")


def after_runtime(found: Machines) -> None:
    """Find the pinned runtime, which has taken over what ran, and nothing of the other one."""
    version = catalogue.versions()["container_runtime_version"].partition("-")[0]
    for node in NODES:
        states = "dpkg-query --show --showformat '${db:Status-Status}\\n' containerd runc 2> /dev/null"
        assert set(found.ssh(node, states, check=False).split()) <= {"not-installed"}
        assert found.ssh(node, "command -v runc containerd-shim-runc-v2").split() == [
            "/usr/bin/runc",
            "/usr/bin/containerd-shim-runc-v2",
        ]
        assert f" v{version}" in found.ssh(node, "containerd --version")
        running = 'readlink "/proc/$(systemctl show --property MainPID --value containerd)/exe"'
        assert found.ssh(node, running).strip() == "/usr/bin/containerd"
        assert found.ssh(node, "systemctl is-enabled containerd").strip() == "enabled"
    assert "RUNNING" in found.ssh("master-1", "ctr tasks list")
    found.ssh("master-1", "ctr tasks kill --signal KILL used; sleep 1; ctr containers delete used")
    nodes = found.kubectl("get nodes --output 'jsonpath={.items[*].status.nodeInfo.containerRuntimeVersion}'")
    assert set(nodes.split()) == {f"containerd://{version}"}


def before_swap(found: Machines) -> None:
    for node in NODES:  # the kernel's, which they share
        assert "/swap.img" in found.ssh(node, "cat /proc/swaps")


def after_swap(found: Machines) -> None:
    for node in NODES:
        assert found.ssh(node, "swapon --show --noheadings") == ""
        assert found.ssh(node, """awk '!/^#/ && $3 == "swap"' /etc/fstab""") == ""
        states = found.ssh(node, "systemctl is-enabled swap.target var-swap.swap", check=False)
        assert states.split() == ["masked", "disabled"]


def after_memory(found: Machines) -> None:
    """Find the sizes that each node reports; what does not fit is refused by the name of the small one."""
    columns = "NAME:.metadata.name,MEMORY:.status.capacity.memory"
    shown = found.kubectl(f"get nodes --no-headers --output custom-columns={columns}").split()
    assert dict(zip(shown[::2], shown[1::2], strict=True)) == {
        f"{NAME}-master-1": "4Gi",
        f"{NAME}-worker-1": "8Gi",
        f"{NAME}-worker-2": "4915Mi",
    }
    fits = {"postgres_instances": 2}
    succeeded(found.play("it fits, memory", "playbooks/validate.yml", "-e", json.dumps(fits)))
    large = {"postgres_resources": {"requests": {"cpu": "100m", "memory": "5Gi"}}}
    run = found.play("it does not fit, memory", "playbooks/validate.yml", "-e", json.dumps(fits | large))
    assert run.status != 0
    said = " ".join(run.output.split())
    assert f"1 of workers has as much left for it, the others not ({NAME}-worker-2 " in said
    assert changed(run) == 0
    assert run.seconds < NAMED_WITHIN


BEFORE: dict[Unkind, Callable[[Machines], None]] = {
    Unkind.RUNTIME: before_runtime,
    Unkind.SWAP: before_swap,
}
AFTER: dict[Unkind, Callable[[Machines], None]] = {
    Unkind.RUNTIME: after_runtime,
    Unkind.SWAP: after_swap,
    Unkind.MEMORY: after_memory,
}


@pytest.mark.parametrize("kind", list(Unkind))
def test_it_alone(kind: Unkind, tmp_path: Path) -> None:
    with gone_before_and_after(Machines(name=NAME)) as found:
        sizes = (*SMALL, "--workers", "2" if kind is Unkind.MEMORY else "1")
        found.command(
            "quote-platform", "lab", "up", "--name", NAME, "--subnet", SUBNET, *sizes, "--unkind", kind
        )
        if kind is Unkind.PROXY:
            arrive(found, tmp_path)
        if kind in BEFORE:
            BEFORE[kind](found)
        for title in ("first", "second"):
            run = found.play(f"{title} run, {kind}", "playbooks/cluster.yml")
            succeeded(run)
        assert changed(run) == 0, run.output[-6000:]
        only = json.dumps({"verify_only": CHECKS, "verify_report": str(tmp_path / "report.json")})
        succeeded(found.play(f"verify, {kind}", "playbooks/verify.yml", "-e", only))
        if kind in AFTER:
            AFTER[kind](found)
