"""Labels, annotations and taints of nodes: what an inventory names is set, what it no longer names goes away.

What others set stays. Which are ours is recorded on the node itself, in an annotation.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from quote_platform.difference import difference
from quote_platform.kubeconfig import answered, connect, trouble

Object = dict[str, Any]
RECORD = "quote-platform/node-settings"
TIMEOUT = (5, 30)  # seconds to connect, to answer
SPEC: dict[str, Any] = {
    "kubeconfig": {"type": "path", "required": True},
    "nodes": {"type": "dict", "required": True},
}


class Refused(Exception):
    """It cannot be done; the text says why."""


def patch(node: Object, wanted: Object) -> Object:
    """Return the merge patch that gives a node what is wanted; empty if it has it."""
    metadata = node["metadata"]
    recorded = json.loads((metadata.get("annotations") or {}).get(RECORD, "{}"))
    changed: Object = {}
    record: Object = {}
    for part in ("labels", "annotations"):
        now, want = metadata.get(part) or {}, dict(wanted.get(part) or {})
        record[part] = sorted(want)
        gone = {key: None for key in recorded.get(part, []) if key in now and key not in want}
        changed[part] = {key: value for key, value in want.items() if now.get(key) != value} | gone
    taints, record["taints"] = _merged(node, wanted, recorded)
    text = json.dumps(record, sort_keys=True) if any(record.values()) else None
    if (metadata.get("annotations") or {}).get(RECORD) != text:
        changed["annotations"][RECORD] = text
    found: Object = {"metadata": {part: value for part, value in changed.items() if value}}
    if taints is not None:
        found["spec"] = {"taints": taints}
    return found if found["metadata"] or taints is not None else {}


def _merged(node: Object, wanted: Object, recorded: Object) -> tuple[list[Object] | None, list[str]]:
    """Return all taints as they should be, or None if they are so, and the names of ours."""
    now = node.get("spec", {}).get("taints") or []
    want = {
        _name(one): {key: one[key] for key in ("key", "value", "effect") if one.get(key)}
        for one in wanted.get("taints") or []
    }
    ours = {*recorded.get("taints", []), *want}
    same = {_name(one): {key: one[key] for key in ("key", "value", "effect") if one.get(key)} for one in now}
    if {name: one for name, one in same.items() if name in ours} == want:
        return None, sorted(want)
    return [one for one in now if _name(one) not in ours] + list(want.values()), sorted(want)


def _name(taint: Object) -> str:
    return f"{taint['key']}:{taint['effect']}"


def reconcile(given: Object, dry_run: bool) -> Object:
    """Bring nodes to what is wanted of them; return the result of a task."""
    wanted: dict[str, Object] = given["nodes"]
    nodes = Nodes(given["kubeconfig"], dry_run)
    known = nodes.read()
    if not dry_run and (strangers := sorted(set(wanted) - set(known))):
        raise Refused(f"no nodes of the cluster: {', '.join(strangers)}; see kubectl get nodes")
    diff = []
    for name, want in wanted.items():
        before = known.get(name, {"metadata": {}})
        after = before
        if change := patch(before, want):
            after = nodes.change(before, want) if not dry_run else _applied(before, change)
        if (shown := (_shown(before), _shown(after))) != ("", "") and shown[0] != shown[1]:
            diff.append(difference(f"Node {name}", *shown))
    return {"changed": bool(diff), "diff": diff}


def _applied(node: Object, change: Object) -> Object:
    """Return what a node would be."""
    metadata = dict(node["metadata"])
    for part, values in change["metadata"].items():
        merged = (metadata.get(part) or {}) | values
        metadata[part] = {key: value for key, value in merged.items() if value is not None}
    taints = change.get("spec", {}).get("taints", (node.get("spec") or {}).get("taints"))
    return {"metadata": metadata, "spec": {"taints": taints}}


def _shown(node: Object) -> str:
    """Return what a difference shows of a node; what others write meanwhile is none of it."""
    parts = {part: node["metadata"].get(part) for part in ("labels", "annotations")}
    parts["taints"] = (node.get("spec") or {}).get("taints")
    return (
        yaml.safe_dump({key: value for key, value in parts.items() if value}) if any(parts.values()) else ""
    )


class Nodes:
    """The nodes behind an API server, or none before there is a cluster."""

    def __init__(self, kubeconfig: str, dry_run: bool) -> None:
        self.api: Any = None
        if dry_run and not Path(kubeconfig).is_file():
            return
        self.api = client.CoreV1Api(connect(kubeconfig))

    def read(self, name: str = "") -> dict[str, Object]:
        """Return the nodes, or one, by their names, as the API server writes them."""
        if not self.api:
            return {}
        selector = f"metadata.name={name}" if name else ""
        with answered():
            found = self.api.list_node(field_selector=selector, _request_timeout=TIMEOUT)
        items = self.api.api_client.sanitize_for_serialization(found)["items"]
        return {one["metadata"]["name"]: one for one in items}

    def change(self, node: Object, wanted: Object) -> Object:
        """Patch a node; where another has written it since it was read, look again."""
        name = node["metadata"]["name"]
        for _ in range(5):
            change = patch(node, wanted)
            if not change:
                return node
            change["metadata"]["resourceVersion"] = node["metadata"]["resourceVersion"]
            try:
                found = self.api.patch_node(name, change, _request_timeout=TIMEOUT)
                return dict(self.api.api_client.sanitize_for_serialization(found))
            except (ApiException, HTTPError) as error:
                if getattr(error, "status", 0) != 409:
                    raise Refused(f"{name}: {trouble(error)}") from error
            node = self.read(name).get(name, node)
        raise Refused(f"{name} is changed by another again and again: look who does")
