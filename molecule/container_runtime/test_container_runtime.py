"""The runtime pulls from the mirror under the upstream name, and runs what it pulled."""

import re
from typing import Any

from testinfra.host import Host

from scenario import Inventory, words

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


def test_containers_are_not_asked_every_second(host: Host) -> None:
    assert "stats_collect_period = '10s'" in host.check_output("containerd config dump")


def test_nothing_is_left_of_the_distributions_runtime(host: Host) -> None:
    assert host.file("/srv/runtime").listdir(), "the node had none"
    states = host.run("dpkg-query --show --showformat '${db:Status-Status}\\n' containerd runc").stdout
    assert set(states.split()) <= {"not-installed"}
    assert not host.file("/usr/sbin/runc").exists
    main = host.check_output("systemctl show --property MainPID --value containerd")
    assert host.check_output(f"readlink /proc/{main}/exe") == "/usr/bin/containerd"


def test_what_would_be_found_before_the_package_is_refused(host: Host, inventory: Inventory) -> None:
    program, unit = "/usr/local/sbin/runc", "/etc/systemd/system/containerd.service"
    host.check_output(f"cp /bin/true {program}; cp /lib/systemd/system/containerd.service {unit}")
    host.check_output("systemctl daemon-reload")
    try:
        done = inventory.play()
    finally:
        host.check_output(f"rm {program} {unit}; systemctl daemon-reload")
    assert done.returncode != 0
    assert f"{program} is found before that of containerd.io; {unit} stands in for the unit" in words(done)
    inventory.unchanged()
