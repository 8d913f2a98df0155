"""A host that kubeadm accepts."""

import pytest
from testinfra.host import Host


def test_no_swap(host: Host) -> None:
    assert host.check_output("swapon --show --noheadings") == ""
    assert not [line for line in host.file("/etc/fstab").content_string.splitlines() if " swap " in line]


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
