"""The runner must not pass what failed, never ran, or never ended."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

RUNNER = runpy.run_path(str(Path(__file__).resolve().parents[2] / "tests" / "run.py"))
SUITE = '<testsuite><testcase name="a"/>{}</testsuite>'


@pytest.fixture
def outcome(tmp_path: Path) -> Any:
    RUNNER["execute"].__globals__["REPORTS"] = tmp_path

    def run(script: str, reports: bool = False, layer: str = "unit", minutes: float = 1) -> Any:
        command = [sys.executable, "-c", script, str(tmp_path / layer / "step.xml")]
        step = RUNNER["Step"](layer, "step", command, minutes, reports=reports, cwd=tmp_path)
        return RUNNER["execute"](step, 600)

    return run


def write(content: str, status: int = 0) -> str:
    return f"import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('{content}'); sys.exit({status})"


def test_a_command_counts_once(outcome: Any) -> None:
    assert (outcome("pass").passed, outcome("pass").failed) == (1, 0)
    assert (outcome("exit(3)").passed, outcome("exit(3)").failed) == (0, 1)


def test_a_report_is_counted_case_by_case(outcome: Any) -> None:
    cases = '<testcase name="b"><failure message="why"/></testcase><testcase name="c"><skipped/></testcase>'
    found = outcome(write(SUITE.format(cases), status=1), reports=True)
    assert (found.passed, found.failed, found.skipped, found.reason) == (1, 1, 1, "b: why")


def test_a_failure_that_no_report_names_counts(outcome: Any) -> None:
    found = outcome(write(SUITE.format(""), status=2), reports=True)
    assert (found.passed, found.failed) == (1, 1)


@pytest.mark.parametrize("script", ["pass", write("<testsuite/>")])
def test_nothing_tested_is_a_failure(outcome: Any, script: str) -> None:
    assert outcome(script, reports=True).failed == 1


def test_a_scenario_without_tests_is_a_failure(outcome: Any) -> None:
    assert outcome("pass", reports=True, layer="molecule").failed == 1


def test_a_step_that_does_not_end_is_stopped(outcome: Any) -> None:
    found = outcome("import time; time.sleep(60)", minutes=0.01)
    assert found.failed == 1
    assert found.seconds < 30


def test_a_missing_program_is_a_failure(tmp_path: Path) -> None:
    RUNNER["execute"].__globals__["REPORTS"] = tmp_path
    step = RUNNER["Step"]("unit", "step", ["no-such-program-here"], 1, cwd=tmp_path)
    found = RUNNER["execute"](step, 60)
    assert found.failed == 1
    assert "could not start" in found.reason
