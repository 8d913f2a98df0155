"""The lab that the end-to-end tests share, and how they use it: the same commands as a person."""

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import psutil
import pytest

from quote_platform import paths

from .receiver import Receiver, receiving

ROOT = Path(__file__).resolve().parents[2]
NAME, SUBNET, GATEWAY = "e2e", "10.89.43.0/24", "10.89.43.1"
LAB_UP = ("quote-platform", "lab", "up", "--name", NAME, "--subnet", SUBNET)
HOST = "quotes.example.com"
# Requests a second, from several users at once.
RATE, USERS = 50, 5
# The files in their order, with the minutes of the longest test of each, or more; a proof may name its own.
# A run that has filled its mirror from nothing has no time for all. Those with 0 are never left out.
MINUTES = {
    "control_planes": 25,
    "upgrade": 25,
    "hostile": 20,
    "unkind": 5,
    "qemu": 45,
    "conformance": 85,
    "platform": 0,
    "recovery": 5,
    "power_loss": 25,
    "dashboards": 3,
    "logging": 3,
    "monitoring": 3,
    "renewal": 3,
    "secrets": 3,
    "alerts": 8,
    "whole": 0,
    "secrets_stay_hidden": 0,
}
MINUTES_OF_THE_LAST = 5
DEADLINE = time.time() + float(os.environ.get("TEST_SECONDS", "inf"))
LOGS = paths.state() / "logs" / "e2e"
# Repeats a check for so many seconds until it holds; else fails with the text.
Eventually = Callable[[Callable[[], object], float, str | Callable[[], str]], None]


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a playbook and its workers, which have sessions of their own, without warning."""
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    for child in family:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()


@contextmanager
def repeated(work: Callable[[], object], pause: float) -> Iterator[None]:
    """Do something again and again, beside the block, while that runs."""
    stop = Event()

    def repeat() -> None:
        while not stop.wait(pause):
            work()

    with ThreadPoolExecutor() as pool:
        repeating = pool.submit(repeat)
        try:
            yield
        finally:
            stop.set()
    repeating.result()  # an error of our own is one of the test


@dataclass
class Run:
    """What a playbook did."""

    status: int
    output: str
    seconds: float

    @property
    def changed(self) -> dict[str, int]:
        """Return the count of changes of each host, over all plays."""
        found: dict[str, int] = {}
        for host, count in re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", self.output, re.MULTILINE):
            found[host] = found.get(host, 0) + int(count)
        return found

    @property
    def differences(self) -> list[str]:
        """Return the names that a dry run gives to what differs."""
        files = re.findall(r"^changed: \[(\S+)\] => \(item=([^)]+)\)", self.output, re.MULTILINE)
        # A file's line ends in its mode and owner.
        objects = re.findall(r"^\+\+\+ after: (.+?)(?: \(.*\))?$", self.output, re.MULTILINE)
        return [f"{host} {item}" for host, item in files] + objects


@dataclass(kw_only=True)
class Machines:
    """Machines of a lab, and playbooks over them."""

    name: str
    options: list[str] = field(default_factory=list)  # of every playbook
    environment: dict[str, str] = field(default_factory=dict)  # of the controller
    steps: list[tuple[str, float]] = field(default_factory=list)

    @staticmethod
    def command(*words: str, check: bool = True, seconds: float = 600) -> str:
        """Run a command of the project."""
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
        assert not check or done.returncode == 0, (
            f"{' '.join(words)}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
        return done.stdout + done.stderr

    def ssh(self, node: str, script: str, check: bool = True) -> str:
        """Run a script on a node."""
        return self.command("quote-platform", "lab", "ssh", "--name", self.name, node, script, check=check)

    def kubectl(self, arguments: str, check: bool = True, node: str = "master-1") -> str:
        """Run kubectl on a control plane."""
        return self.ssh(node, f"kubectl --kubeconfig /etc/kubernetes/admin.conf {arguments}", check=check)

    def off(self, *nodes: str) -> None:
        """Switch nodes off at once, as a power cut does."""
        self.command("quote-platform", "lab", "stop", "--name", self.name, *nodes)

    def on(self, node: str) -> None:
        """Switch a node on again."""
        self.command("quote-platform", "lab", "start", "--name", self.name, node)

    @contextmanager
    def stopped(self, node: str) -> Iterator[None]:
        """Have a node off while the block runs."""
        self.off(node)
        try:
            yield
        finally:
            self.on(node)

    def start(self, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a playbook in a process group of its own."""
        with log.open("wb") as file:
            return subprocess.Popen(
                ["ansible-playbook", "-i", f"inventories/{self.name}", *self.options, *arguments],
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=os.environ | {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"} | self.environment,
            )

    def play(self, title: str, *arguments: str, seconds: float = 900) -> Run:
        """Run a playbook to its end."""
        LOGS.mkdir(parents=True, exist_ok=True)
        log = LOGS / f"{title.replace(' ', '-')}.log"
        started = time.monotonic()
        process = self.start(log, *arguments)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            kill(process)
            status = 124
        took = time.monotonic() - started
        self.steps.append((title, took))
        print(f"\n{title}: {took:.0f} s, status {status} (log: {log})", flush=True)
        return Run(status, log.read_text(errors="replace"), took)

    def play_until(self, title: str, task: str, *arguments: str, seconds: float = 300) -> None:
        """Kill a playbook, without warning, in the midst of a task."""
        LOGS.mkdir(parents=True, exist_ok=True)
        log = LOGS / f"{title.replace(' ', '-')}.log"
        started = time.monotonic()
        process = self.start(log, *arguments)
        try:
            while f"TASK [{task}]" not in log.read_text(errors="replace"):
                assert process.poll() is None, f"{title} ended before the task {task}"
                assert time.monotonic() < started + seconds, f"{title} did not come to the task {task}"
                time.sleep(0.2)
            time.sleep(1)
        finally:
            kill(process)
        self.steps.append((title, time.monotonic() - started))
        print(f"\n{title}: killed in {task} after {self.steps[-1][1]:.0f} s", flush=True)


@contextmanager
def gone_before_and_after[Kept: Machines](found: Kept) -> Iterator[Kept]:
    """Have no lab of this name before the block nor after it, but keep what there is with E2E_KEEP=1."""
    down, keep = ("quote-platform", "lab", "down", "--name", found.name), os.environ.get("E2E_KEEP") == "1"
    if not keep:
        found.command(*down)
    yield found
    print("\n" + "\n".join(f"{seconds:6.0f} s  {title}" for title, seconds in found.steps))
    if not keep:
        found.command(*down)


@dataclass(kw_only=True)
class Application(Machines):
    """A lab in which the application runs, at the addresses of its workers."""

    workers: list[str]

    def verify(self, *names: str) -> dict[str, dict[str, Any]]:
        """Return what some checks of the platform came to, by their names."""
        report = LOGS / "verify.json"
        report.unlink(missing_ok=True)
        self.play(
            f"verify {names[0]}",
            "playbooks/verify.yml",
            *("-e", f"verify_report={report}"),
            *("-e", json.dumps({"verify_only": names})),
        )
        checks = {check["name"]: check for check in json.loads(report.read_text())["checks"]}
        return {name: checks[name] for name in names}

    @contextmanager
    def requests(self, addresses: list[str], rate: float = 10) -> Iterator[Counter[str]]:
        """Keep asking for a quote, while the block runs, and count the answers."""
        answers, clients = Counter[str](), itertools.cycle([self.http(address) for address in addresses])

        def ask() -> None:
            try:
                answers[str(self.ask(next(clients), "GET", "/api/quotes/random").status_code)] += 1
            except httpx.HTTPError as error:
                answers[type(error).__name__] += 1

        with repeated(ask, 1 / rate):
            yield answers

    def http(self, address: str, timeout: float = 3) -> httpx.Client:
        """Return a client for the application at a node's address."""
        host = {"Host": HOST}
        return httpx.Client(base_url=f"https://{address}", headers=host, verify=False, timeout=timeout)  # noqa: S501

    def ask(self, client: httpx.Client, method: str, path: str, **options: object) -> httpx.Response:
        """Send a request with the application's name in the TLS greeting."""
        return client.request(method, path, extensions={"sni_hostname": HOST}, **options)  # type: ignore[arg-type]


@dataclass(kw_only=True)
class Lab(Application):
    """The lab under test; its alerts arrive at the receiver, as the options say."""

    receiver: Receiver
    workers: list[str] = field(default_factory=lambda: [f"10.89.43.{20 + number}" for number in (1, 2, 3)])


def ask(lab: Lab, query: str) -> list[dict[str, Any]]:
    """Ask Prometheus; nothing where it does not answer."""
    try:
        return promtool(lab, "instant", query)
    except ValueError:
        return []


def promtool(lab: Lab, kind: str, query: str, *options: str) -> list[dict[str, Any]]:
    """Ask Prometheus in its own pod, where it lets anybody."""
    words = ["/bin/promtool", "query", kind, "--format=json", *options, "http://localhost:9090", query]
    inside = f"exec -n monitoring prometheus-main-0 -c prometheus -- {shlex.join(words)}"
    return list(json.loads(lab.kubectl(inside, check=False)) or [])


def primary_of(lab: Application) -> str:
    """Return the pod of PostgreSQL's primary."""
    return lab.kubectl(
        "get cluster.postgresql.cnpg.io -n quote-lab postgres -o jsonpath={.status.currentPrimary}"
    ).strip()


def replica_of(lab: Application) -> str:
    """Return the pod of one of PostgreSQL's replicas."""
    primary = primary_of(lab)
    return next(name for name in (f"postgres-{n}" for n in (3, 2, 1)) if name != primary)


def sql(lab: Application, statement: str, instance: str = "") -> str:
    """Ask an instance, or the primary, as a superuser."""
    return lab.kubectl(
        f'exec -n quote-lab {instance or primary_of(lab)} -c postgres -- psql -d quotes -Atc "{statement}"'
    ).strip()


@contextmanager
def writer(lab: Application, mark: str) -> Iterator[dict[int, float]]:
    """Keep adding quotes while the block runs; yield the number and moment of each that was acknowledged."""
    acknowledged, numbers, client = dict[int, float](), itertools.count(1), lab.http(lab.workers[0])

    def write() -> None:
        number = next(numbers)
        with suppress(httpx.HTTPError):
            body = {"text": f"{mark} {number}", "author": "e2e"}
            if lab.ask(client, "POST", "/api/quotes", json=body).status_code == 201:
                acknowledged[number] = time.monotonic()

    with repeated(write, 0.1):
        yield acknowledged


@dataclass
class Answers:
    """What users were answered."""

    counts: Counter[str] = field(default_factory=Counter)
    acknowledged: set[int] = field(default_factory=set)  # numbers of the quotes that were
    slowest: float = 0.0
    started: float = field(default_factory=time.monotonic)
    failed: list[str] = field(default_factory=list)  # when, and how

    def none_failed(self) -> None:
        """Fail unless every request was answered as it should be."""
        print(f"\n{self.counts.total()} requests: {dict(self.counts)}, the slowest in {self.slowest:.1f} s")
        assert set(self.counts) == {"GET 200", "POST 201"}, f"{dict(self.counts)}: {self.failed[:20]}"


@contextmanager
def load(lab: Application, mark: str, timeout: float = 10) -> Iterator[Answers]:
    """Read and write as several users do while the block runs: RATE requests a second, every fifth writes."""
    found, numbers = Answers(), itertools.count(1)

    def using(turn: int) -> Callable[[], None]:
        client, turns = lab.http(lab.workers[turn % len(lab.workers)], timeout), itertools.count(turn)

        def ask() -> None:
            number = next(numbers) if next(turns) % 5 == 0 else 0
            method, path = ("POST", "/api/quotes") if number else ("GET", "/api/quotes/random")
            body = {"json": {"text": f"{mark} {number}", "author": "e2e"}} if number else {}
            asked = time.monotonic()
            try:
                answer = str(lab.ask(client, method, path, **body).status_code)
            except httpx.HTTPError as error:
                answer = type(error).__name__
            took = time.monotonic() - asked
            found.counts[f"{method} {answer}"] += 1
            found.slowest = max(found.slowest, took)
            if answer not in {"200", "201"}:
                after = asked - found.started
                found.failed.append(f"after {after:.0f} s, within {took:.1f} s: {method} {answer}")
            elif number:
                found.acknowledged.add(number)

        return ask

    with ExitStack() as stack:
        for turn in range(USERS):
            stack.enter_context(repeated(using(turn), USERS / RATE))
        yield found


def stored(lab: Application, mark: str) -> set[int]:
    """Return the numbers of a writer's rows."""
    lines = sql(lab, f"select split_part(text, ' ', 2) from quotes where text like '{mark} %'")  # noqa: S608
    return {int(line) for line in lines.split() if line.isdigit()}


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Start the lab; take it down at the end, or keep it with E2E_KEEP=1."""
    keep = os.environ.get("E2E_KEEP") == "1"
    if not keep:
        Lab.command("quote-platform", "lab", "down", "--name", NAME)
    started = time.monotonic()
    Lab.command(*LAB_UP)
    settings = tmp_path_factory.mktemp("settings") / "receivers.json"
    settings.touch(mode=0o600)
    with receiving(GATEWAY) as receiver:
        settings.write_text(json.dumps(receiver.variables()))
        steps = [("lab up", time.monotonic() - started)]
        found = Lab(name=NAME, options=["-e", f"@{settings}"], steps=steps, receiver=receiver)
        yield found
    LOGS.mkdir(parents=True, exist_ok=True)
    (LOGS / "steps.json").write_text(json.dumps(dict(found.steps), indent=2))
    print("\n" + "\n".join(f"{seconds:6.0f} s  {title}" for title, seconds in found.steps))
    if not keep:
        Lab.command("quote-platform", "lab", "down", "--name", NAME)


@pytest.fixture
def eventually() -> Eventually:
    """Return a caller that repeats a check until it holds."""

    def call(check: Callable[[], object], seconds: float, text: str | Callable[[], str]) -> None:
        deadline = time.monotonic() + seconds
        while not check():
            assert time.monotonic() < deadline, f"{text() if callable(text) else text} after {seconds} s"
            time.sleep(1)

    return call


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each find what those before it left: first the lab is built, last it is searched for secrets."""
    items.sort(key=lambda item: list(MINUTES).index(subject(item)))


def subject(item: pytest.Item) -> str:
    """Return what a test is about, by its file."""
    return item.path.stem.removeprefix("test_")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what would not end in time, so that the last tests are run."""
    minutes = MINUTES[subject(item)]
    if mark := item.get_closest_marker("proof"):
        minutes = mark.kwargs.get("minutes", minutes)
    if minutes and time.time() + 60 * (minutes + MINUTES_OF_THE_LAST) > DEADLINE:
        pytest.skip("the time is up")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the state of the cluster to a failure."""
    report = yield
    used = getattr(item, "funcargs", {})
    if report.failed and (found := used.get("lab") or used.get("masters")):
        for title, arguments in {
            "pods": "get nodes,pods -A -o wide",
            "warnings": "get events -A --field-selector type=Warning --sort-by .lastTimestamp",
        }.items():
            text = found.kubectl(arguments, check=False)[-4000:]
            report.sections.append((title, text))
    return report
