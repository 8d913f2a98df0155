"""What is written over a node: ours comes and goes, what others set stays."""

from typing import Any

import pytest

from quote_platform.node_settings import RECORD, patch

THEIRS = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "2026-11-30T00:00:00Z"}
OURS = {"key": "example.com/gpu", "value": "a100", "effect": "NoSchedule"}
WANTED = {"labels": {"zone": "a"}, "annotations": {"rack": "3"}, "taints": [OURS]}
RECORDED = '{"annotations": ["rack"], "labels": ["zone"], "taints": ["example.com/gpu:NoSchedule"]}'


def node(**parts: Any) -> dict[str, Any]:
    return {"metadata": {"labels": parts.get("labels", {}), "annotations": parts.get("annotations", {})}} | {
        "spec": {"taints": parts.get("taints", [])}
    }


def settled(**parts: Any) -> dict[str, Any]:
    """Return a node that has what is wanted, and something of others."""
    known: dict[str, Any] = {
        "labels": {"zone": "a", "kubernetes.io/os": "linux"},
        "annotations": {"rack": "3", RECORD: RECORDED},
        "taints": [THEIRS, OURS],
    }
    return node(**known | parts)


def test_a_node_gets_what_is_wanted_and_keeps_what_is_there() -> None:
    assert patch(node(labels={"kubernetes.io/os": "linux"}, taints=[THEIRS]), WANTED) == {
        "metadata": {"labels": {"zone": "a"}, "annotations": {"rack": "3", RECORD: RECORDED}},
        "spec": {"taints": [THEIRS, OURS]},
    }


def test_a_settled_node_needs_nothing() -> None:
    assert patch(settled(), WANTED) == {}
    assert patch(settled(taints=[OURS, THEIRS]), WANTED) == {}


def test_a_node_of_which_nothing_was_ever_wanted_needs_nothing() -> None:
    assert patch(node(labels={"zone": "b"}, taints=[THEIRS]), {}) == {}


def test_what_is_no_longer_wanted_goes_with_the_record_of_it() -> None:
    assert patch(settled(), {}) == {
        "metadata": {"labels": {"zone": None}, "annotations": {"rack": None, RECORD: None}},
        "spec": {"taints": [THEIRS]},
    }


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"labels": {"zone": "b"}}, {"metadata": {"labels": {"zone": "a"}}}),
        ({"labels": {}}, {"metadata": {"labels": {"zone": "a"}}}),
        ({"taints": [THEIRS]}, {"metadata": {}, "spec": {"taints": [THEIRS, OURS]}}),
        ({"taints": [OURS | {"value": "h100"}]}, {"metadata": {}, "spec": {"taints": [OURS]}}),
    ],
)
def test_what_was_changed_by_hand_is_set_again(parts: dict[str, Any], expected: dict[str, Any]) -> None:
    assert patch(settled(**parts), WANTED) == expected


def test_a_taint_may_change_its_effect() -> None:
    other = OURS | {"effect": "NoExecute"}
    assert patch(settled(), WANTED | {"taints": [other]})["spec"] == {"taints": [THEIRS, other]}
