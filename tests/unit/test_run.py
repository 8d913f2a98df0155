"""The runner and CI must not pass what failed, never ran, or never ended, and name what was left out."""

import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNNER = runpy.run_path(str(ROOT / "tests" / "run.py"))
SUITE = '<testsuite><testcase name="a"/>{}</testsuite>'
LEFT_OUT = '<testcase name="c"><skipped message="the time is up"/></testcase>'


@pytest.fixture(autouse=True)
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(RUNNER["execute"].__globals__, "REPORTS", tmp_path)
    return tmp_path


@pytest.fixture
def outcome(tmp_path: Path) -> Any:
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
    cases = f'<testcase name="b"><failure message="why"/></testcase>{LEFT_OUT}'
    found = outcome(write(SUITE.format(cases), status=1), reports=True)
    assert (found.passed, found.failed, found.reason) == (1, 1, "b: why")
    assert found.skipped == ["c (the time is up)"]


def test_a_failure_that_no_report_names_counts(outcome: Any) -> None:
    found = outcome(write(SUITE.format(""), status=2), reports=True)
    assert (found.passed, found.failed) == (1, 1)


@pytest.mark.parametrize(("status", "failures"), [(0, 0), (1, 1)])
def test_a_scenario_reports_how_its_role_ended(
    outcome: Any, tmp_path: Path, status: int, failures: int
) -> None:
    """Its tests alone would not say that converging a second time changed something."""
    found = outcome(write(SUITE.format(""), status), reports=True, layer="molecule")
    assert (found.passed, found.failed) == (2 - failures, failures)
    report = ElementTree.parse(tmp_path / "molecule" / "step.xml")  # noqa: S314
    assert [case.get("name") for case in report.iter("testcase")] == ["a", "step"]
    assert len(list(report.iter("failure"))) == failures


@pytest.mark.parametrize(
    "script", ["pass", write("<testsuite/>"), write(f"<testsuite>{LEFT_OUT}</testsuite>")]
)
def test_nothing_tested_is_a_failure(outcome: Any, script: str) -> None:
    assert outcome(script, reports=True).failed == 1


def test_a_scenario_without_tests_is_a_failure(outcome: Any) -> None:
    assert outcome("pass", reports=True, layer="molecule").failed == 1


def test_a_step_that_does_not_end_is_stopped(outcome: Any) -> None:
    found = outcome("import time; time.sleep(60)", minutes=0.01)
    assert found.failed == 1
    assert found.seconds < 30


def test_a_step_that_has_no_time_left_is_a_failure() -> None:
    found = RUNNER["execute"](RUNNER["Step"]("unit", "step", ["true"], 1), 0)
    assert (found.passed, found.failed) == (0, 1)


def test_a_missing_program_is_a_failure(tmp_path: Path) -> None:
    step = RUNNER["Step"]("unit", "step", ["no-such-program-here"], 1, cwd=tmp_path)
    found = RUNNER["execute"](step, 60)
    assert found.failed == 1
    assert "could not start" in found.reason


def test_processor_time_is_that_of_the_step_and_its_children(outcome: Any) -> None:
    work = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}])"
    found = outcome(child)
    assert 0.5 <= found.own <= 5
    assert outcome("import time; time.sleep(0.5)").own < 0.4


def test_two_lanes_run_side_by_side_and_a_third_follows(tmp_path: Path) -> None:
    """Each writes when it begins and ends; both of the first two begin before one of them ends."""
    log = tmp_path / "log"
    begin, end = (f"open(sys.argv[1], 'a').write(sys.argv[2] + ' {word}\\n')" for word in ("begins", "ends"))
    command = [sys.executable, "-c", f"import sys, time; {begin}; time.sleep(1); {end}", str(log)]
    lanes = ("a", "b", "c")
    steps = [RUNNER["Step"]("unit", lane, [*command, lane], 1, lane=lane, cwd=tmp_path) for lane in lanes]
    outcomes = RUNNER["run"](steps, time.monotonic() + 60)
    assert [outcome.step.name for outcome in outcomes] == list(lanes)
    said = log.read_text().splitlines()
    assert set(said[:2]) == {"a begins", "b begins"}
    assert said.index("c begins") > min(said.index("a ends"), said.index("b ends"))


def test_a_step_waits_for_what_it_needs_of_another_lane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        RUNNER["lane_of"].__globals__, "AFTER", {"second": ("first",), "alone": ("not-here",)}
    )
    log = tmp_path / "log"

    def step(name: str, lane: str, seconds: int) -> Any:
        script = (
            "import sys, time; time.sleep(int(sys.argv[3])); open(sys.argv[1], 'a').write(sys.argv[2] + ' ')"
        )
        command = [sys.executable, "-c", script, str(log), name, str(seconds)]
        return RUNNER["Step"]("unit", name, command, 1, lane=lane, cwd=tmp_path)

    steps = [step("second", "a", 0), step("alone", "b", 0), step("first", "b", 1)]
    assert not any(outcome.failed for outcome in RUNNER["run"](steps, time.monotonic() + 60))
    assert log.read_text().split() == ["alone", "first", "second"]


def test_an_interrupted_run_ends_its_step_and_starts_no_other(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    steps = [RUNNER["Step"]("unit", name, command, 1, cwd=tmp_path) for name in ("first", "second")]
    started = time.monotonic()
    try:
        with ThreadPoolExecutor() as pool:
            running = pool.submit(RUNNER["run"], steps, started + 60)
            while not RUNNER["RUNNING"]:
                time.sleep(0.05)
            with pytest.raises(KeyboardInterrupt):
                RUNNER["interrupt"]()
            first, second = running.result()
    finally:
        RUNNER["INTERRUPTED"].clear()
    assert time.monotonic() < started + 30
    assert (first.failed, second.failed, second.reason) == (1, 1, "not started: interrupted")


@pytest.mark.parametrize(
    ("counts", "total", "statuses"),
    [
        ((2, 0, []), "2 passed, 0 failed", (0, 0)),
        ((2, 0, ["b (why)"]), "2 passed, 0 failed, 1 skipped", (0, 1)),
        ((2, 1, ["b (why)"]), "2 passed, 1 failed, 1 skipped", (1, 1)),
        ((0, 0, ["b (why)"]), "0 passed, 1 failed, 1 skipped", (1, 1)),
    ],
)
def test_what_was_left_out_is_named_and_fails_a_proof(
    reports: Path, capsys: pytest.CaptureFixture[str], counts: Any, total: str, statuses: tuple[int, int]
) -> None:
    passed, failed, skipped = counts
    step = RUNNER["Step"]("e2e", "lab", [], 1)
    outcome = RUNNER["Outcome"](step, passed, failed, 1, skipped=skipped)
    assert tuple(RUNNER["close"]([outcome], proof) for proof in (False, True)) == statuses
    assert (reports / "total").read_text() == f"{total}\n"
    assert ("not run: e2e/lab: b (why)" in capsys.readouterr().out) == bool(skipped)


def test_long_proofs_are_for_a_release() -> None:
    for layer in ("unit", "e2e"):
        assert RUNNER[layer](False)[0].command[-2:] == ["-m", "not proof"]
        assert not any("not proof" in step.command for step in RUNNER[layer](True))


def test_a_proof_in_a_lab_of_its_own_is_a_step() -> None:
    *own, lab = RUNNER["e2e"](True)
    for step in own:
        file = f"tests/e2e/test_{step.name}.py"
        assert step.command[-1] == file
        assert (ROOT / file).is_file()
        assert f"--ignore={file}" in lab.command


def test_a_run_writes_what_its_steps_took(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "run.py", tmp_path / "tests" / "run.py")
    done = subprocess.run(
        [sys.executable, tmp_path / "tests" / "run.py", "lint", "-k", "nothing-of-this-name"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"CI": ""},
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.endswith("nothing ran\n0 passed, 1 failed\n")
    found = json.loads((tmp_path / "reports" / "steps.json").read_text())
    assert found["steps"] == []
    assert found["wall"] < 60


@pytest.mark.parametrize(
    ("total", "status", "closing"),
    [
        ("5 passed, 0 failed", 0, "5 passed, 0 failed"),
        ("5 passed, 0 failed, 2 skipped", 0, "5 passed, 0 failed, 2 skipped"),
        ("5 passed, 1 failed, 2 skipped", 1, "5 passed, 1 failed, 2 skipped"),
        ("5 passed, 0 failed", 2, "5 passed, 1 failed"),
        ("0 passed, 0 failed, 2 skipped", 0, "0 passed, 1 failed, 2 skipped"),
        ("", 0, "0 passed, 1 failed"),
        ("5 passed", 0, "0 passed, 1 failed"),
    ],
)
def test_ci_closes_with_the_counts(tmp_path: Path, total: str, status: int, closing: str) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    make = tmp_path / "make"
    make.write_text(f"#!/bin/sh\nmkdir -p reports\necho '{total}' > reports/total\nexit {status}\n")
    make.chmod(0o755)
    done = subprocess.run(
        [tmp_path / ".ci" / "run"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == closing
    assert done.returncode == int(" 0 failed" not in closing)
