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


def test_what_is_planted_and_not_found_is_named_and_is_no_finding() -> None:
    seen, overlooked = audit.PLANTED["secrets"], audit.PLANTED["ansible"]
    found = audit.Finding(seen.check, f"{seen.path}#0a1b2c3d")
    # Another check that fails at the same place does not stand in for the one that was to find it.
    beside = audit.Finding("CKV_ANSIBLE_1", overlooked.path)
    assert audit.unseen([found, beside, ROOT_USER], [seen, overlooked]) == (
        {ROOT_USER},
        [f"{overlooked.check} {overlooked.path}"],
    )


def test_every_kind_of_check_has_a_planted_fault() -> None:
    assert set(audit.FRAMEWORKS) == audit.PLANTED.keys()


def test_the_tracked_files_are_looked_at_and_no_others(tmp_path: Path) -> None:
    (unknown := audit.HERE / "not-tracked").touch()
    try:
        copy = audit.tracked(tmp_path)
    finally:
        unknown.unlink()
    assert (copy / "site.yml").read_bytes() == (audit.ROOT / "site.yml").read_bytes()
    assert (copy / ".github/workflows/release.yml").is_file()
    assert (copy / "apps/quote-app" / audit.AS_CHECKOV_NAMES_IT).is_file()
    assert not (copy / "tests/auditors/not-tracked").exists()


def test_the_list_can_be_read() -> None:
    TypeAdapter(list[audit.Accepted]).validate_python(yaml.safe_load((HERE / "accepted.yml").read_text()))
