"""What auditors find is accepted by name and with a reason, or fails the run."""

from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from auditors import audit

HERE = Path(audit.__file__).parent
ROOT_USER = audit.Finding("CKV_K8S_40", "web/shop/deployment-web.yaml", "Containers run with a high UID")
WHY = "a reason that somebody can follow"


def accepted(**changes: object) -> list[audit.Accepted]:
    entry = {"reason": WHY, "checks": ["CKV_K8S_40"], "places": ["web/*"]} | changes
    return [audit.Accepted.model_validate(entry)]


def test_a_finding_that_nobody_accepts_is_left() -> None:
    other = audit.Finding("CKV_K8S_16", ROOT_USER.place)
    elsewhere = audit.Finding("CKV_K8S_40", "store/shop/deployment-store.yaml")
    left, stale = audit.judge([ROOT_USER, other, elsewhere], accepted())
    assert left == [other, elsewhere]
    assert stale == []


def test_what_is_accepted_and_not_found_is_named() -> None:
    left, stale = audit.judge(
        [ROOT_USER], accepted(checks=["CKV_K8S_40", "CKV_K8S_1"], places=["web/*", "old/*"])
    )
    assert left == []
    assert stale == [f"CKV_K8S_1: accepted ({WHY}), but not found", f"old/*: accepted ({WHY}), but not found"]


@pytest.mark.parametrize("lacks", ["reason", "checks", "places"])
def test_nothing_is_accepted_without_a_reason_or_a_place(lacks: str) -> None:
    with pytest.raises(ValidationError, match=lacks):
        accepted(**{lacks: type(accepted()[0].model_dump()[lacks])()})


def test_the_list_can_be_read() -> None:
    TypeAdapter(list[audit.Accepted]).validate_python(yaml.safe_load((HERE / "accepted.yml").read_text()))
