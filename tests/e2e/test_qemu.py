"""A virtual machine, with a kernel of its own, becomes a node and stays one: see docs/virtual-machines.md."""

import json
import os
from pathlib import Path

import pytest
import yaml

from .conftest import ROOT, Eventually, Machines, gone_before_and_after
from .test_hostile import changed
from .test_platform import succeeded

NAME, SUBNET = "e2e-qemu", "10.89.49.0/24"
LAB_UP = ("quote-platform", "lab", "up", "--name", NAME, "--subnet", SUBNET, "--driver", "qemu")
# One machine, since it may be emulated, of a system that can be had wherever the lab can.
SMALL = ("--system", "debian-12", "--workers", "0", "--components", "core", "--control-plane-memory", "2g")
NODE = "master-1"
# In the network of the node, so that it needs no other.
POD = {
    "metadata": {"name": "probe", "namespace": "default", "uid": "1"},
    "linux": {"cgroup_parent": "probe.slice", "security_context": {"namespace_options": {"network": 2}}},
}
MINUTES = 45

pytestmark = pytest.mark.proof(minutes=MINUTES)


def preparing(folder: Path) -> Path:
    """Write a playbook that ends before a control plane is made: that much can be emulated."""
    plays = yaml.safe_load((ROOT / "playbooks/cluster.yml").read_text())
    (play,) = [play for play in plays if play.get("name") == "Prepare the nodes"]
    told = {"name": "Tell", "ansible.builtin.fail": {"msg": "{{ cluster_failure }}"}}
    play["tasks"].append(told | {"when": "cluster_failure is defined"})
    (folder / "group_vars").symlink_to(ROOT / "group_vars")
    file = folder / "prepare.yml"
    file.write_text(yaml.safe_dump([play], sort_keys=False))
    return file


def is_a_node(found: Machines) -> None:
    """Judge what roles have set in the kernel and started, by what is so now."""
    assert found.ssh(NODE, "stat --file-system --format %T /sys/fs/cgroup").strip() == "cgroup2fs"
    assert "0::/system.slice/containerd.service" in found.ssh(
        NODE, "cat /proc/$(systemctl show --property MainPID --value containerd)/cgroup"
    )
    assert found.ssh(NODE, "systemctl is-active containerd").strip() == "active"
    assert found.ssh(NODE, "systemctl is-enabled kubelet").strip() == "enabled"
    wanted = yaml.safe_load((ROOT / "roles/host_baseline/defaults/main.yml").read_text())
    settings = wanted["host_baseline_sysctl"]
    assert len(settings) > 5
    values = found.ssh(NODE, f"/sbin/sysctl --values {' '.join(settings)}").split()
    assert values == [str(value) for value in settings.values()]
    for module in wanted["host_baseline_kernel_modules"]:
        found.ssh(NODE, f"test -e {module['provides']}")


def test_a_virtual_machine_becomes_a_node_and_is_one_after_a_reboot(
    tmp_path: Path, eventually: Eventually
) -> None:
    playbook = str(preparing(tmp_path))
    routes = ("ip", "-4", "route", "show", SUBNET)
    with gone_before_and_after(Machines(name=NAME)) as found:
        found.command(*LAB_UP, *SMALL, seconds=60 * MINUTES)
        kernel = found.ssh(NODE, "uname -r").strip()
        assert kernel != os.uname().release
        assert found.ssh(NODE, "systemd-detect-virt --vm").strip() in {"qemu", "kvm"}
        assert "status: done" in found.ssh(NODE, "cloud-init status")

        run = found.play("virtual machine, first run", playbook, seconds=60 * MINUTES)
        succeeded(run)
        assert changed(run) > 5
        is_a_node(found)

        boot = found.ssh(NODE, "cat /proc/sys/kernel/random/boot_id")
        found.ssh(NODE, "systemctl reboot", check=False)
        eventually(
            lambda: (
                len(now := found.ssh(NODE, "cat /proc/sys/kernel/random/boot_id", check=False)) == len(boot)
                and now != boot
            ),
            900,
            "the machine has not booted again",
        )
        found.command(
            "quote-platform", "lab", "start", "--name", NAME, NODE, seconds=900
        )  # waits for all of it
        assert found.ssh(NODE, "uname -r").strip() == kernel
        is_a_node(found)

        run = found.play("virtual machine, second run", playbook, seconds=60 * MINUTES)
        succeeded(run)
        assert changed(run) == 0, run.output[-6000:]

        found.ssh(
            NODE, f"echo '{json.dumps(POD)}' > /run/probe.json && crictl --timeout 300s runp /run/probe.json"
        )
        group = found.ssh(NODE, "cat /proc/$(pidof pause)/cgroup").strip()
        assert group.startswith("0::/probe.slice/cri-containerd-"), group
    assert os.environ.get("E2E_KEEP") == "1" or found.command(*routes) == "", "its network is left"
