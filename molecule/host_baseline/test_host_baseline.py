"""A host that kubeadm accepts."""

import shlex

import pytest
from testinfra.host import Host

from scenario import Inventory

# What brings swap at a boot: entries as people write them, a unit that not systemd's own target starts, a
# service with a way of its own, and that target, for which generators make units.
SWAP = """
printf '%s\\n' ' UUID=0a1b none swap sw 0 0' '/dev/vg/data /srv/swap ext4 defaults 0 2' >> /etc/fstab
printf '/swap.img\\tnone\\tswap\\tsw\\t0\\t0' >> /etc/fstab
cd /etc/systemd/system
printf '%s\\n' '[Swap]' What=/var/swap '[Install]' WantedBy=multi-user.target > var-swap.swap
printf '%s\\n' '[Service]' ExecStart=/bin/true '[Install]' WantedBy=multi-user.target > zramswap.service
systemctl unmask swap.target
systemctl enable var-swap.swap zramswap.service
"""


def test_no_swap(host: Host) -> None:
    assert host.check_output("swapon --show --noheadings") == ""
    assert not [line for line in host.file("/etc/fstab").content_string.splitlines() if " swap " in line]


def test_swap_stays_off_wherever_it_comes_from(host: Host, inventory: Inventory) -> None:
    host.check_output(f"bash -ec {shlex.quote(SWAP)}")
    changes, _ = inventory.converge("--check")
    assert sum(changes.values()) == 3, "the target, the units, the table of file systems"
    inventory.converge()
    entries = [line for line in host.file("/etc/fstab").content_string.splitlines() if line[:1] != "#"]
    assert "/dev/vg/data /srv/swap ext4 defaults 0 2" in entries
    assert not [line for line in entries if line.split()[2:3] == ["swap"]]
    for unit in ("var-swap.swap", "zramswap.service"):
        assert host.run(f"systemctl is-enabled {unit}").stdout.strip() == "disabled"
    assert "masked" in host.run("systemctl start swap.target").stderr
    inventory.unchanged()
    host.check_output("cd /etc/systemd/system && rm var-swap.swap zramswap.service")


@pytest.mark.parametrize("key", ["net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables"])
def test_the_kernel_forwards_what_pods_send(host: Host, key: str) -> None:
    if not host.file(f"/proc/sys/{key.replace('.', '/')}").exists:
        pytest.skip(f"this kernel has no {key}")
    assert host.sysctl(key) == 1


def test_settings_survive_a_reboot(host: Host) -> None:
    files = host.check_output("grep -rlE '^net.ipv4.ip_forward *= *1' /etc/sysctl.d")
    assert files
    modules = host.check_output("cat /etc/modules-load.d/*.conf")
    assert "overlay" in modules
    assert "br_netfilter" in modules


def test_upgrades_leave_the_pinned_packages_alone(host: Host) -> None:
    configuration = host.check_output("apt-config dump Unattended-Upgrade::Package-Blacklist")
    for package in ("containerd", "kube"):
        assert package in configuration


def test_files_say_who_wrote_them(host: Host) -> None:
    written = host.check_output("grep -rlE '^net.ipv4.ip_forward *= *1' /etc/sysctl.d").split()
    assert any("Ansible managed" in host.file(path).content_string for path in written)
