"""A run of a job on many clusters: its record, which outlives its process, and the order of its waves."""

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ValidationError

from quote_platform import paths
from quote_platform.fleet.definition import Cluster, Receptor
from quote_platform.jobs import process, view
from quote_platform.jobs.definition import WrongInput
from quote_platform.jobs.launch import NoSpace
from quote_platform.jobs.record import STATUS, Record, now, owner, write
from quote_platform.jobs.record import State as JobState

State = JobState | Literal["waiting", "not started", "lost"]
# In the order in which they make a run worse.
WORST = (0, 3, 4, 5, 6, 2, 1)
# Seconds between two looks at jobs.
LOOK = 0.3
# Records of runs that are kept.
KEEP = 50
# Lines about failures and drift that are kept of a job; its own record has all.
LINES = 50
# Bytes that are kept for the record of a run, so that its end can be written to a disk that has become full.
BALLAST, BALLAST_OF_EACH = 64 * 1024, 8 * 1024


class Request(BaseModel):
    """What is asked of every cluster: a job, as `quote-platform job run` takes it."""

    job: str
    extra: list[str] = []
    check: bool = False
    timeout: str = ""


class News(BaseModel):
    """What is known of the job of a cluster."""

    state: State = "waiting"
    exit_status: int | None = None
    job: str = ""
    task: str = ""
    changed: int = 0
    failed: int = 0
    seconds: float = 0
    # Why it ended as it did.
    message: str = ""
    # What failed, and what has drifted.
    found: list[str] = []

    @property
    def over(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.state not in {"waiting", "starting", "running"}

    @property
    def bad(self) -> bool:
        """Whether it counts for --stop-after. Drift was looked for and found, so it does not."""
        return self.over and self.state not in {"done", "drift", "not started"}

    @classmethod
    def of(cls, record: Record) -> "News":
        """Return what a job's record tells."""
        summary = record.summary
        told = [*summary.failed, *(summary.changed if record.state == "drift" else [])]
        return cls(
            state=record.state,
            exit_status=record.exit_status,
            job=record.id,
            task=summary.task if not record.over else "",
            changed=summary.changes,
            failed=summary.failures,
            seconds=record.seconds,
            message=record.message,
            found=[view.told(one) for one in told[:LINES]],
        )


class Entry(BaseModel):
    """One cluster in a run."""

    cluster: str
    of: Cluster
    wave: int
    news: News = News()
    # Receptor's name for the work of asking for the job, while that goes on.
    unit: str = ""


class Run(BaseModel):
    """A job on many clusters."""

    version: int = 1
    id: str
    request: Request
    at_once: int
    stop_after: int
    owner: str
    created: datetime
    ended: datetime | None = None
    # The process that works on it, or did.
    driver: process.Identity
    entries: list[Entry]
    receptor: Receptor | None = None

    @property
    def bad(self) -> int:
        """How many clusters have failed so far."""
        return sum(one.news.bad for one in self.entries)

    @property
    def driven(self) -> bool:
        """Whether somebody works on it."""
        return self.ended is None and process.alive(self.driver)

    @property
    def exit_status(self) -> int:
        """The worst status of its jobs."""
        found = [one.news.exit_status for one in self.entries if one.news.exit_status is not None]
        return max(found, key=WORST.index, default=0)

    def origin(self, entry: Entry) -> str:
        """Return what names this run's job on a cluster, wherever that runs."""
        return f"{self.id}/{entry.cluster}"


class Runs:
    """The records of runs on this controller."""

    def __init__(self) -> None:
        self.root = paths.state() / "fleet"

    def create(
        self,
        request: Request,
        entries: list[Entry],
        at_once: int,
        stop_after: int,
        receptor: Receptor | None = None,
    ) -> Run:
        """Write down a run that is about to start, and forget the oldest; raise NoSpace on a full disk."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)
        run = Run(
            id=f"{datetime.now(UTC):%y%m%d-%H%M%S}-{secrets.token_hex(2)}",
            request=request,
            at_once=at_once,
            stop_after=stop_after,
            owner=owner(),
            created=now(),
            driver=process.identity(os.getpid()),
            entries=entries,
            receptor=receptor,
        )
        try:
            write(self._ballast(run), "\0" * (BALLAST + BALLAST_OF_EACH * len(entries)))
            self.save(run)
        except OSError as error:
            self._ballast(run).unlink(missing_ok=True)
            raise NoSpace(f"{self.root}: {error.strerror}; nothing was started") from error
        for old in [one for one in self.all() if not one.driven][KEEP:]:
            self._ballast(old).unlink(missing_ok=True)
            (self.root / f"{old.id}.json").unlink(missing_ok=True)
        return run

    def _ballast(self, run: Run) -> Path:
        return self.root / f".{run.id}.ballast"

    def save(self, run: Run) -> None:
        """Write a record; on a full disk, into the room that was kept for it."""
        file, text = self.root / f"{run.id}.json", run.model_dump_json(indent=2) + "\n"
        if run.ended:
            self._ballast(run).unlink(missing_ok=True)
        try:
            write(file, text)
        except OSError:
            self._ballast(run).unlink(missing_ok=True)
            write(file, text)

    def all(self) -> list[Run]:
        """Return all records that can be read, the newest first."""
        found = []
        for file in sorted(self.root.glob("*.json"), reverse=True):
            with contextlib.suppress(OSError, ValidationError):
                found.append(Run.model_validate_json(file.read_text()))
        return found

    def find(self, asked: str) -> Run:
        """Return the run that `latest` or a name means; raise WrongInput."""
        runs = self.all()
        found = [one for one in runs if asked in {"latest", one.id}]
        if not found:
            known = f"; known are {', '.join(one.id for one in runs[:5])}" if runs else ""
            raise WrongInput(f"{asked or repr(asked)}: no such run of the fleet{known}")
        return found[0]


class Place(Protocol):
    """Where the job of a cluster runs."""

    def start(self) -> News:
        """Start the job, unless this run has started it before; return what is known of it."""

    def look(self) -> News:
        """Return what is known of it now."""

    def cancel(self) -> News:
        """Stop it, and wait until nothing of it is left."""


class Driver:
    """Works on a run, from wherever it stands."""

    def __init__(
        self, run: Run, save: Callable[[Run], None], place: Callable[[Entry], Place], show: Callable[[], None]
    ) -> None:
        self.run, self.save, self.show = run, save, show
        self._written: dict[str, Any] = {}
        # Why the record is not as the run is, if so.
        self.unsaved = ""
        self.places = {one.cluster: place(one) for one in run.entries}

    def drive(self) -> None:
        """Work on it to its end."""
        for wave in self._waves():
            # Those of another life of this process may be under way, or have ended.
            fresh = [one for one in wave if one.news.state == "waiting"]
            if self.run.bad >= self.run.stop_after:
                for one in fresh:
                    one.news = News(state="not started", message=f"after {_failures(self.run.bad)}")
                wave = [one for one in wave if one not in fresh]  # noqa: PLW2901
            for one in wave:
                if not one.news.over:
                    one.news = News(state="starting")
            self._saved()
            for one in wave:
                if not one.news.over:
                    one.news = self.places[one.cluster].start()
            while any(not one.news.over for one in wave):
                self._saved()
                time.sleep(LOOK)
                for one in wave:
                    if not one.news.over:
                        one.news = self.places[one.cluster].look()
            self._saved()
        self._end()

    def cancel(self) -> None:
        """Stop what runs, all at the same time, and start no more."""
        running = []
        for one in self.run.entries:
            if one.news.state == "waiting":
                one.news = News(state="not started", message="cancelled before")
            elif not one.news.over:
                running.append(one)
        self._saved()
        with ThreadPoolExecutor(max_workers=len(running) or 1) as pool:
            stopped = {pool.submit(self.places[one.cluster].cancel): one for one in running}
            for done in as_completed(stopped):
                stopped[done].news = done.result()
                self._saved()
        self._end()

    def _waves(self) -> Iterator[list[Entry]]:
        for number in sorted({one.wave for one in self.run.entries}):
            yield [one for one in self.run.entries if one.wave == number]

    def _saved(self) -> None:
        """Write down and show what has changed, which the time that jobs have taken does of itself."""
        stands = self.run.model_dump(exclude={"entries": {"__all__": {"news": {"seconds"}}}})
        if stands == self._written:
            return
        try:
            self.save(self.run)
            self._written, self.unsaved = stands, ""
        except OSError as error:  # jobs go on all the same, and it is tried again
            self.unsaved = str(error.strerror)
        self.show()

    def _end(self) -> None:
        self.run.ended = now()
        self._saved()


def _failures(count: int) -> str:
    return f"{count} failure{'s' * (count > 1)}"


def failed(message: str, status: int = STATUS["failed"]) -> News:
    """Return the news of a job that could not be started."""
    return News(state="failed", exit_status=status, message=message)


def default() -> Path:
    """Return where `fleet.yml` lies in a checkout."""
    return paths.repository() / "inventories" / "fleet.yml"
