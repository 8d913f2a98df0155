"""Labels, annotations and taints that an inventory names for a node."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from quote_platform.validation.choices import LABEL
from quote_platform.validation.hosts import NAME

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
KEY = re.compile(rf"((?=[^/]{{1,253}}/){NAME.pattern}(\.{NAME.pattern})*/)?(?=.){LABEL.pattern}")
A_KEY = "[DNS-NAME/]NAME, NAME of up to 63 letters"
# The kubelet, kubeadm and the controller of nodes set them, and set them again.
OTHERS = {
    "kubernetes.io/hostname": "the kubelet sets it",
    "kubernetes.io/os": "the kubelet sets it",
    "kubernetes.io/arch": "the kubelet sets it",
    "node-role.kubernetes.io/control-plane": "kubeadm sets it; control_plane_schedulable lets pods in",
}


def judge(given: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with `node_labels`, `node_annotations` and `node_taints` of a host."""
    wrong = list[str]()
    for name, what in (("node_labels", "a label"), ("node_annotations", "an annotation")):
        for key, value in (given.get(name) or {}).items():
            place = f"{name}.{key}"
            if not KEY.fullmatch(str(key)):
                wrong.append(f"{place}: is not {what}'s key; allowed is {A_KEY}")
            elif why := _not_ours(str(key)):
                wrong.append(f"{place}: {why}")
            elif not isinstance(value, str):
                wrong.append(f"{place}: {json.dumps(value)} is not text; write it in quotes")
            elif name == "node_labels" and not LABEL.fullmatch(value):
                wrong.append(f"{place}: {value!r}; allowed are up to 63 letters, digits, -, _ and .")
    return wrong + list(_taints(given.get("node_taints") or []))


def _taints(taints: list[Any]) -> Iterator[str]:
    seen = set[tuple[str, str]]()
    for index, taint in enumerate(taints):
        place = f"node_taints[{index}]"
        key, value, effect = str(taint.get("key", "")), taint.get("value", ""), str(taint.get("effect", ""))
        if not KEY.fullmatch(key):
            yield f"{place}.key: {key!r} is not a taint's key; allowed is {A_KEY}"
        elif why := _not_ours(key, taint=True):
            yield f"{place}.key: {key}: {why}"
        if effect not in EFFECTS:
            yield f"{place}.effect: {effect!r}; allowed is one of {', '.join(EFFECTS)}"
        if not isinstance(value, str) or not LABEL.fullmatch(value):
            yield f"{place}.value: {value!r}; allowed is text of up to 63 letters, digits, -, _ and ."
        if unknown := sorted(set(taint) - {"key", "value", "effect"}):
            yield f"{place}: {', '.join(unknown)}: no part of a taint; allowed are key, value and effect"
        if (key, effect) in seen:
            yield f"{place}: {key} with {effect} is named twice; a node has it once"
        seen.add((key, effect))


def _not_ours(key: str, taint: bool = False) -> str:
    """Return who else sets a key."""
    if key.startswith("quote-platform/"):
        return "the platform keeps it"
    if taint and key.startswith("node.kubernetes.io/"):
        return "Kubernetes sets it, by the state of the node"
    return OTHERS.get(key, "")
