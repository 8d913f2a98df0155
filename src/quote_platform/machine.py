"""Whether this machine can run a lab: refused early, in a sentence each."""

import ipaddress
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from quote_platform import paths
from quote_platform.lab.model import Driver, Lab, Node

GIB = 1024**3
CGROUPS = frozenset({"cpu", "memory", "pids", "cpuset"})


class Unfit(Exception):
    """The machine cannot do it; the text has a sentence for each reason."""


@dataclass(frozen=True)
class Machine:
    """What this machine has."""

    cores: int
    memory_free: int
    disk_free: int
    root: bool
    tun: bool
    cgroups: frozenset[str]
    routes: tuple[str, ...] = ()
    swap: tuple[str, ...] = ()


@dataclass(frozen=True)
class Needs:
    """What is to be run."""

    cores: int = 2
    memory: int = 8 * GIB
    disk: int = 30 * GIB
    subnet: str = ""
    without_swap: bool = False

    @classmethod
    def of_lab(cls, lab: Lab, running: bool, connected: bool = False) -> "Needs":
        """Return what a lab needs; what runs has it already.

        A container uses what its programs use, a virtual machine all that it was given.
        `connected`: its network is there, so that this machine's own route to it is no obstacle.
        """
        if running:
            return cls(memory=0, disk=2 * GIB)
        filled = (paths.cache() / "mirror" / "www").is_dir()
        every = [lab.mirror, *([lab.log_store] if lab.logs else []), *lab.nodes]
        return cls(
            memory=sum(_memory(node) for node in every),
            disk=(10 if filled else 30) * GIB,
            subnet="" if connected else lab.subnet,
            without_swap=any(node.driver is Driver.PODMAN for node in lab.nodes),
        )


def _memory(node: Node) -> int:
    """Return what a machine takes: a node of the cluster or the store of logs more than the others."""
    if node.driver is Driver.QEMU:
        return node.mebibytes * GIB // 1024
    return (3 if node.role in {"master", "worker", "logs"} else 1) * GIB // 2


def read() -> Machine:
    """Look at this machine."""
    cache = paths.cache()
    cache.mkdir(parents=True, exist_ok=True)
    routes = subprocess.run(["ip", "-4", "route", "show"], capture_output=True, text=True, check=False).stdout
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    if controllers.is_file():
        cgroups = frozenset(controllers.read_text().split())
    else:
        lines = [line.split() for line in Path("/proc/cgroups").read_text().splitlines()[1:]]
        cgroups = frozenset(line[0] for line in lines if line[3] == "1")
    return Machine(
        cores=os.cpu_count() or 1,
        memory_free=psutil.virtual_memory().available,
        disk_free=shutil.disk_usage(cache).free,
        root=os.geteuid() == 0,
        tun=Path("/dev/net/tun").exists(),
        cgroups=cgroups,
        routes=tuple(line.split()[0] for line in routes.splitlines() if "/" in line.split()[0]),
        swap=tuple(line.split()[0] for line in Path("/proc/swaps").read_text().splitlines()[1:]),
    )


def check(machine: Machine, needs: Needs) -> None:
    """Refuse a machine that cannot do it."""
    wrong = []
    if not machine.root:
        wrong.append("A lab needs root: run the same command with sudo.")
    if machine.cores < needs.cores:
        wrong.append(f"This machine has {machine.cores} core, a lab needs {needs.cores}.")
    if machine.memory_free < needs.memory:
        free = (
            f"{machine.memory_free / GIB:.1f} GiB of memory are free, this lab needs {needs.memory / GIB:.0f}"
        )
        wrong.append(f"{free}: stop something, use fewer workers, or give virtual machines less.")
    if machine.disk_free < needs.disk:
        free = f"{machine.disk_free / GIB:.0f} GiB of disk are free below {paths.cache()}"
        wrong.append(f"{free}, {needs.disk / GIB:.0f} are needed.")
    if not machine.tun:
        wrong.append(
            "/dev/net/tun is missing: load the kernel module tun, or give this container the device."
        )
    if missing := CGROUPS - machine.cgroups:
        wrong.append(
            f"The kernel offers no cgroup controller {', '.join(sorted(missing))}: boot with them enabled."
        )
    if needs.without_swap and machine.swap:
        wrong.append(
            f"Swap is on ({', '.join(machine.swap)}): nodes that are containers share this machine's, and "
            "the kubelet does not start with it. `swapoff -a` switches it off until the next boot, if there "
            "is as much free memory; virtual machines (--driver qemu) have their own."
        )
    for route in machine.routes if needs.subnet else ():
        if ipaddress.ip_network(route, strict=False).overlaps(ipaddress.ip_network(needs.subnet)):
            wrong.append(
                f"Subnet {needs.subnet} overlaps {route}, which this machine reaches: choose another."
            )
    if wrong:
        raise Unfit("\n".join(wrong))
