"""What a fill is doing, how far it is, what it has cost, and how long it will yet take."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from quote_platform.mirror import catalogue as cat
from quote_platform.mirror import storage

SECONDS_BETWEEN_LINES = 15
WHOLE = "fill"  # its cost stands beside those of its steps
# Before anything has ended, the machine is taken for as fast as the one that measured.
SECONDS_OF_TRUST = 60.0
NEARLY = 0.95  # a step that takes longer than the last time is not over


@dataclass(frozen=True)
class Cost:
    """What a step took: seconds on the clock and of the processor; and the Go packages that it compiled."""

    wall: float
    cpu: float
    packages: int = 0

    def __str__(self) -> str:
        return f"{duration(self.wall)}, {duration(self.cpu)} of processor time"


@dataclass
class Step:
    """What is being done now."""

    name: str
    started: float
    known: Cost | None = None  # of the last time
    elsewhere: float = 0  # seconds that it waited for other steps
    cpu: float = 0
    packages: int = 0
    package: str = ""
    waits_since: float | None = None

    @property
    def cost(self) -> Cost:
        """Return what it took until now, without what others took that it waited for."""
        now = time.monotonic() if self.waits_since is None else self.waits_since
        wall = now - self.started - self.elsewhere
        return Cost(round(wall, 1), round(self.cpu, 1), self.packages)

    @property
    def done(self) -> float:
        """Return how much of it is done, from 0 to 1."""
        if not self.known:
            return 0
        if self.known.packages:
            return min(NEARLY, self.packages / self.known.packages)
        return min(NEARLY, self.cost.wall / max(self.known.wall, 1))

    @property
    def left(self) -> float:
        """Return for how many seconds it will yet run; 0 where nobody knows."""
        return self.known.wall * (1 - self.done) if self.known and self.done < NEARLY else 0

    def __str__(self) -> str:
        parts = [duration(self.cost.wall)]
        if self.packages:
            of = f" of {self.known.packages}" if self.known and self.known.packages >= self.packages else ""
            parts.insert(0, f"{self.packages}{of} packages, now {self.package}")
        if self.left:
            parts.append(f"about {duration(self.left)} left")
        return f"{self.name}: {', '.join(parts)}"


_current: ContextVar[Step | None] = ContextVar("step", default=None)  # of this thread


def used(seconds: float) -> None:
    """Add processor time to the step of this thread."""
    if step := _current.get():
        step.cpu += seconds


def compiled(line: str) -> bool:
    """Count a package that `go build -v` names; tell whether the line is one."""
    step = _current.get()
    if not step or not line or " " in line or line.startswith("#"):
        return False
    step.packages += 1
    step.package = line
    return True


@contextmanager
def waiting() -> Iterator[None]:
    """Have the step of this thread wait for another while the block runs."""
    if not (step := _current.get()):
        yield
        return
    step.waits_since = started = time.monotonic()
    try:
        yield
    finally:
        step.elsewhere += time.monotonic() - started
        step.waits_since = None


class Work:
    """The steps of a fill: planned, under way, done."""

    def __init__(self) -> None:
        self.doing = "reading the catalogue"
        self.known = costs()
        self.took: dict[str, Cost] = {}
        self.steps: list[Step] = []
        self.started = time.monotonic()
        self._plan: dict[str, frozenset[str]] = {}  # artifact -> the builds that it needs
        self._planned = 0
        self._processor = sum(os.times()[:4])
        self._lock = threading.Lock()

    def plan(self, artifacts: dict[str, frozenset[str]]) -> None:
        """Say which artifacts are to be had, and which builds each needs."""
        self._plan, self._planned = dict(artifacts), len(artifacts)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Do a step in this thread; steps within count for themselves."""
        step = Step(name, time.monotonic(), self.known.get(name))
        with waiting():
            outside = _current.set(step)
            with self._lock:
                self.steps.append(step)
            try:
                yield step
                self.took[name] = step.cost
            finally:
                _current.reset(outside)
                with self._lock:
                    self.steps.remove(step)
                    self._plan.pop(name, None)

    @property
    def whole(self) -> Cost:
        """Return what all of it took until now, with what no step counts."""
        return Cost(
            round(time.monotonic() - self.started, 1), round(sum(os.times()[:4]) - self._processor, 1)
        )

    def done_and_left(self) -> tuple[float, float]:
        """Return how much is done, from 0 to 1, and how many seconds the rest will take; -1: nobody knows."""
        with self._lock:
            steps = list(self.steps)
            names = set(self._plan).union(*self._plan.values()) - set(self.took)

        def expected(name: str) -> float:
            return self.known[name].cpu if name in self.known else 0

        past = sum(expected(name) for name in self.took)
        past += sum(expected(step.name) * step.done for step in steps)
        left = sum(expected(name) for name in names)
        left -= sum(expected(step.name) * step.done for step in steps if step.name in names)
        if left <= 0:
            return 1 if past else 0, 0 if past else -1
        trust = SECONDS_OF_TRUST * (os.cpu_count() or 1)
        rate = (past + trust) / (time.monotonic() - self.started + SECONDS_OF_TRUST)
        return past / (past + left), max(left / rate, *(step.left for step in steps), 0)

    def lines(self) -> list[str]:
        """Return a line for the whole, and one for each step that works."""
        with self._lock:
            steps = [step for step in self.steps if step.waits_since is None]
            ready = self._planned - len(self._plan)
        if not self._planned:
            return [f"{self.doing}, {duration(self.whole.wall)}"]
        _, left = self.done_and_left()
        text = f"{ready} of {self._planned} artifacts after {duration(self.whole.wall)}"
        if not self._plan:
            text += f", {self.doing}"
        elif left >= 0:
            text += f", about {duration(left)} left"
        return [text, *map(str, steps)]

    def record(self) -> None:
        """Keep what the steps took, for the next time; what took no second is not worth a line."""
        worth = {name: cost for name, cost in self.took.items() if max(cost.wall, cost.cpu) >= 1}
        every = _read(_file()) | {name: asdict(cost) for name, cost in worth.items()}
        storage.write_json(_file(), every | {WHOLE: asdict(self.whole)})


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _file() -> Path:
    return storage.root() / "timing.json"


def _read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text())) if file.is_file() else {}


def costs() -> dict[str, Cost]:
    """Return what each step took the last time, here or where lab/mirror/timing.json was measured."""
    every = _read(cat.folder() / "timing.json") | _read(_file())
    return {name: Cost(**values) for name, values in every.items()}


@contextmanager
def shown(work: Work, console: Console) -> Iterator[None]:
    """Show the work while the block runs: in place on a terminal, elsewhere by a line every few seconds."""
    if console.is_terminal:
        with Live(
            get_renderable=lambda: _picture(work), console=console, refresh_per_second=2, transient=True
        ):
            yield
        return
    over = threading.Event()

    def speak() -> None:
        while not over.wait(SECONDS_BETWEEN_LINES):
            console.print("; ".join(work.lines()), markup=False)

    thread = threading.Thread(target=speak, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _picture(work: Work) -> Group:
    whole, *steps = work.lines()
    grid = Table.grid(padding=(0, 1))
    grid.add_row(ProgressBar(total=1, completed=work.done_and_left()[0], width=30), Text(whole))
    return Group(grid, *(Text(f"  {step}", overflow="ellipsis", no_wrap=True) for step in steps))
