"""Upgrades of a running cluster: what is to be done, what forbids it, and waiting until all is well again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from quote_platform.kubeconfig import answered
from quote_platform.upgrade import plan as planning
from quote_platform.upgrade.cluster import Cluster
from quote_platform.upgrade.hold import Hold
from quote_platform.upgrade.plan import Refused

__all__ = ["HOLD", "PLAN", "WAIT", "Refused", "hold", "plan", "wait"]
KUBECONFIG = {"kubeconfig": {"type": "path", "required": True}}
PLAN: dict[str, Any] = KUBECONFIG | {
    "version": {"type": "str", "default": ""},
    "packages": {"type": "dict", "default": {}},
    "images": {"type": "list", "elements": "str", "default": []},
    "nodes": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "control_plane": {"type": "bool", "required": True},
            "state": {"type": "list", "elements": "str", "default": []},
            "silent": {"type": "str", "default": ""},
        },
    },
    "free_mib": {"type": "int", "required": True},
    "batch": {"type": "str", "required": True},
}
WAIT: dict[str, Any] = KUBECONFIG | {
    "known": {"type": "list", "elements": "str", "default": []},
    "restarted": {"type": "dict", "default": {}},
    "timeout": {"type": "int", "default": 600},
}
HOLD: dict[str, Any] = KUBECONFIG | {"held": {"type": "bool", "required": True}}


@contextmanager
def _answered(kubeconfig: str) -> Iterator[Cluster]:
    """Yield the cluster; turn what it does not answer into a sentence."""
    with answered():
        yield Cluster(kubeconfig)


def _of(said: dict[str, Any], word: str) -> list[str]:
    """Return what follows a word in the lines that a node has said."""
    return [line.removeprefix(f"{word} ") for line in said["state"] if line.startswith(f"{word} ")]


def machine(said: dict[str, Any]) -> planning.Machine:
    """Return a node of what it has said."""
    pairs = [line.split(" ") for line in _of(said, "installed")]
    return planning.Machine(
        name=said["name"],
        control_plane=said["control_plane"],
        packages=dict(pairs),
        images=_of(said, "image"),
        outdated=_of(said, "outdated"),
        unfinished="unfinished" in said["state"],
        pending=_of(said, "pending"),
        free_mib=int(next(iter(_of(said, "free")), "0")),
        silent=said["silent"],
    )


def plan(given: dict[str, Any], dry_run: bool) -> dict[str, Any]:
    """Return the steps of an upgrade, and what a person reads of it."""
    machines = [machine(one) for one in given["nodes"]]
    version = given["version"]
    wanted = planning.Wanted(version, given["packages"], given["images"]) if version else None
    bounds = planning.Bounds(given["free_mib"], given["batch"])
    with _answered(given["kubeconfig"]) as cluster:
        members = cluster.members()
        audit = [line for one in given["nodes"] for line in _of(one, "audit")]
        requested = [line for one in given["nodes"] for line in _of(one, "requested")]
        findings = cluster.findings(version, requested, audit)
        steps, notes = planning.plan(machines, members, wanted, bounds, findings)
        # What waits for a node that is drained will be well.
        unwell = cluster.unwell() if steps and not any(step.marked for step in steps) else []
    if unwell:
        notes.append(f"not well before it begins, and not waited for: {'; '.join(unwell)}")
    return {
        "changed": bool(steps) and dry_run,
        "steps": [step.name for step in steps],
        "kubeadm": [step.name for step in steps if step.kubeadm],
        "lines": [step.line() for step in steps] + notes,
        "unwell": unwell,
        "kubelets": {member.name: member.kubelet.removeprefix("v") for member in members},
    }


def wait(given: dict[str, Any], dry_run: bool) -> dict[str, Any]:
    """Wait until all workloads are well that were."""
    if not dry_run:
        with _answered(given["kubeconfig"]) as cluster:
            cluster.wait(given["timeout"], given["known"], given["restarted"])
    return {"changed": False}


def hold(given: dict[str, Any], dry_run: bool) -> dict[str, Any]:
    """Keep others from upgrading the cluster, or let them."""
    if not dry_run:
        with _answered(given["kubeconfig"]) as cluster:
            held = Hold(cluster.api)
            if given["held"]:
                held.take()
            else:
                held.release()
    return {"changed": False}
