"""The packages of Kubernetes: the pinned version, held, and complete."""

import re
from typing import Any

import pytest
from testinfra.host import Host


@pytest.mark.parametrize("package", ["kubelet", "kubeadm", "kubectl"])
def test_the_version_is_the_pinned_one_and_stays(host: Host, variables: dict[str, Any], package: str) -> None:
    wanted = f"{variables['kubernetes_version']}-"
    assert host.package(package).version.startswith(wanted)
    # 1001: apt keeps it, or goes back to it, whatever the repository offers.
    assert re.search(rf"{re.escape(wanted)}\S+ 1001", host.check_output(f"apt-cache policy {package}"))


@pytest.mark.parametrize(
    "command",
    ["kubeadm version --output=short", "kubelet --version", "kubectl version --client", "crictl --version"],
)
def test_the_programs_run(host: Host, command: str) -> None:
    host.check_output(command)


def test_the_binaries_are_of_the_pinned_version(host: Host, variables: dict[str, Any]) -> None:
    assert host.check_output("kubeadm version --output=short") == f"v{variables['kubernetes_version']}"


def test_the_network_plugins_are_there(host: Host) -> None:
    for plugin in ("bridge", "host-local", "loopback", "portmap"):
        assert host.file(f"/opt/cni/bin/{plugin}").exists


def test_the_kubelet_starts_with_the_machine(host: Host) -> None:
    assert host.service("kubelet").is_enabled
