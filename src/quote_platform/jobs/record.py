"""Records of jobs: a folder for each, in which its state is found again whatever became of its processes."""

import contextlib
import getpass
import json
import os
import re
import secrets
import shutil
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from quote_platform import paths
from quote_platform.jobs import process
from quote_platform.jobs.cluster import Cluster
from quote_platform.jobs.definition import Plan, WrongInput
from quote_platform.jobs.events import Result, Summary, read

State = Literal[
    "starting", "running", "done", "failed", "drift", "refused", "cancelled", "out of time", "interrupted"
]
# How a command that waits for a job ends.
STATUS: dict[State, int] = {
    "done": 0,
    "failed": 1,
    "interrupted": 1,
    "drift": 3,
    "refused": 4,
    "cancelled": 5,
    "out of time": 6,
}
ID = re.compile(r"\d{6}-\d{6}-[0-9a-f]{4}")
# Given up when a job ends, so that its record can be written to a disk that has become full.
BALLAST = 256 * 1024


class Record(BaseModel):
    """What is known of a job."""

    version: int = 1
    id: str
    plan: Plan
    owner: str
    created: datetime
    retry_of: str = ""
    # Run of a fleet and cluster for which it was started, so that it is not started twice.
    origin: str = ""
    state: State = "starting"
    exit_status: int | None = None
    started: datetime | None = None
    ended: datetime | None = None
    # Seconds that it ran, by a clock that nobody sets; None while it runs, and if nobody saw it end.
    duration: float | None = None
    # Why it ended as it did, for people.
    message: str = ""
    # Commands that go on from here.
    next: list[str] = []
    supervisor: process.Identity | None = None
    # The cgroup that holds its processes; empty where they are found otherwise.
    cgroup: str = ""
    cluster: str = ""
    # All that is known of the cluster; None until it was asked for.
    of: Cluster | None = None
    # What is known of the cluster's name, the locks and the like, a sentence each.
    notes: list[str] = []
    # Folder in which Ansible works; it goes with the job.
    scratch: str = ""
    summary: Summary = Summary()

    @property
    def over(self) -> bool:
        """Whether it has ended, however."""
        return self.state not in {"starting", "running"}

    @property
    def seconds(self) -> float:
        """How long it has run; as well as is known if the clock was set meanwhile."""
        if self.duration is not None:
            return self.duration
        if not self.started:
            return 0
        return max(0.0, ((self.ended or datetime.now(UTC)) - self.started).total_seconds())


def now() -> datetime:
    """Return the time, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def owner() -> str:
    """Return who asks for a job, and where."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # no entry in passwd
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file, whole or not at all; without another mode only its owner reads it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


class Store:
    """The records of this user on this controller."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or paths.state() / "jobs").absolute()

    def prepare(self) -> None:
        """Make the folder of the records."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        # It may be there since before, or the umask may have taken more away than it should.
        self.root.chmod(0o700)

    def folder(self, job: str) -> Path:
        """Return the folder of a job."""
        return self.root / job

    def report(self, job: str) -> Path:
        """Return where a job that verifies leaves its report for programs."""
        return self.folder(job) / "report.json"

    def create(self, plan: Plan, variables: dict[str, Any], retry_of: str = "", origin: str = "") -> Record:
        """Write down a job that is about to start."""
        self.prepare()
        while True:
            name = f"{datetime.now(UTC):%y%m%d-%H%M%S}-{secrets.token_hex(2)}"
            try:
                self.folder(name).mkdir(mode=0o700)
                break
            except FileExistsError:
                continue
        record = Record(id=name, plan=plan, owner=owner(), created=now())
        record.retry_of, record.origin = retry_of, origin
        write(self.folder(name) / "variables.json", json.dumps(variables))
        write(self.folder(name) / "ballast", "\0" * BALLAST)
        self.save(record)
        return record

    def save(self, record: Record) -> None:
        """Write a record."""
        write(self.folder(record.id) / "job.json", record.model_dump_json(indent=2) + "\n")

    def read(self, job: str) -> Record:
        """Return a record as it was written; raise WrongInput if there is none."""
        file = self.folder(job) / "job.json"
        try:
            return Record.model_validate_json(file.read_text())
        except FileNotFoundError as error:
            raise WrongInput(f"{job}: no such job; see quote-platform job list") from error
        except (OSError, ValidationError) as error:
            raise WrongInput(f"{job}: {file} cannot be read: {str(error).splitlines()[0]}") from error

    def ids(self) -> list[str]:
        """Return the names of all jobs, the newest first."""
        found = [one.name for one in self.root.glob("*/") if ID.fullmatch(one.name)]
        return sorted(found, reverse=True)

    def find(self, asked: str) -> Record:
        """Return the record that `latest`, a name or the beginning of one means; raise WrongInput."""
        names = self.ids()
        if asked == "latest" and names:
            return self._with_summary(self.look(names[0]))
        found = [name for name in names if asked and name.startswith(asked)]
        if len(found) > 1:
            raise WrongInput(f"{asked}: {len(found)} jobs begin so: {', '.join(sorted(found)[:5])}")
        if not found:
            raise WrongInput(f"{asked or repr(asked)}: no such job; see quote-platform job list")
        return self._with_summary(self.look(found[0]))

    def of_id(self, job: str) -> Record:
        """Return the record of exactly this name, as it stands; raise WrongInput."""
        return self._with_summary(self.look(job))

    def of_origin(self, origin: str) -> Record | None:
        """Return the job that was started for a cluster in a run of a fleet, if there is one."""
        for name in self.ids():
            with contextlib.suppress(WrongInput):
                if self.read(name).origin == origin:
                    return self.of_id(name)
        return None

    def all(self) -> list[Record]:
        """Return all records that can be read, the newest first."""
        found = []
        for name in self.ids():
            with contextlib.suppress(WrongInput):
                found.append(self._with_summary(self.look(name)))
        return found

    def _with_summary(self, record: Record) -> Record:
        """Add where a job stands that runs; when it has ended, the record says so."""
        if not record.over:
            record.summary = Summary.of(read(self.folder(record.id) / "events.jsonl"))
        return record

    def look(self, job: str) -> Record:
        """Return a record as it is: without its supervisor it is interrupted, and nothing of it is left."""
        record = self.read(job)
        if record.over or self._supervised(record):
            return record
        record = self.read(job)  # it may have ended between
        if record.over:
            return record
        self.clean(record)
        record.state, record.exit_status = "interrupted", STATUS["interrupted"]
        record.ended = now()
        record.message = "its supervisor is gone: killed, or the controller was switched off"
        record.next = [f"quote-platform job retry {record.id}"]
        record.summary = Summary.of(read(self.folder(job) / "events.jsonl"))
        from quote_platform.jobs import metrics  # noqa: PLC0415 (it writes records' metrics, and reads records)

        metrics.of_run(self, record)
        with contextlib.suppress(OSError):  # a full disk: it is found again the next time
            self.save(record)
        return record

    def _supervised(self, record: Record) -> bool:
        if record.supervisor:
            return process.alive(record.supervisor)
        # Its command has not come as far as to start one; a minute is more than it needs, and a clock that
        # was set back since is no reason to wait for longer.
        return abs((datetime.now(UTC) - record.created).total_seconds()) < 60

    def clean(self, record: Record) -> None:
        """End what runs of a job, and remove what only a running job needs."""
        if not record.supervisor or record.supervisor.boot == process.boot():
            process.Group(record.id, record.cgroup).kill()
        if record.scratch:
            shutil.rmtree(record.scratch, ignore_errors=True)
        (self.folder(record.id) / "ballast").unlink(missing_ok=True)

    def prune(self, keep: int, older: float | None = None, plan: Plan | None = None) -> list[str]:
        """Remove records of ended jobs; return their names.

        The newest `keep` of each job and inventory stay; with `older`, those younger than these seconds too.
        With `plan`, only those of its job and inventory are looked at.
        """
        seen: dict[tuple[str, str], int] = {}
        removed = []
        for record in self.all():
            key = (record.plan.name, record.plan.inventory)
            if not record.over or (plan and key != (plan.name, plan.inventory)):
                continue
            seen[key] = seen.get(key, 0) + 1
            age = (datetime.now(UTC) - record.created).total_seconds()
            if seen[key] > keep and (older is None or age > older):
                shutil.rmtree(self.folder(record.id), ignore_errors=True)
                removed.append(record.id)
        return removed

    def results(self, job: str) -> list[Result]:
        """Return what each task did on each host."""
        return Summary.of(read(self.folder(job) / "events.jsonl"), every=True).results
