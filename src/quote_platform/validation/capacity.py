"""What the chosen components request of the scheduler, against what the nodes have to give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quote_platform.quantities import MIB, Amount, amount, quantity, total

Variables = Mapping[str, Any]

# What the kubelet keeps free where nobody says otherwise.
EVICTION = "100Mi"
# How many are named.
LARGEST = 3
NODES = 5


def allocatable(facts: Variables, kubelet: Variables) -> Amount:
    """Return what a node has for pods: all of it, without what its kubelet is told to keep."""
    has = Amount(int(facts["ansible_processor_vcpus"]) * 1000, int(facts["ansible_memtotal_mb"]) * MIB)
    kept = total(amount(kubelet.get(part) or {}) for part in ("systemReserved", "kubeReserved"))
    least = str((kubelet.get("evictionHard") or {}).get("memory.available", EVICTION))
    eviction = has.memory * quantity(least[:-1]) / 100 if least.endswith("%") else quantity(least)
    return has - kept - Amount(0, eviction)


@dataclass(frozen=True)
class Workload:
    """A row of the table in roles/validate/vars/workloads.yml that is chosen."""

    name: str
    # Where a pod runs on each, or on which kind of node its pods share; empty means wherever there is room.
    at: str
    # None means one on each node.
    pods: int | None
    # Of one pod.
    each: Amount
    less: str
    # Whether no two of its pods share a node while another is free of them.
    apart: bool = False

    @property
    def all(self) -> Amount:
        """What all of its pods request, where their number is known."""
        return self.each * (self.pods or 0)


def workloads(table: list[Variables]) -> list[Workload]:
    """Return the rows of the table, or raise ValueError with what is no quantity."""
    found = []
    for row in table:
        try:
            each = total(map(amount, row["requests"]))
        except ValueError as error:
            raise ValueError(f"{row['name']}: requests {error}") from error
        pods = int(row["pods"]) if "pods" in row else None
        found.append(
            Workload(
                row["name"], row.get("at", ""), pods, each, row.get("less", ""), bool(row.get("apart", False))
            )
        )
    return found


def judge(
    table: list[Variables], facts: Mapping[str, Mapping[str, Variables]], kubelet: Variables, shared: bool
) -> list[str]:
    """Return what does not fit.

    `facts` are those of each node, by the groups control_plane and workers; `shared` tells whether pods run
    on control planes as well.
    """
    try:
        every = workloads(table)
        has = {
            group: {host: allocatable(known, kubelet) for host, known in hosts.items()}
            for group, hosts in facts.items()
        }
    except ValueError as error:
        return [str(error)]
    wrong = []
    room: dict[str, dict[str, Amount]] = {}
    for group, hosts in has.items():
        kinds = {"nodes", group} | ({"workers"} if shared else set())
        daemons = total(one.each for one in every if one.at in kinds and one.pods is None)
        room[group] = {host: own - daemons for host, own in hosts.items()}
        wrong += [
            f"{host}: what runs on each of {group} requests {daemons}, and it has {own}; take a larger "
            "machine"
            for host, own in hosts.items()
            if not own.holds(daemons)
        ]
    if wrong:
        return wrong
    pods = {
        "control_plane": [one for one in every if one.pods is not None and one.at == "control_plane"],
        "workers": [one for one in every if one.pods is not None and not one.at],
    }
    if shared:
        pods = {"nodes": pods["control_plane"] + pods["workers"]}
        room = {"nodes": room["control_plane"] | room["workers"]}
    for group, some in pods.items():
        wrong += _pods(group, some, room[group]) + _sum(group, some, room[group])
    return wrong


def _pods(group: str, some: list[Workload], room: dict[str, Amount]) -> list[str]:
    """Return of which workloads no node can hold a single pod, or too few nodes can."""
    wrong = []
    for one in some:
        small = [f"{host} {own}" for host, own in room.items() if not own.holds(one.each)]
        fit, wanted = len(room) - len(small), min(one.pods or 0, len(room) if one.apart else 1)
        if fit >= wanted:
            continue
        left = f"({', '.join(_some(small))}); take a larger machine{', or ' + one.less if one.less else ''}"
        if wanted > 1:
            wrong.append(
                f"{one.name}: {wanted} pods, each on a node of its own, request {one.each} each, and "
                f"{fit} of {group} {'has' if fit == 1 else 'have'} as much left for it, the others not {left}"
            )
        else:
            wrong.append(
                f"{one.name}: a pod requests {one.each}, and none of {group} has as much left for it {left}"
            )
    return wrong


def _some(nodes: list[str]) -> list[str]:
    """Return the first of many, and how many more there are."""
    return nodes[:NODES] + ([f"{len(nodes) - NODES} more"] if len(nodes) > NODES else [])


def _sum(group: str, some: list[Workload], room: dict[str, Amount]) -> list[str]:
    """Return whether all pods together want more than the nodes have."""
    wanted, left = total(one.all for one in some), total(room.values())
    wrong = []
    for what, unit, of in (("cpu", "m", 1), ("memory", " MiB", MIB)):

        def size(one: Amount, what: str = what, of: int = of) -> float:
            return float(getattr(one, what)) / of

        # Parts of millicores are the sums' own.
        if size(wanted) <= size(left) + 1e-6:
            continue
        largest = sorted(some, key=lambda one: size(one.all), reverse=True)[:LARGEST]
        named = ", ".join(f"{one.name} {size(one.all):.0f}{unit}" for one in largest)
        less = "; ".join(dict.fromkeys(one.less for one in largest if one.less))
        wrong.append(
            f"{group}: the chosen components request {size(wanted):.0f}{unit} of {what}, and there are "
            f"{max(0, math.floor(size(left))):.0f}{unit} left for them on {', '.join(_some(list(room)))}; "
            f"most request {named}. Take larger machines or more of them, or request less ({less})"
        )
    return wrong
