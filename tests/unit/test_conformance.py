"""What Kubernetes' conformance tests come to is held to the list of those that do not pass."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from e2e import conformance
from e2e.conformance import Excused, Outcome
from quote_platform import proof
from quote_platform.mirror import catalogue as cat

WHY = "a reason that somebody can follow"
GOOD: dict[str, Outcome] = {"a [Conformance]": "passed", "b": "failed", "c": "not run"}
LISTED = [Excused(reason=WHY, run=True, tests=["b"]), Excused(reason=WHY, run=False, tests=["c"])]


def test_what_is_named_may_fail_or_be_left_out() -> None:
    assert conformance.judge(GOOD, LISTED) == []


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ({"a [Conformance]": "failed"}, "a [Conformance]: failed, and not passed"),
        ({"a [Conformance]": "not run"}, "a [Conformance]: not run, and not passed"),
        ({"b": "passed"}, "b: passed, and not failed"),
        ({"b": "not run"}, "b: not run, and not failed"),
        ({"c": "passed"}, "c: passed, and not not run"),
        ({"d": "passed"}, ""),
    ],
)
def test_anything_else_is_said(outcomes: dict[str, Outcome], said: str) -> None:
    assert conformance.judge(GOOD | outcomes, LISTED) == ([said] if said else [])


def test_a_name_is_of_a_test_and_stands_once() -> None:
    more = [Excused(reason=WHY, run=True, tests=["b", "old"])]
    assert conformance.judge(GOOD, LISTED + more) == [
        "conformance.yml names b twice",
        "conformance.yml names old, which there is not",
    ]
    with pytest.raises(ValidationError, match="reason"):
        Excused(reason="", run=True, tests=["a"])


def test_a_report_tells_what_each_came_to(tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    report.write_text(
        """<testsuites><testsuite>
        <testcase name="[SynchronizedBeforeSuite]"/>
        <testcase name="[It] a [Conformance]"/>
        <testcase name="[It] b"><failure/></testcase>
        <testcase name="[It] c"><skipped/></testcase>
        <testcase name="[It] no conformance test"><failure/></testcase>
        </testsuite></testsuites>"""
    )
    assert conformance.outcomes(report, [*GOOD, "d"]) == GOOD | {"d": "not run"}


def test_a_name_is_taken_as_it_is() -> None:
    assert conformance.pattern(["[a] b.c (d)", "e"]) == r"\[a\] b\.c \(d\)|e"


def test_the_list_names_tests_of_this_version() -> None:
    """Of the module that the mirror compiles; its sources are fetched where they are not there."""
    found: dict[str, Outcome] = dict.fromkeys(conformance.names(), "passed")
    assert not [said for said in conformance.judge(found, conformance.excused()) if "names" in said]


def test_the_images_are_those_that_the_tests_of_this_version_ask_for() -> None:
    ours = {image.image for image in cat.load().images if cat.Part.CONFORMANCE in image.part}
    assert ours
    assert {image.removeprefix(f"{conformance.REGISTRY}/") for image in ours} <= conformance.images()


def test_the_claim_counts_them() -> None:
    claim = next(one.claim for one in proof.claims() if "tests/e2e/test_conformance.py" in one.tests)
    said = re.search(r"(\d+) of the (\d+)", claim)
    assert said
    every, others = len(conformance.names()), sum(len(one.tests) for one in conformance.excused())
    assert (int(said[1]), int(said[2])) == (every - others, every)
