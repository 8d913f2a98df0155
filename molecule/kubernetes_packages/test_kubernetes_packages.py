"""The packages of Kubernetes: the pinned version, held, and complete."""

import pytest


@pytest.mark.parametrize("package", ["kubelet", "kubeadm", "kubectl"])
def test_the_version_is_the_pinned_one_and_held(host, variables, package):
    assert host.package(package).version.startswith(variables["kubernetes_version"])
    assert package in host.check_output("apt-mark showhold").split()


@pytest.mark.parametrize(
    "command",
    ["kubeadm version --output=short", "kubelet --version", "kubectl version --client", "crictl --version"],
)
def test_the_programs_run(host, command):
    host.check_output(command)


def test_the_binaries_are_of_the_pinned_version(host, variables):
    assert host.check_output("kubeadm version --output=short") == f"v{variables['kubernetes_version']}"


def test_the_network_plugins_are_there(host):
    for plugin in ("bridge", "host-local", "loopback", "portmap"):
        assert host.file(f"/opt/cni/bin/{plugin}").exists


def test_the_kubelet_starts_with_the_machine(host):
    assert host.service("kubelet").is_enabled
