"""Jobs of clusters that are reached from this machine: the controller, or an execution node for itself."""

import subprocess
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError

from quote_platform.fleet.run import News, Request, failed
from quote_platform.jobs import definition, launch
from quote_platform.jobs.definition import Plan, WrongInput
from quote_platform.jobs.record import Record, Store
from quote_platform.verify.report import BACKUPS, CERTIFICATES, Report


class Local:
    """The job of a cluster, on this machine."""

    def __init__(self, project: Path, inventory: str, request: Request, origin: str) -> None:
        self.project, self.request, self.origin = project, request, origin
        self.inventory = project / inventory
        self.store = Store()
        self.record: Record | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None

    def plan(self) -> tuple[Plan, dict[str, object]]:
        """Return what is to run; raise WrongInput."""
        asked = self.request
        return definition.plan(
            asked.job, self.project, self.inventory, asked.extra, asked.check, asked.timeout
        )

    def start(self) -> News:
        """Start the job, unless it was started before for the same run; it outlives this process."""
        self.record = self.store.of_origin(self.origin)
        if self.record:
            return News.of(self.record)
        try:
            plan, variables = self.plan()
            self.record, self._supervisor = launch.launch(self.store, plan, variables, origin=self.origin)
        except WrongInput as error:
            return failed(str(error), status=2)
        except (launch.NoSpace, launch.NotStarted) as error:
            return failed(str(error))
        return News.of(self.record)

    def look(self) -> News:
        """Return how the job stands."""
        if self._supervisor:
            self._supervisor.poll()  # so that one that has ended is gone
        self.record = self.store.of_id(self.record.id) if self.record else self.store.of_origin(self.origin)
        return News.of(self.record) if self.record else failed("its record is gone")

    def cancel(self) -> News:
        """Stop the job, and wait until nothing of it is left."""
        record = self.store.of_origin(self.origin)
        if record is None:
            return News(state="not started", message="cancelled before")
        if record.over:
            return News.of(record)
        return News.of(launch.cancel(self.store, record))


class Last(BaseModel):
    """The last run of a job on a cluster."""

    job: str
    state: str
    exit_status: int | None
    # Seconds since it ended, or since it started if it still runs.
    age: float
    message: str


class Judged(BaseModel):
    """What the last verify said of something that has an age or an end."""

    # passed, failed, or not run
    status: str
    # When the newest backup was made, or the first certificate ends.
    moment: datetime | None


class Status(BaseModel):
    """What is known of a cluster where its jobs run."""

    # Of the checkout there.
    version: str = ""
    # Whether that is the controller's, too.
    same: bool = True
    # By the name of the job.
    jobs: dict[str, Last] = {}
    # By the name of the check: those of BACKUPS and CERTIFICATES, as far as the last verify came to them.
    checks: dict[str, Judged] = {}
    # Why it is not known.
    message: str = ""


def status(store: Store, project: Path, inventory: str, version: str, now: float) -> Status:
    """Return the last job of each name of an inventory; `now` is a time in seconds since 1970."""
    where = str((project / inventory).resolve())
    found = Status(version=version)
    for record in store.all():
        if record.plan.inventory != where or record.plan.name in found.jobs:
            continue
        since = record.ended or record.started or record.created
        found.jobs[record.plan.name] = Last(
            job=record.id,
            state=record.state,
            exit_status=record.exit_status,
            age=max(0.0, round(now - since.timestamp())),
            message=record.message,
        )
    if "verify" in found.jobs:
        found.checks = _judged(store.report(found.jobs["verify"].job))
    return found


def _judged(file: Path) -> dict[str, Judged]:
    """Return what a report says of backups and certificates; nothing if there is none."""
    try:
        report = Report.model_validate_json(file.read_text())
    except (OSError, ValidationError):
        return {}
    return {
        check.name: Judged(status=check.status, moment=check.moment)
        for check in report.checks
        if check.name in {*BACKUPS, CERTIFICATES}
    }
