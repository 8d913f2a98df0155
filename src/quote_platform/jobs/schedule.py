"""Timers of systemd for the jobs that a `jobs.yml` gives a schedule."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from pydantic import BaseModel

from quote_platform.jobs.definition import Jobs, WrongInput

# The first lines of each unit: what has another text there is not ours to change.
WRITTEN = "# Written by `quote-platform job schedule apply`."
OF = "# inventory: "


class Timer(BaseModel):
    """One timer, as its units say."""

    unit: str
    job: str
    inventory: str
    calendar: str


class Changes(BaseModel):
    """What `apply` or `remove` did, by unit."""

    written: list[str] = []
    unchanged: list[str] = []
    removed: list[str] = []


def units_folder() -> Path:
    """Return where systemd looks for units of this user."""
    if os.geteuid() == 0:
        return Path("/etc/systemd/system")
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "systemd" / "user"


def check(jobs: Jobs) -> list[str]:
    """Return what systemd-analyze finds wrong with calendar expressions; nothing where it is missing."""
    program = shutil.which("systemd-analyze")
    wrong = []
    for name, job in jobs.jobs.items():
        if not program or not job.schedule:
            continue
        done = subprocess.run(
            [program, "calendar", "--", job.schedule.expression], capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no calendar expression"])[0]
            wrong.append(
                f"jobs.{name}.schedule.calendar: {said}; try it: systemd-analyze calendar EXPRESSION"
            )
    return wrong


def _word(text: str) -> str:
    """Return a word of a command line in a unit: nothing in it is a specifier, a variable or a separator."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if re.search(r"[\s\"'\\;]", text) else escaped


def _plain(text: str) -> str:
    """Return a value in which systemd would resolve specifiers."""
    return text.replace("%", "%%")


def stem(inventory: Path, job: str) -> str:
    """Return the name of the units of a job."""
    # Two inventories of one name in two checkouts have units of their own.
    digest = hashlib.sha256(str(inventory).encode()).hexdigest()[:6]
    name = re.sub(r"[^A-Za-z0-9_-]", "-", inventory.name)
    return f"quote-platform-{name}-{digest}-{job}"


def units(project: Path, inventory: Path, jobs: Jobs) -> dict[str, str]:
    """Return the text of each unit that is wanted, by file name."""
    found = {}
    program = str(Path(sys.executable).with_name("quote-platform"))
    environment = []
    if state := os.environ.get("XDG_STATE_HOME"):
        environment.append(
            f"Environment={_word(f'XDG_STATE_HOME={state}')}"
        )  # where its record is looked for
    if os.geteuid() == 0:
        environment.append("User=root")  # gives it HOME
    for name, job in jobs.jobs.items():
        if not job.schedule:
            continue
        head = f"{WRITTEN}\n{OF}{inventory}\n[Unit]\nDescription=Job {name} on {_plain(str(inventory))}"
        command = " ".join(map(_word, [program, "job", "run", name, "-i", str(inventory)]))
        service = [
            head,
            "Wants=network-online.target",
            "After=network-online.target",
            "",
            "[Service]",
            "Type=exec",
            f"WorkingDirectory={_plain(str(project))}",
            *environment,
            f"ExecStart={command}",
            "# `job run` cancels its job at SIGTERM and waits until nothing of it is left.",
            "KillMode=mixed",
            "TimeoutStopSec=90",
        ]
        timer = [
            head,
            "",
            "[Timer]",
            f"OnCalendar={job.schedule.expression}",
            f"RandomizedDelaySec={job.schedule.random_delay}",
            f"Persistent={'true' if job.schedule.persistent else 'false'}",
            "",
            "[Install]",
            "WantedBy=timers.target",
        ]
        found[f"{stem(inventory, name)}.service"] = "\n".join(service) + "\n"
        found[f"{stem(inventory, name)}.timer"] = "\n".join(timer) + "\n"
    return found


def ours(folder: Path, inventory: Path | None = None) -> list[Path]:
    """Return the units that we have written, of one inventory or of all."""
    found = []
    for file in sorted(folder.glob("quote-platform-*.*")):
        lines = _lines(file)
        if lines[:1] == [WRITTEN] and (not inventory or lines[1:2] == [f"{OF}{inventory}"]):
            found.append(file)
    return found


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def timers(folder: Path, inventory: Path | None = None) -> list[Timer]:
    """Return the timers that stand in a folder."""
    found = []
    for file in ours(folder, inventory):
        if file.suffix != ".timer":
            continue
        lines = _lines(file)
        where = lines[1].removeprefix(OF)
        found.append(
            Timer(
                unit=file.name,
                job=file.stem.removeprefix(stem(Path(where), "")),
                inventory=where,
                calendar=next(line for line in lines if line.startswith("OnCalendar=")).partition("=")[2],
            )
        )
    return found


def apply(project: Path, inventory: Path, jobs: Jobs, folder: Path) -> Changes:
    """Have exactly the timers that `jobs.yml` names; raise WrongInput before anything is written."""
    if wrong := check(jobs):
        raise WrongInput("\n".join(wrong))
    wanted, changes = units(project, inventory, jobs), Changes()
    for name in wanted:
        if (folder / name).exists() and folder / name not in ours(folder, inventory):
            raise WrongInput(f"{folder / name}: not written by this command; move it away")
    folder.mkdir(parents=True, exist_ok=True)
    for file in ours(folder, inventory):
        if file.name not in wanted:
            _remove(file, folder)
            changes.removed.append(file.name)
    for name, text in wanted.items():
        file = folder / name
        if file.exists() and file.read_text() == text:
            changes.unchanged.append(name)
            continue
        file.write_text(text)
        file.chmod(0o644)
        changes.written.append(name)
    if changes.written or changes.removed:
        _systemctl(folder, "daemon-reload")
    # Also one that somebody has stopped: `jobs.yml` says that it is wanted. One that has changed begins anew.
    for name in sorted(wanted):
        if name.endswith(".timer"):
            _systemctl(folder, "enable", "--quiet", name)
            _systemctl(folder, "restart" if name in changes.written else "start", name)
    return changes


def remove(inventory: Path, folder: Path) -> Changes:
    """Remove all timers of an inventory; jobs that run go on."""
    changes = Changes()
    for file in ours(folder, inventory):
        _remove(file, folder)
        changes.removed.append(file.name)
    if changes.removed:
        _systemctl(folder, "daemon-reload")
    return changes


def _remove(file: Path, folder: Path) -> None:
    if file.suffix == ".timer":
        _systemctl(folder, "disable", "--quiet", "--now", file.name)
    file.unlink()


def runs_here(folder: Path) -> bool:
    """Return whether systemd runs, and takes its units from this folder."""
    return Path("/run/systemd/system").is_dir() and folder == units_folder()


def _systemctl(folder: Path, *arguments: str) -> None:
    if not runs_here(folder):
        return
    user = [] if os.geteuid() == 0 else ["--user"]
    done = subprocess.run(["systemctl", *user, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise WrongInput(f"systemctl {' '.join(arguments)}: {done.stderr.strip()}")
