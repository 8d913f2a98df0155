"""What runs the machines of a lab: each driver is a module with the same functions."""

from collections.abc import Sequence
from typing import Protocol

from quote_platform.lab import containers, qemu
from quote_platform.lab.model import Driver, Lab, Node


class Runner(Protocol):
    """What a driver can do."""

    def kind(self) -> str:
        """Say what its machines are."""

    def refuse(self, lab: Lab) -> None:
        """Refuse what cannot be run here, before anything is made."""

    def prepare(self, lab: Lab) -> None:
        """Make or fetch the images of the machines that it runs."""

    def states(self, lab: str) -> dict[str, str]:
        """Return the state of each machine; `running` is one that runs."""

    def start(self, lab: Lab, node: Node) -> None:
        """Make a machine, or start it; where it runs, nothing."""

    def wait(self, lab: Lab, node: Node) -> None:
        """Wait until a machine has booted and takes SSH connections."""

    def kill(self, lab: str, names: Sequence[str]) -> None:
        """Switch machines off as a power cut does, all of them at once."""

    def remove(self, lab: str, name: str) -> None:
        """Remove a machine with its disks."""


ALL: dict[Driver, Runner] = {Driver.PODMAN: containers, Driver.QEMU: qemu}


def of(node: Node) -> Runner:
    """Return what runs a machine."""
    return ALL[node.driver]


def of_lab(lab: Lab) -> list[Runner]:
    """Return what runs the machines of a lab."""
    wanted = {node.driver for node in [*lab.services, *lab.nodes]}
    return [runner for driver, runner in ALL.items() if driver in wanted]


def states(lab: str) -> dict[str, str]:
    """Return the state of each machine of a lab, whatever runs it."""
    return {name: state for runner in ALL.values() for name, state in runner.states(lab).items()}
