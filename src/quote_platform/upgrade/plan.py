"""The plan of an upgrade, or of updates of the hosts: which nodes, in which order, what is done with each.

And everything that forbids it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

# A kubelet may be so many minor versions older than the API server: https://kubernetes.io/releases/version-skew-policy/
KUBELET_SKEW = 3
# Set on a node while it is out of service: whether it took pods before. It goes when the node is back.
MARK = "quote-platform/maintenance"


class Refused(Exception):
    """The cluster is not to be upgraded; the text names every reason."""


@dataclass(frozen=True)
class Machine:
    """What a node says over SSH."""

    name: str
    control_plane: bool
    # Package -> version. The images of static pods. Services that run a program which was replaced.
    packages: dict[str, str] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    outdated: list[str] = field(default_factory=list)
    unfinished: bool = False  # kubeadm was cut off
    pending: list[str] = field(default_factory=list)  # what else is to be done with it, each a phrase
    free_mib: int = 0
    # Why it says nothing.
    silent: str = ""


@dataclass(frozen=True)
class Member:
    """What the API server says of a node."""

    name: str
    ready: bool
    kubelet: str
    control_plane: bool = False
    marked: bool = False


@dataclass(frozen=True)
class Wanted:
    """The pins."""

    kubernetes: str
    packages: dict[str, str]
    # Of a control plane's static pods.
    images: list[str]


@dataclass(frozen=True)
class Bounds:
    """What an upgrade needs."""

    free_mib: int
    batch: str


@dataclass
class Findings:
    """What stands in the way, as it was found in the cluster; each a sentence."""

    budgets: dict[str, list[str]] = field(default_factory=dict)  # node -> what keeps it from being drained
    databases: list[str] = field(default_factory=list)
    deprecated: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """What is done with one node."""

    name: str
    control_plane: bool
    kubeadm: bool
    changes: list[str]
    marked: bool
    batch: int = 0

    def line(self) -> str:
        """Return what a person reads."""
        return f"{self.batch}. {self.name}, drained: {'; '.join(self.changes)}"


def order(version: str) -> tuple[int, ...]:
    """Return major, minor and patch of a version such as v1.36.3 or 1.36.3-1.1, for comparison."""
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else ()


def plan(
    machines: list[Machine],
    members: list[Member],
    wanted: Wanted | None,
    bounds: Bounds,
    findings: Findings,
) -> tuple[list[Step], list[str]]:
    """Return the steps in their order, and what a person should know; raise Refused with every reason.

    Without `wanted`, no version of Kubernetes is meant: only what machines say is pending.
    """
    by_name = {member.name: member for member in members}
    ours = [machine for machine in machines if machine.silent or machine.name in by_name]
    notes = [
        f"{machine.name} is no node of the cluster yet; site.yml adds it after the upgrade"
        for machine in machines
        if machine not in ours
    ]
    left = [member for name, member in by_name.items() if name not in {machine.name for machine in machines}]
    if left:
        names = ", ".join(sorted(member.name for member in left))
        notes.append(f"left as they are: {names}; the next run without --limit upgrades them")
    steps = _steps(ours, by_name, wanted, bounds)
    planes = [member.name for member in left if member.control_plane and steps and wanted]
    if wrong := [
        *(_versions(ours, by_name, wanted) if wanted else []),
        *_nodes(ours, by_name, steps, bounds, together=wanted is not None),
        *(
            f"{name} is left out: all control planes are upgraded in one run, before workers"
            for name in planes
        ),
        # What waits for a node that a run before this one drained is in nobody's way: that node comes first.
        *(_obstacles(steps, findings) if steps and not any(step.marked for step in steps) else []),
    ]:
        raise Refused("\n".join(["Nothing was changed.", *(f"* {line}" for line in wrong)]))
    return steps, notes


def _steps(
    machines: list[Machine], members: dict[str, Member], wanted: Wanted | None, bounds: Bounds
) -> list[Step]:
    """Return control planes one by one, then workers in batches; of each those first that are drained."""
    found = [
        Step(
            name=machine.name,
            control_plane=machine.control_plane,
            kubeadm=wanted is not None
            and machine.control_plane
            and (machine.unfinished or not set(wanted.images) <= set(machine.images)),
            changes=changes,
            marked=members[machine.name].marked,
        )
        for machine in machines
        if not machine.silent and (changes := _changes(machine, members[machine.name], wanted))
    ]
    found.sort(key=lambda step: not step.marked)  # stable: else in the inventory's order
    planes = [step for step in found if step.control_plane]
    size = batch_size(bounds.batch, sum(not machine.control_plane for machine in machines))
    return [replace(step, batch=number) for number, step in enumerate(planes, 1)] + [
        replace(step, batch=len(planes) + 1 + number // size)
        for number, step in enumerate(step for step in found if not step.control_plane)
    ]


def batch_size(batch: str, workers: int) -> int:
    """Return how many workers go at once, of a number or a percentage."""
    if not (found := re.fullmatch(r"([1-9]\d*)(%?)", batch)):
        raise Refused(f"upgrade_batch: {batch!r}; allowed is a number such as 2, or a percentage such as 25%")
    number = int(found[1])
    return max(1, math.floor(workers * number / 100)) if found[2] else number


def _changes(machine: Machine, member: Member, wanted: Wanted | None) -> list[str]:
    """Return what is to be done with a node; empty if it is as it should be."""
    found = [*machine.pending, *(_moves(machine, member, wanted) if wanted else [])]
    if member.marked:
        found.append("back into service, which a run before this one took it out of")
    return found


def _moves(machine: Machine, member: Member, wanted: Wanted) -> list[str]:
    """Return what brings a node to the pins."""
    moves: dict[str, list[str]] = {}
    for name, version in wanted.packages.items():
        installed = machine.packages.get(name, "")
        if not _same(installed, version):
            moves.setdefault(f"{installed or 'none'} -> {version}", []).append(name)
    found = [f"{', '.join(names)} {move}" for move, names in moves.items()]
    if machine.control_plane:
        found += [
            f"image {image.rsplit('/', 1)[-1]}" for image in wanted.images if image not in machine.images
        ]
    found += [f"restart of {service}, whose program was replaced" for service in machine.outdated]
    if order(member.kubelet) != order(wanted.kubernetes) and not found:
        found.append(f"restart of kubelet, which runs as {member.kubelet}")
    if machine.unfinished:
        found.append("the rest of a kubeadm that was interrupted")
    return found


def _same(installed: str, version: str) -> bool:
    """Tell whether a package is there at a version, which may lack the part that names the distribution."""
    return installed == version or installed.startswith(f"{version}~")


def _versions(machines: list[Machine], members: dict[str, Member], wanted: Wanted) -> Iterable[str]:
    target = order(wanted.kubernetes)
    running = {
        machine.name: max(
            (order(image.rsplit(":", 1)[-1]) for image in machine.images if "/kube-" in image), default=()
        )
        for machine in machines
        if machine.control_plane and not machine.silent
    }
    for name, version in running.items():
        if not version:
            yield f"{name} has no static pods of a control plane: look at /etc/kubernetes/manifests there"
        elif version > target:
            yield (
                f"{name} runs Kubernetes {_text(version)}, newer than {wanted.kubernetes}: versions only go "
                "up. The way back is the snapshot of etcd that was made before, see docs/upgrade.md"
            )
        elif version[0] != target[0] or target[1] - version[1] > 1:
            yield (
                f"{name} runs Kubernetes {_text(version)}: control planes go up one minor version at a time; "
                f"set kubernetes_version to a {version[0]}.{version[1] + 1} first"
            )
    for machine in machines:
        kubelet = order(members[machine.name].kubelet) if machine.name in members else ()
        if kubelet and not machine.control_plane and target[1] - kubelet[1] > KUBELET_SKEW:
            yield (
                f"{machine.name} has a kubelet {_text(kubelet)}, too old for the API server "
                f"{wanted.kubernetes}: at most {KUBELET_SKEW} minor versions may lie between them. Remove "
                "the node and add it anew"
            )
        newer = [
            f"{name} {machine.packages[name]}"
            for name, version in wanted.packages.items()
            if name != "kubernetes-cni" and order(machine.packages.get(name, "")) > order(version)
        ]
        if newer and not machine.silent and not machine.control_plane:
            yield f"{machine.name} has {', '.join(newer)}, newer than what is pinned: versions only go up"


def _nodes(
    machines: list[Machine], members: dict[str, Member], steps: list[Step], bounds: Bounds, together: bool
) -> Iterable[str]:
    for machine in machines:
        leave = (
            f"bring it back, or leave it for the next run with --limit 'all:!{machine.name}'"
            if not (machine.control_plane and together)
            else "repair it first: all control planes are upgraded in one run"
        )
        if machine.silent:
            yield f"{machine.name}: {machine.silent}; {leave}"
        elif not members[machine.name].ready:
            yield f"{machine.name} is not Ready; {leave}"
        elif machine.free_mib < bounds.free_mib and machine.name in {step.name for step in steps}:
            yield (
                f"{machine.name} has {machine.free_mib} MiB free in /var; packages and images need "
                f"{bounds.free_mib} (upgrade_free_mib)"
            )


def _obstacles(steps: list[Step], findings: Findings) -> Iterable[str]:
    for step in steps:
        for obstacle in findings.budgets.get(step.name, []):
            yield f"{step.name} could not be drained: {obstacle}"
    yield from findings.databases
    yield from findings.deprecated


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
