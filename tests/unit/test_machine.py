"""A machine that cannot carry a lab is refused in a sentence for each reason."""

from dataclasses import replace

import pytest

from quote_platform.lab.model import Driver, Lab, System
from quote_platform.machine import CGROUPS, GIB, Machine, Needs, Unfit, check

GOOD = Machine(
    cores=2,
    memory_free=16 * GIB,
    disk_free=60 * GIB,
    root=True,
    tun=True,
    cgroups=CGROUPS | {"blkio"},
    routes=("192.0.2.0/24",),
)
NEEDS = Needs(subnet="10.89.42.0/24", without_swap=True)


def test_a_good_machine_passes() -> None:
    check(GOOD, NEEDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cores": 1}, "This machine has 1 core, a lab needs 2."),
        ({"memory_free": 4 * GIB}, "4.0 GiB of memory are free, this lab needs 8"),
        ({"disk_free": 12 * GIB}, "12 GiB of disk are free below .*, 30 are needed."),
        ({"root": False}, "needs root: run the same command with sudo"),
        ({"tun": False}, "/dev/net/tun is missing"),
        ({"cgroups": CGROUPS - {"memory", "pids"}}, "no cgroup controller memory, pids"),
        ({"swap": ("/swap.img", "/dev/dm-1")}, r"Swap is on \(/swap.img, /dev/dm-1\): .*`swapoff -a`"),
        ({"routes": ("10.88.0.0/15",)}, "Subnet 10.89.42.0/24 overlaps 10.88.0.0/15"),
    ],
)
def test_what_is_missing_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(Unfit, match=message):
        check(replace(GOOD, **change), NEEDS)  # type: ignore[arg-type]


def test_all_reasons_come_at_once() -> None:
    with pytest.raises(Unfit) as refused:
        check(replace(GOOD, cores=1, root=False, tun=False), NEEDS)
    assert len(str(refused.value).splitlines()) == 3


def test_a_route_beside_the_subnet_is_no_reason() -> None:
    check(replace(GOOD, routes=("10.89.43.0/24", "10.89.41.0/24")), NEEDS)


def test_more_nodes_need_more_memory_and_a_running_lab_none() -> None:
    small, large = Lab(name="small", workers=1), Lab(name="large", workers=6)
    assert Needs.of_lab(large, running=False).memory > Needs.of_lab(small, running=False).memory
    core = Lab(name="core", workers=1, vaults=0, stores=0, logs=False)
    assert Needs.of_lab(small, running=False).memory == Needs.of_lab(core, running=False).memory + 2.5 * GIB
    check(replace(GOOD, memory_free=0, routes=("10.89.42.0/24",)), Needs.of_lab(large, running=True))


def test_only_nodes_that_share_the_kernel_are_without_swap() -> None:
    swapping = replace(GOOD, swap=("/swap.img",), memory_free=64 * GIB)
    machines = Lab(name="machines", driver=Driver.QEMU, system=System.UBUNTU, vaults=0, stores=0)
    check(swapping, Needs.of_lab(machines, running=False))
    check(swapping, Needs.of_lab(Lab(name="running"), running=True))
    with pytest.raises(Unfit, match="Swap is on"):
        check(swapping, Needs.of_lab(Lab(name="containers"), running=False))


def test_the_network_of_a_half_made_lab_is_no_obstacle_to_itself() -> None:
    lab = Lab(name="half")
    machine = replace(GOOD, routes=(lab.subnet,))
    check(machine, Needs.of_lab(lab, running=False, connected=True))
    with pytest.raises(Unfit, match="overlaps"):
        check(machine, Needs.of_lab(lab, running=False, connected=False))
