"""The runtime pulls from the mirror under the upstream name, and runs what it pulled."""

import re
from typing import Any

from testinfra.host import Host

IMAGE = "docker.io/library/busybox:1.37.0"
CTR = "ctr --namespace molecule"
PULL = f"{CTR} images pull --hosts-dir /etc/containerd/certs.d"


def test_the_service_runs_now_and_after_a_reboot(host: Host) -> None:
    service = host.service("containerd")
    assert service.is_running
    assert service.is_enabled


def test_the_version_is_the_pinned_one_and_stays(host: Host, variables: dict[str, Any]) -> None:
    wanted = str(variables["container_runtime_version"])
    assert host.package("containerd.io").version.startswith(wanted)
    # 1001: apt keeps it, or goes back to it, whatever the repository offers.
    assert re.search(rf"{re.escape(wanted)}\S* 1001", host.check_output("apt-cache policy containerd.io"))


def test_an_image_is_pulled_and_runs(host: Host) -> None:
    host.check_output(f"{PULL} {IMAGE}")
    said = host.check_output(f"{CTR} run --rm {IMAGE} says-$$ echo from a container")
    assert said == "from a container"


def test_an_unknown_image_is_refused(host: Host) -> None:
    assert host.run(f"{PULL} docker.io/library/none:0").rc != 0


def test_systemd_owns_the_cgroups(host: Host) -> None:
    assert "SystemdCgroup = true" in host.check_output("containerd config dump")
