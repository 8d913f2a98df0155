"""How a job is started and stopped: written down, and given to a supervisor that outlives the command."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from quote_platform.jobs import process
from quote_platform.jobs.definition import Plan, WrongInput
from quote_platform.jobs.record import STATUS, Record, Store, now, owner, write
from quote_platform.jobs.supervisor import CANCEL, GRACE, KIND

KINDS = ("systemd", "cgroup", "processes")
MIB = 1024 * 1024


class NoSpace(Exception):
    """The disk of the records is nearly full."""


class NotStarted(Exception):
    """The supervisor did not come up."""


def systemd_arguments(job: str) -> list[str]:
    """Return what gives a command a scope of systemd, in which it runs on when its session ends."""
    return [
        "systemd-run",
        *([] if os.geteuid() == 0 else ["--user"]),
        "--scope",
        "--quiet",
        "--collect",
        f"--unit=quote-platform-job-{job}",
        f"--description=Job {job} of the Quote Platform",
        # The supervisor makes a cgroup for the playbook inside of it.
        "--property=Delegate=yes",
        "--",
    ]


def kind() -> str:
    """Return how the processes of a job are kept together here; raise WrongInput at an unknown way."""
    asked = os.environ.get(KIND, "")
    if asked:
        if asked not in KINDS:
            raise WrongInput(f"{KIND}: {asked}; allowed are {', '.join(KINDS)}")
        return asked
    if not Path("/run/systemd/system").is_dir() or not shutil.which("systemd-run"):
        return "cgroup"
    # A user without a manager of their own, as in cron without `loginctl enable-linger`.
    user = Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent")) / "systemd" / "private"
    return "systemd" if os.geteuid() == 0 or user.exists() else "cgroup"


def check_space(store: Store, plan: Plan) -> None:
    """Raise NoSpace if the disk of the records has less than a job may need."""
    store.prepare()
    free = shutil.disk_usage(store.root).free // MIB
    if free < plan.minimum_free_mib:
        raise NoSpace(
            f"{store.root}: {free} MiB are free, a job needs {plan.minimum_free_mib} (minimum_free_mib in "
            "jobs.yml); nothing was started. Remove old records: quote-platform job prune --keep 5"
        )


def launch(  # noqa: PLR0917
    store: Store,
    plan: Plan,
    variables: dict[str, Any],
    retry_of: str = "",
    tied: bool = False,
    origin: str = "",
) -> tuple[Record, "subprocess.Popen[bytes]"]:
    """Start a job; return its record and its supervisor.

    A job that is `tied` ends with this process: the supervisor reads the other end of its standard input.
    """
    chosen = kind()
    check_space(store, plan)
    record = store.create(plan, variables, retry_of, origin)
    folder = store.folder(record.id)
    command = [sys.executable, "-m", "quote_platform.jobs.supervisor", record.id, str(store.root)]
    command.append("tied" if tied else "free")
    if chosen == "systemd":
        command = systemd_arguments(record.id) + command
    log = os.open(folder / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        supervisor = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if tied else subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=plan.project,
            env=os.environ | {KIND: chosen},
            # No signal of the terminal reaches it.
            start_new_session=True,
        )
    except OSError as error:
        raise _not_started(store, record, str(error)) from error
    finally:
        os.close(log)
    return record, supervisor


def _not_started(store: Store, record: Record, why: str) -> NotStarted:
    """Write down that a supervisor did not come up; return the exception that says so."""
    record.state, record.exit_status, record.ended = "failed", STATUS["failed"], now()
    record.message = f"its supervisor did not start: {why}"
    store.clean(record)
    store.save(record)
    return NotStarted(f"{record.id}: {record.message}")


def begun(store: Store, record: Record, supervisor: "subprocess.Popen[bytes]") -> Record:
    """Wait until a job runs or has ended; return its record, or raise NotStarted."""
    while True:
        record = store.read(record.id)
        if record.state != "starting":
            return record
        if supervisor.poll() is not None:
            record = store.read(record.id)
            if record.state != "starting":
                return record
            words = (store.folder(record.id) / "supervisor.log").read_text().strip().splitlines()
            raise _not_started(store, record, "; ".join(words[-2:]) or f"status {supervisor.returncode}")
        time.sleep(0.03)


def cancel(store: Store, record: Record, seconds: float = GRACE + process.GONE + 40) -> Record:
    """Stop a job, and wait until nothing of it is left; return its record."""
    by = owner()
    write(store.folder(record.id) / CANCEL, json.dumps({"by": by}))
    end = time.monotonic() + seconds
    sent = False
    while time.monotonic() < end:
        record = store.look(record.id)
        if record.over:
            return record
        if not sent and record.supervisor:
            sent = process.send(record.supervisor, signal.SIGTERM)
        time.sleep(0.05)
    # It does not answer: stopped, or stuck in a system call. Without it, the record is ours to write.
    if record.supervisor:
        process.send(record.supervisor, signal.SIGKILL)
    store.clean(record)
    record.state, record.exit_status, record.ended = "cancelled", STATUS["cancelled"], now()
    record.message, record.next = (
        f"by {by}; its supervisor did not answer",
        [f"quote-platform job retry {record.id}"],
    )
    store.save(record)
    return record
