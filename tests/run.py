#!/usr/bin/env python3
"""Run the layers of tests: every step has a time limit, a log and a JUnit report under reports/.

    tests/run.py                    all layers: lint unit molecule e2e
    tests/run.py lint unit          some of them
    tests/run.py molecule -k storage -k postgres    some of their steps
    tests/run.py --proof            all layers with the long proofs, for a release
    tests/run.py --proof e2e -k lab --tests 'dump or renewal'    some end-to-end tests, once their lab stands

Ends in `N passed, N failed`, which is also in reports/total, with `, N skipped` where tests were left out;
those are named. The exit status is 0 only if something ran and nothing failed, and with --proof nothing was
left out. A step that could not run counts as failed. What every step took goes to reports/steps.json.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "reports"
APP = ROOT / "apps" / "quote-app"
LAYERS = ("lint", "unit", "molecule", "e2e")
# One uses a processor and a little; a third would make what is timed miss its bounds.
LANES_AT_ONCE = 2
ON_NODES = ("molecule", "e2e")  # these need the mirror
# Beside those on nodes, to their end, with what these leave of the processors: nodes often wait.
BEHIND = ("lint", "unit")
BEHIND_NICE = 10

# On the shared cluster, where `-k` names it. What it needs: `quote-platform mirror fill --part delivery`.
MOLECULE_ASKED = ("flux",)
# Two lanes: roles of a node on fresh nodes, the others on one shared cluster, in an order in which each finds
# what it builds on. A unit test holds these lists against molecule/ and roles/.
MOLECULE_LANES = {
    "cluster": (
        "default",
        "validate",
        "pod_network",
        "worker",
        "node_settings",
        "upgrade",
        "update_hosts",
        "component",
        "admission",
        "object_store",
        "storage",
        "metrics_server",
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
    "nodes": (
        "aws",
        "node_files",
        "outbound",
        "node_certificate",
        "versitygw",
        "node_exporter",
        "vault_server",
        "host_baseline",
        "container_runtime",
        "api_endpoint",
        "kubernetes_packages",
        "control_plane",
        # On the shared cluster, which by then has what they need: so the lanes end at the same time.
        "snapshots",
        "velero",
    ),
}
# Steps that wait for some of the other lane, as far as those are run as well.
AFTER = {"snapshots": ("object_store",), "clear": ("snapshots", "velero")}


# Proofs in labs of their own, each a step: `tests/run.py --proof e2e -k upgrade`.
OWN_LABS = {
    "control_planes": ("tests/e2e/test_control_planes.py",),
    "upgrade": ("tests/e2e/test_upgrade.py",),
    "hostile": ("tests/e2e/test_hostile.py",),
    "unkind": ("tests/e2e/test_unkind.py",),
    "qemu": ("tests/e2e/test_qemu.py",),
    "conformance": ("tests/e2e/test_conformance.py",),
    "power_loss": (
        "tests/e2e/test_platform.py::test_a_whole_run_converges",
        "tests/e2e/test_power_loss.py",
    ),
}
OWN_MINUTES = {"conformance": 100}  # 60 where nothing is said


@dataclass
class Step:
    """One command of a layer."""

    layer: str
    name: str
    command: list[str]
    minutes: float
    lane: str = ""
    cwd: Path = ROOT
    reports: bool = False  # writes its own JUnit report
    env: dict[str, str] = field(default_factory=dict)
    # Runs whether or not -k names it, and counts only when it fails: clearing away.
    silent: bool = False
    behind: bool = False  # other steps' processes come first

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
    seconds: float
    reason: str = ""
    skipped: list[str] = field(default_factory=list)  # the tests that were left out, each with its reason
    own: float = 0  # processor seconds of the step's own processes, without nodes


# What pipelines are written in, and its schema as the linter has it.
PIPELINES = {
    "github-workflows": [str(file) for file in sorted((ROOT / ".github" / "workflows").glob("*.yml"))],
    "gitlab-ci": [".gitlab-ci.yml"],
    "renovate": ["renovate.json"],
}


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


def lint(proof: bool) -> list[Step]:
    """Return the linters; for a release with an auditor from outside."""
    return [
        *([Step("lint", "checkov", [sys.executable, "tests/auditors/audit.py"], 20)] if proof else []),
        Step("lint", "ruff", ["ruff", "check", "."], 2),
        Step("lint", "ruff-format", ["ruff", "format", "--check", "."], 2),
        Step("lint", "mypy", ["mypy"], 8),
        Step("lint", "yamllint", ["yamllint", "--strict", "."], 3),
        Step("lint", "shellcheck", ["shellcheck", "--external-sources", *shell_scripts()], 2),
        Step(
            "lint",
            "ansible-lint",
            [sys.executable, "tests/ansible_lint.py", "--offline"],
            16,
            # Else ansible-lint, which names no inventory, takes every imported playbook for a broken one.
            env={"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "False"},
        ),
        Step("lint", "secrets", [sys.executable, "tests/auditors/committed_secrets.py"], 5),
        Step("lint", "actionlint", [sys.executable, "tests/auditors/workflows.py"], 5),
        Step("lint", "zizmor", ["zizmor", "--offline", "--quiet", ".github"], 2),
        *(
            Step("lint", name, ["check-jsonschema", "--builtin-schema", f"vendor.{name}", *files], 2)
            for name, files in PIPELINES.items()
        ),
    ]


def unit(proof: bool) -> list[Step]:
    """Return the tests that need no node; the long proofs in them are for a release."""
    command = ["pytest", "tests/unit"]
    if not proof:
        command += ["-m", "not proof"]
    # Tests in Python run the application too.
    steps = []
    if APP.is_dir() and not (APP / "node_modules").is_dir():
        steps.append(Step("unit", "npm-ci", ["npm", "ci", "--no-fund", "--no-audit"], 5, cwd=APP))
    # Beside Molecule and the end-to-end tests they take as long as those.
    steps.append(Step("unit", "python", command, 60, reports=True))
    if APP.is_dir():
        steps.append(Step("unit", "quote-app", ["npm", "test"], 10, cwd=APP))
    return steps


def molecule(names: list[str]) -> list[Step]:
    """Return one step per scenario, and one that clears the shared cluster away."""
    steps = []
    for lane, scenarios in MOLECULE_LANES.items():
        asked = [name for name in MOLECULE_ASKED if name in names and lane == "cluster"]
        for scenario in (*scenarios, *asked):
            command = ["molecule", "test", "-s", scenario]
            steps.append(Step("molecule", scenario, command, 12, lane=lane, reports=True))
        if lane == "cluster":
            clear = ["molecule", "cleanup", "-s", "default"]
            steps.append(Step("molecule", "clear", clear, 3, lane=lane, silent=True))
    return steps


def e2e(proof: bool, tests: str = "") -> list[Step]:
    """Return the lab end to end; for a release with the long proofs, some of which have labs of their own."""
    command = ["pytest", "-x", "-s", "--durations=20"]
    if tests:
        command += ["-k", f"a_whole_run_converges or {tests}"]
    if not proof:
        return [Step("e2e", "lab", [*command, "tests/e2e", "-m", "not proof"], 60, reports=True)]
    own = [
        Step("e2e", name, [*command, *places], OWN_MINUTES.get(name, 60), reports=True)
        for name, places in OWN_LABS.items()
    ]
    others = [f"--ignore=tests/e2e/test_{name}.py" for name in OWN_LABS]
    return [*own, Step("e2e", "lab", [*command, "tests/e2e", *others], 180, reports=True)]


def mirror() -> list[Step]:
    """Return the filling of the mirror, which costs nothing when it is full."""
    return [Step("mirror", "fill", ["quote-platform", "mirror", "fill"], 55)]


def environment(step: Step) -> dict[str, str]:
    """Return the environment of a step: the tools of the virtual environment first."""
    env = dict(os.environ)
    for name in ("E2E_ALERTS", "E2E_CONFORMANCE"):
        env.pop(name, None)  # what is counted and recorded is all of them
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"
    env["PYTEST_ADDOPTS"] = f"--junitxml={step.junit}" if step.reports else ""
    env |= {"ANSIBLE_FORCE_COLOR": "0", "NO_COLOR": "1", "PY_COLORS": "0", "COLUMNS": "160"}
    env["TZ"] = "CET-1"  # a person's machine seldom keeps UTC
    env["MOLECULE_COMMAND_BORDERS"] = "false"  # they wrap every line
    # Molecule names its folders after the checkout's; a folder per checkout keeps two of them apart.
    env.setdefault("MOLECULE_PROJECT_DIRECTORY", str(ROOT))
    return env | step.env


def call(step: Step, seconds: float) -> tuple[int, str, float]:
    """Run a step in its own process group; return its status, why it ended early, its processor seconds."""
    step.log.parent.mkdir(parents=True, exist_ok=True)
    step.junit.unlink(missing_ok=True)
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
            return 127, f"could not start: {error.strerror}: {step.command[0]}", 0
        if step.behind:
            let_others_go_first(process.pid)
        with RUNNING_LOCK:
            RUNNING.add(process)
        try:
            used = wait(process, seconds)
            return process.returncode, "", used
        except subprocess.TimeoutExpired:
            end(process)
            return 124, f"stopped after {seconds / 60:.0f} min", 0
        finally:
            with RUNNING_LOCK:
                RUNNING.discard(process)


def let_others_go_first(pid: int) -> None:
    """Give a process and its future children less of the processors where others want them."""
    with contextlib.suppress(OSError):  # it has ended, or this kernel does not group sessions
        os.setpriority(os.PRIO_PROCESS, pid, BEHIND_NICE)
        Path(f"/proc/{pid}/autogroup").write_text(f"{BEHIND_NICE}\n")


def wait(process: subprocess.Popen[bytes], seconds: float) -> float:
    """Wait for a process; return the processor seconds of it and all that it has waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        except ChildProcessError:  # ended by an interrupt, which has waited for it
            process.wait()
            return 0
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage.ru_utime + usage.ru_stime
        time.sleep(0.1)
    raise subprocess.TimeoutExpired(process.args, seconds)


def busy() -> float:
    """Return the seconds that the machine's processors have worked since it was started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


@contextlib.contextmanager
def stopwatch(phases: dict[str, dict[str, float]], name: str) -> Iterator[None]:
    """Add what a block took to the phases of a run."""
    started, before = time.monotonic(), busy()
    yield
    phases[name] = {"wall": round(time.monotonic() - started, 1), "cpu": round(busy() - before, 1)}


RUNNING: set[subprocess.Popen[bytes]] = set()
RUNNING_LOCK = threading.Lock()
INTERRUPTED = threading.Event()  # no step is started any more


def end(process: subprocess.Popen[bytes]) -> None:
    """End a step and its children: first asking, then by force."""
    for sign, grace in ((signal.SIGINT, 20), (signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=grace)
            return


def execute(step: Step, seconds: float) -> Outcome:
    """Run a step and judge it."""
    if seconds <= 0 or INTERRUPTED.is_set():
        return Outcome(step, 0, 1, 0, "not started: " + ("out of time" if seconds <= 0 else "interrupted"))
    started = time.monotonic()
    status, reason, own = call(step, min(seconds, step.minutes * 60))
    outcome = Outcome(step, 0, 0, time.monotonic() - started, reason, own=own)
    if step.silent:
        outcome.failed = int(status != 0)
    else:
        judge(outcome, status)
    return outcome


def judge(outcome: Outcome, status: int) -> None:
    """Count the cases of a step's JUnit report; add what none of them says: how the step itself ended."""
    step, suites = outcome.step, ET.Element("testsuites")
    if step.reports:
        try:
            suites = ET.parse(step.junit).getroot()  # noqa: S314 (our own file)
        except (OSError, ET.ParseError):
            outcome.reason = outcome.reason or "wrote no report: nothing was tested"
    cases = list(suites.iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    if step.reports and status == 0 and len(cases) == len(skipped):
        status, outcome.reason = 1, outcome.reason or "nothing was tested"
    # A scenario is a test of the role as well: dry run, converge, idempotence.
    if not step.reports or (status == 0 and step.layer == "molecule") or (status != 0 and not failed):
        suite = ET.SubElement(suites, "testsuite", name=step.layer)
        case = ET.SubElement(suite, "testcase", classname=step.layer, name=step.name)
        spent = sum(float(one.get("time", 0)) for one in cases)
        case.set("time", f"{max(0, outcome.seconds - spent):.1f}")
        cases.append(case)
        if status != 0:
            outcome.reason = outcome.reason or f"ended with status {status}"
            ET.SubElement(case, "failure", message=outcome.reason)
            failed.append(case)
        ET.ElementTree(suites).write(step.junit, encoding="utf-8", xml_declaration=True)
    outcome.passed, outcome.failed = len(cases) - len(failed) - len(skipped), len(failed)
    outcome.reason = outcome.reason or "; ".join(f"{case.get('name')}: {said(case)}" for case in failed)
    outcome.skipped = [f"{case.get('name')} ({said(case)})" for case in skipped]


def said(case: ET.Element) -> str:
    """Return the first line of what a test that failed or was left out says."""
    told = (part.get("message", "") for part in case if part.tag in {"failure", "error", "skipped"})
    return next(told, "").strip().partition("\n")[0][:200]


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
        counts += f", {len(outcome.skipped)} not run"
    line = f"  {mark:<7}{step.layer}/{step.name:<22}{outcome.seconds:7.0f} s   {counts}"
    if outcome.failed:
        tail: list[str] = []
        with contextlib.suppress(OSError):
            tail = step.log.read_text(errors="replace").splitlines()[-60:]
        line += f"   {outcome.reason}\n" + "\n".join(f"      | {text}" for text in tail)
        line += f"\n      whole log: {step.log.relative_to(ROOT, walk_up=True)}"
    say(line)


def lane_of(
    steps: list[Step], deadline: float, ended: dict[str, threading.Event] | None = None
) -> list[Outcome]:
    """Run steps one after the other; `ended` has those of all lanes, by their names."""
    outcomes = []
    for step in steps:
        for name in AFTER.get(step.name, ()):
            if ended and name in ended:
                ended[name].wait(max(0, deadline - time.monotonic()))
        say(f"  ...    {step.layer}/{step.name}")
        outcome = execute(step, deadline - time.monotonic())
        show(outcome)
        outcomes.append(outcome)
        if ended:
            ended[step.name].set()
    return outcomes


def run(steps: list[Step], deadline: float) -> list[Outcome]:
    """Run lanes of steps in their order, some side by side."""
    lanes: dict[tuple[str, str], list[Step]] = {}
    for step in steps:
        lanes.setdefault((step.layer, step.lane), []).append(step)
    ended = {step.name: threading.Event() for step in steps}
    with ThreadPoolExecutor(max_workers=LANES_AT_ONCE) as pool:
        return [
            outcome
            for done in pool.map(lambda lane: lane_of(lane, deadline, ended), lanes.values())
            for outcome in done
        ]


def measured(outcomes: list[Outcome], phases: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Return the seconds that the steps took, and all together: `wall` is by the clock.

    `own` is of the step's own processes, without nodes, which are no children of ours. `cpu` is what the
    machine's processors worked meanwhile, whoever for, in each phase and together.
    """
    steps = [
        {
            "layer": outcome.step.layer,
            "step": outcome.step.name,
            "wall": round(outcome.seconds, 1),
            "own": round(outcome.own, 1),
        }
        for outcome in outcomes
    ]
    total = {key: round(sum(phase[key] for phase in phases.values()), 1) for key in ("wall", "cpu")}
    return {"steps": steps, "phases": phases, **total}


def show_measured(found: dict[str, Any]) -> None:
    """Print what the steps took."""
    say(f"{'':<34}{'wall s':>9}{'own s':>9}")
    for row in found["steps"]:
        say(f"  {row['layer'] + '/' + row['step']:<32}{row['wall']:>9.0f}{row['own']:>9.0f}")
    for name, phase in {**found["phases"], "all of it": found}.items():
        say(f"{name}: {phase['wall']:.0f} s, {phase['cpu']:.0f} s of processor time")


def commit() -> str:
    """Return the commit that is tested, marked when files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Run the layers of tests.")
    parser.add_argument("layers", nargs="*", metavar="LAYER", help=f"of {', '.join(LAYERS)}; all without any")
    parser.add_argument(
        "-k", dest="names", action="append", default=[], help="only steps with this in their name"
    )
    parser.add_argument("--proof", action="store_true", help="the long proofs too; nothing may be left out")
    parser.add_argument(
        "--tests", default="", metavar="EXPRESSION", help="only these end-to-end tests, as pytest -k has it"
    )
    parser.add_argument("--minutes", type=float, help="stop after this long (default 85, with --proof 400)")
    parsed = parser.parse_args()
    if unknown := set(parsed.layers) - set(LAYERS):
        parser.error(f"no such layer: {', '.join(sorted(unknown))}; there are {', '.join(LAYERS)}")
    parsed.layers = [layer for layer in LAYERS if layer in parsed.layers or not parsed.layers]
    parsed.minutes = parsed.minutes or (400 if parsed.proof else 85)
    return parsed


def main() -> int:
    """Run what was asked for and sum it up."""
    options = arguments()
    deadline = time.monotonic() + options.minutes * 60
    head = {"commit": commit(), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    steps_of: dict[str, Callable[[], list[Step]]] = {
        "lint": lambda: lint(options.proof),
        "unit": lambda: unit(options.proof),
        "mirror": mirror,
        "molecule": lambda: molecule(options.names),
        "e2e": lambda: e2e(options.proof, options.tests),
    }
    layers = options.layers
    if set(layers) & set(ON_NODES):
        layers = ["mirror", *layers]
    for layer in layers:
        shutil.rmtree(REPORTS / layer, ignore_errors=True)
    (REPORTS / "total").unlink(missing_ok=True)
    (REPORTS / "steps.json").unlink(missing_ok=True)

    steps = {layer: steps_of[layer]() for layer in layers}
    if options.names:
        for layer in options.layers:
            steps[layer] = [
                step
                for step in steps[layer]
                if step.silent or any(word in step.name for word in options.names)
            ]
    outcomes: list[Outcome] = []
    phases: dict[str, dict[str, float]] = {}
    behind: list[Step] = []
    if set(layers) & set(ON_NODES):
        behind = [replace(step, behind=True) for layer in BEHIND for step in steps.pop(layer, [])]

    def phase(*together: str) -> None:
        if of_phase := [step for layer in together for step in steps.get(layer, [])]:
            with stopwatch(phases, ", ".join(layer for layer in together if steps.get(layer))):
                outcomes.extend(run(of_phase, deadline))

    # The mirror first, since what is on nodes needs it, with all processors. The end-to-end tests last and
    # without other nodes beside them: they hold the platform to its times.
    phase("mirror")
    with ThreadPoolExecutor() as pool:
        left = pool.submit(lane_of, behind, deadline)
        phase(*BEHIND)
        phase("molecule")
        phase("e2e")
        if behind:
            with stopwatch(phases, "what was left of " + ", ".join(BEHIND)):
                outcomes += left.result()

    found = measured(outcomes, phases)
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "steps.json").write_text(json.dumps(head | found, indent=2) + "\n")
    show_measured(found)
    return close(outcomes, options.proof)


def close(outcomes: list[Outcome], proof: bool) -> int:
    """Name what failed or was left out where nobody has to search for it; return the exit status."""
    for outcome in outcomes:
        if outcome.failed:
            say(f"failed: {outcome.step.layer}/{outcome.step.name}: {outcome.reason}")
    for outcome in outcomes:
        for test in outcome.skipped:
            say(f"not run: {outcome.step.layer}/{outcome.step.name}: {test}")
    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(outcome.failed for outcome in outcomes)
    skipped = sum(len(outcome.skipped) for outcome in outcomes)
    if not passed + failed:
        failed = 1
        say("nothing ran")
    total = f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")
    (REPORTS / "total").write_text(f"{total}\n")
    if os.environ.get("CI") != "true":  # .ci/run closes with this line itself
        say(total)
    return int(failed > 0 or (proof and skipped > 0))


def interrupt(*_: object) -> None:
    """End the steps, which must not outlive the run, and start no more; the lanes then end by themselves."""
    INTERRUPTED.set()
    while RUNNING:
        for process in list(RUNNING):
            end(process)
        time.sleep(0.1)
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
