"""A restore drill: by what a restored database is compared with the one that runs; where it has room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from quote_platform.quantities import Amount, amount, total

# Of each table: all rows; those from before a moment, and a checksum of these; when the newest was made.
Figures = Mapping[str, Mapping[str, Any]]
# Pods that have ended request nothing any more.
ENDED = ("Succeeded", "Failed")


def differences(restored: Figures, before: Figures, after: Figures) -> list[str]:
    """Return what a restored database does not have as the running one, before the drill or after it.

    A table of which rows from before the moment were changed meanwhile is compared by nothing but its name.
    """
    wrong = []
    for table in sorted({*restored, *before, *after}):
        own, first, last = (one.get(table) for one in (restored, before, after))
        if own is None:
            if first and last:
                wrong.append(f"{table}: is not in the restore")
        elif first is None and last is None:
            wrong.append(f"{table}: is in the restore only")
        elif first and last and _old(first) == _old(last) != _old(own):
            same = own["old"] == last["old"]
            but = "as many as in the running database, but others" if same else f"{last['old']} in that one"
            wrong.append(f"{table}: {own['old']} rows from before the moment in the restore, {but}")
    return wrong


def _old(one: Mapping[str, Any]) -> tuple[Any, Any]:
    return one["old"], one["sum"]


def told(restored: Figures, after: Figures) -> list[str]:
    """Return a line for each table: rows, and the newest one that came back."""
    found = []
    for table, one in sorted(restored.items()):
        newest = f", the newest of {one['newest']}" if one.get("newest") else ""
        now = after.get(table, {}).get("rows", "no such table")
        found.append(f"{table}: {one['rows']} rows{newest}; the running database: {now}")
    return found


def no_room(
    nodes: Iterable[Mapping[str, Any]],
    pods: Iterable[Mapping[str, Any]],
    requests: Iterable[Mapping[str, Any]],
) -> str:
    """Return why no node has room for a pod whose containers request this, or nothing if one has.

    Nodes and pods are as the API server gives them.
    """
    wanted = total(map(amount, requests))
    taken: dict[str, Amount] = {}
    for pod in pods:
        node = pod["spec"].get("nodeName", "")
        if pod.get("status", {}).get("phase") not in ENDED:
            taken[node] = taken.get(node, Amount()) + _of_pod(pod["spec"])
    left = {
        node["metadata"]["name"]: amount(node["status"]["allocatable"])
        - taken.get(node["metadata"]["name"], Amount())
        for node in nodes
        if _takes_pods(node)
    }
    if any(own.holds(wanted) for own in left.values()):
        return ""
    has = ", ".join(f"{name} {own}" for name, own in sorted(left.items())) or "no node takes pods"
    return f"a pod requests {wanted}, and no node has as much left for it ({has})"


def _of_pod(spec: Mapping[str, Any]) -> Amount:
    """Return what a pod requests: its containers together, or one that runs before them if that is more."""

    def asked(one: Mapping[str, Any]) -> Amount:
        return amount((one.get("resources") or {}).get("requests") or {})

    before = spec.get("initContainers") or []
    beside = total(asked(one) for one in before if one.get("restartPolicy") == "Always")
    whole = total(asked(one) for one in spec["containers"]) + beside
    first = [asked(one) + beside for one in before if one.get("restartPolicy") != "Always"]
    return Amount(
        max(whole.cpu, *(one.cpu for one in first)) if first else whole.cpu,
        max(whole.memory, *(one.memory for one in first)) if first else whole.memory,
    )


def _takes_pods(node: Mapping[str, Any]) -> bool:
    closed = any(one["effect"] in {"NoSchedule", "NoExecute"} for one in node["spec"].get("taints") or [])
    conditions = {one["type"]: one["status"] for one in node["status"].get("conditions", [])}
    return not (closed or node["spec"].get("unschedulable")) and conditions.get("Ready") == "True"
