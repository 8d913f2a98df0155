#!/usr/bin/env python3
"""Run the layers of tests: every step has a time limit, a log and a JUnit report under reports/.

    tests/run.py                    all layers: lint unit molecule e2e
    tests/run.py lint unit          some of them
    tests/run.py molecule -k storage -k postgres    some of their steps

Ends in `N passed, N failed`, which is also in reports/total; the exit status is 0 only if something ran and
nothing failed. A step that could not run counts as failed.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "reports"
APP = ROOT / "apps" / "quote-app"
LAYERS = ("lint", "unit", "molecule", "e2e")

# Two lanes run side by side: roles of a node on fresh nodes, the others on one shared cluster, in an order in
# which each finds what it builds on. A unit test holds this list against molecule/ and roles/.
MOLECULE_LANES = {
    "nodes": (
        "node_files",
        "node_certificate",
        "versitygw",
        "node_exporter",
        "vault_server",
        "host_baseline",
        "container_runtime",
        "kubernetes_packages",
        "control_plane",
    ),
    "cluster": (
        "default",
        "validate",
        "pod_network",
        "worker",
        "component",
        "object_store",
        "storage",
        "metrics_server",
        "snapshots",
        "velero",
        "logging",
        "ingress_nginx",
        "traefik",
        "cert_manager",
        "secrets_delivery",
        "monitoring",
        "grafana",
        "postgres",
        "quote_app",
    ),
}


@dataclass
class Step:
    """One command of a layer."""

    layer: str
    name: str
    command: list[str]
    minutes: float
    lane: str = ""
    cwd: Path = ROOT
    reports: bool = False  # writes its own JUnit files under REPORTS/layer/name*.xml
    env: dict[str, str] = field(default_factory=dict)
    # Runs whether or not -k names it, and counts only when it fails: clearing away.
    silent: bool = False

    @property
    def log(self) -> Path:
        """Return where the output goes."""
        return REPORTS / self.layer / f"{self.name}.log"

    @property
    def junit(self) -> Path:
        """Return where the JUnit report goes."""
        return self.log.with_suffix(".xml")


@dataclass
class Outcome:
    """What one step came to."""

    step: Step
    passed: int
    failed: int
    skipped: int
    seconds: float
    reason: str = ""


def shell_scripts() -> list[str]:
    """Return the tracked files that a shell runs."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    names = [name for name in listed.stdout.decode().split("\0") if name] if listed.returncode == 0 else []
    found = []
    for name in names:
        path = ROOT / name
        if not path.is_file() or path.is_symlink():
            continue
        with path.open("rb") as file:
            first = file.readline(80)
        if path.suffix == ".sh" or (first.startswith(b"#!") and first.rstrip().endswith((b"bash", b"/sh"))):
            found.append(name)
    return found


def lint() -> list[Step]:
    """Return the linters."""
    return [
        Step("lint", "ruff", ["ruff", "check", "."], 2),
        Step("lint", "ruff-format", ["ruff", "format", "--check", "."], 2),
        Step("lint", "mypy", ["mypy"], 5),
        Step("lint", "yamllint", ["yamllint", "--strict", "."], 3),
        Step("lint", "shellcheck", ["shellcheck", "--external-sources", *shell_scripts()], 2),
        Step("lint", "ansible-lint", ["ansible-lint", "--offline"], 8),
    ]


def unit() -> list[Step]:
    """Return the tests that need no node."""
    steps = [Step("unit", "python", ["pytest", "tests/unit"], 12, reports=True)]
    if APP.is_dir():
        if not (APP / "node_modules").is_dir():
            steps.append(Step("unit", "npm-ci", ["npm", "ci", "--no-fund", "--no-audit"], 5, cwd=APP))
        steps.append(Step("unit", "quote-app", ["npm", "test"], 5, cwd=APP))
    return steps


def molecule() -> list[Step]:
    """Return one step per scenario, and one that clears the shared cluster away."""
    steps = []
    for lane, scenarios in MOLECULE_LANES.items():
        for scenario in scenarios:
            command = ["molecule", "test", "-s", scenario]
            steps.append(Step("molecule", scenario, command, 9, lane=lane, reports=True))
        if lane == "cluster":
            clear = ["molecule", "cleanup", "-s", "default"]
            steps.append(Step("molecule", "clear", clear, 3, lane=lane, silent=True))
    return steps


def e2e() -> list[Step]:
    """Return the lab end to end."""
    return [Step("e2e", "lab", ["pytest", "tests/e2e", "-x", "-s"], 60, reports=True)]


def mirror(layers: Iterable[str]) -> list[Step]:
    """Return the filling of the mirror, which costs nothing when it is full, for the layers that need it."""
    if not {"molecule", "e2e"} & set(layers):
        return []
    return [Step("mirror", "fill", ["quote-platform", "mirror", "fill"], 55)]


def environment(step: Step) -> dict[str, str]:
    """Return the environment of a step: the tools of the virtual environment first."""
    env = dict(os.environ)
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"
    env["PYTEST_ADDOPTS"] = f"--junitxml={step.junit}" if step.reports else ""
    env |= {"ANSIBLE_FORCE_COLOR": "0", "NO_COLOR": "1", "PY_COLORS": "0", "COLUMNS": "160"}
    env["TZ"] = "CET-1"  # a person's machine seldom keeps UTC
    env["MOLECULE_COMMAND_BORDERS"] = "false"  # they wrap every line
    # Molecule names its folders after the checkout's; a folder per checkout keeps two of them apart.
    env.setdefault("MOLECULE_PROJECT_DIRECTORY", str(ROOT))
    return env | step.env


def call(step: Step, seconds: float) -> tuple[int, str]:
    """Run a step in its own process group; return its status and why it ended early, if it did."""
    step.log.parent.mkdir(parents=True, exist_ok=True)
    for old in step.log.parent.glob(f"{step.name}*.xml"):
        old.unlink()
    with step.log.open("wb") as log:
        try:
            process = subprocess.Popen(
                step.command,
                cwd=step.cwd,
                env=environment(step) | {"TEST_SECONDS": f"{seconds:.0f}"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            log.write(f"{error}\n".encode())
            return 127, f"could not start: {error.strerror}: {step.command[0]}"
        with RUNNING_LOCK:
            RUNNING.add(process)
        try:
            return process.wait(timeout=seconds), ""
        except subprocess.TimeoutExpired:
            end(process)
            return 124, f"stopped after {seconds / 60:.0f} min"
        finally:
            with RUNNING_LOCK:
                RUNNING.discard(process)


RUNNING: set[subprocess.Popen[bytes]] = set()
RUNNING_LOCK = threading.Lock()


def end(process: subprocess.Popen[bytes]) -> None:
    """End a step and its children: first asking, then by force."""
    for sign, grace in ((signal.SIGINT, 20), (signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=grace)
            return


def count(path: Path) -> tuple[int, int, int, str]:
    """Return passed, failed and skipped of a JUnit file, and what the failed ones say."""
    cases = list(ET.parse(path).getroot().iter("testcase"))  # noqa: S314 (our own file)
    skipped = sum(1 for case in cases if case.find("skipped") is not None)
    told = []
    for case in cases:
        if faults := [*case.findall("failure"), *case.findall("error")]:
            message = faults[0].get("message", "").strip().partition("\n")[0]
            told.append(f"{case.get('name')}: {message[:200]}")
    return len(cases) - len(told) - skipped, len(told), skipped, "; ".join(told)


def execute(step: Step, seconds: float) -> Outcome:
    """Run a step and judge it."""
    if seconds <= 0:
        return Outcome(step, 0, 1, 0, 0, "not started: out of time")
    started = time.monotonic()
    status, reason = call(step, min(seconds, step.minutes * 60))
    took = time.monotonic() - started
    if step.silent:
        return Outcome(step, 0, int(status != 0), 0, took, reason)
    passed = failed = skipped = 0
    if step.reports:
        try:
            passed, failed, skipped, told = count(step.junit)
            reason = reason or told
        except (OSError, ET.ParseError):
            reason = reason or "wrote no report: nothing was tested"
        if status == 0 and not passed + failed:
            failed, reason = 1, reason or "nothing was tested"
        if step.layer == "molecule" and status == 0:
            passed += 1  # the role itself: dry run, converge, idempotence
    else:
        passed = int(status == 0)
    if status != 0 and not failed:
        failed, reason = 1, reason or f"ended with status {status}"
    if not step.reports:
        write_junit(step, failed, took, reason)
    return Outcome(step, passed, failed, skipped, took, reason)


def write_junit(step: Step, failed: int, took: float, reason: str) -> None:
    """Report a step that knows nothing of JUnit as one test."""
    suite = ET.Element("testsuite", name=step.layer, tests="1", failures=str(failed), time=f"{took:.1f}")
    case = ET.SubElement(suite, "testcase", classname=step.layer, name=step.name, time=f"{took:.1f}")
    if failed:
        ET.SubElement(case, "failure", message=reason)
    ET.ElementTree(suite).write(step.junit, encoding="utf-8", xml_declaration=True)


PRINT_LOCK = threading.Lock()


def say(text: str) -> None:
    """Print a line at once; lanes do not cut into one another."""
    with PRINT_LOCK:
        print(text, flush=True)


def show(outcome: Outcome) -> None:
    """Print one line for a step, and the end of its log when it failed."""
    step = outcome.step
    if step.silent and not outcome.failed:
        return
    mark = "FAILED" if outcome.failed else "ok"
    counts = f"{outcome.passed} passed, {outcome.failed} failed"
    if outcome.skipped:
        counts += f", {outcome.skipped} not run"
    line = f"  {mark:<7}{step.layer}/{step.name:<22}{outcome.seconds:7.0f} s   {counts}"
    if outcome.failed:
        tail: list[str] = []
        with contextlib.suppress(OSError):
            tail = step.log.read_text(errors="replace").splitlines()[-60:]
        line += f"   {outcome.reason}\n" + "\n".join(f"      | {text}" for text in tail)
        line += f"\n      whole log: {step.log.relative_to(ROOT)}"
    say(line)


def lane_of(steps: list[Step], deadline: float) -> list[Outcome]:
    """Run steps one after the other."""
    outcomes = []
    for step in steps:
        say(f"  ...    {step.layer}/{step.name}")
        outcome = execute(step, deadline - time.monotonic())
        show(outcome)
        outcomes.append(outcome)
    return outcomes


def run(steps: list[Step], deadline: float) -> list[Outcome]:
    """Run the lanes of a layer side by side."""
    lanes: dict[str, list[Step]] = {}
    for step in steps:
        lanes.setdefault(step.lane, []).append(step)
    with ThreadPoolExecutor(max_workers=max(1, len(lanes))) as pool:
        return [
            outcome
            for done in pool.map(lambda lane: lane_of(lane, deadline), lanes.values())
            for outcome in done
        ]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Run the layers of tests.")
    parser.add_argument("layers", nargs="*", metavar="LAYER", help=f"of {', '.join(LAYERS)}; all without any")
    parser.add_argument(
        "-k", dest="names", action="append", default=[], help="only steps with this in their name"
    )
    parser.add_argument("--minutes", type=float, default=85, help="stop after this long (default 85)")
    parsed = parser.parse_args()
    if unknown := set(parsed.layers) - set(LAYERS):
        parser.error(f"no such layer: {', '.join(sorted(unknown))}; there are {', '.join(LAYERS)}")
    parsed.layers = [layer for layer in LAYERS if layer in parsed.layers or not parsed.layers]
    return parsed


def main() -> int:
    """Run what was asked for and sum it up."""
    options = arguments()
    deadline = time.monotonic() + options.minutes * 60
    layers = {"lint": lint, "unit": unit, "molecule": molecule, "e2e": e2e}
    for layer in (*options.layers, "total"):
        shutil.rmtree(REPORTS / layer, ignore_errors=True)
    (REPORTS / "total").unlink(missing_ok=True)

    outcomes: list[Outcome] = []
    filled = False
    for layer in options.layers:
        if not filled and (fill := mirror([layer])):
            say("mirror")
            outcomes += run(fill, deadline)
            filled = True
        say(layer)
        steps = layers[layer]()
        if options.names:
            steps = [
                step for step in steps if step.silent or any(name in step.name for name in options.names)
            ]
        outcomes += run(steps, deadline)

    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(outcome.failed for outcome in outcomes)
    # Once more where nobody has to search for them.
    for outcome in outcomes:
        if outcome.failed:
            say(f"failed: {outcome.step.layer}/{outcome.step.name}: {outcome.reason}")
    if not passed + failed:
        failed = 1
        say("nothing ran")
    total = f"{passed} passed, {failed} failed"
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "total").write_text(f"{total}\n")
    if os.environ.get("CI") != "true":  # .ci/run closes with this line itself
        say(total)
    return int(failed > 0)


def interrupt(*_: object) -> None:
    """Treat being terminated like Ctrl-C: the steps must not outlive the run."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        for process in list(RUNNING):
            end(process)
        os._exit(130)  # the lanes' threads would go on to their next step
