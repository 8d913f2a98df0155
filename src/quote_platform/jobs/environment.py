"""What every process of a job finds in its environment."""

import os
import sys
import tempfile
from pathlib import Path

from quote_platform.jobs import process
from quote_platform.jobs.record import Record

# Longest path that a socket may have, and what SSH and Ansible add to the folder that they are given.
SOCKET_PATH = 107
SOCKET_NAME = 30


def of(record: Record, folder: Path) -> dict[str, str]:
    """Return what is set for every process of a job, beside the environment of whoever started it."""
    plan = record.plan
    programs = str(Path(sys.executable).parent)
    return {
        process.MARK: record.id,
        # The project's settings hold wherever the command was given.
        "ANSIBLE_CONFIG": f"{plan.project}/ansible.cfg",
        "PWD": plan.project,
        "PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}",
        # A connection that is kept open ends with its job, so it is not shared with another.
        "ANSIBLE_SSH_CONTROL_PATH_DIR": record.sockets or str(folder / "run" / "cp"),
        "ANSIBLE_LOCAL_TEMP": str(folder / "run" / "tmp"),
        # The log is read by people and programs, with and without a terminal.
        "ANSIBLE_NOCOLOR": "1",
    }


def sockets(folder: Path) -> str:
    """Make a folder for sockets where that of the job is too long a path for them; return it, or nothing."""
    longest = len(str(folder / "run" / "cp")) + SOCKET_NAME
    return tempfile.mkdtemp(prefix="quote-platform-") if longest > SOCKET_PATH else ""
