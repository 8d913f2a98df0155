"""What every process of a job finds in its environment, and where it works."""

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

from quote_platform import paths
from quote_platform.jobs import process
from quote_platform.jobs.definition import Plan
from quote_platform.jobs.record import Record, Store

# A file system in memory: what tasks return, and may be secret, is on no disk, and a full disk ends no job.
MEMORY = Path("/dev/shm")  # noqa: S108


def scratch() -> str:
    """Make the folder in which Ansible works, for its owner only; sockets of SSH want a short path."""
    return tempfile.mkdtemp(prefix="quote-platform-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None)


def project(plan: Plan) -> dict[str, str]:
    """Return what makes the project's settings hold wherever a command was given."""
    return {"ANSIBLE_CONFIG": f"{plan.project}/ansible.cfg", "PWD": plan.project}


def ara(record: Record) -> dict[str, str]:
    """Return what has ARA record a job, in a folder for its owner only, which is made where it is missing."""
    folder = paths.state() / "ara"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = importlib.util.find_spec("ara")
    plugins = (
        [f"{place}/plugins/callback" for place in (found.submodule_search_locations or [])] if found else []
    )
    return {
        # It takes the place of what ansible.cfg names.
        "ANSIBLE_CALLBACK_PLUGINS": ":".join(
            [
                *plugins,
                f"{record.plan.project}/plugins/callback",
                os.environ.get("ANSIBLE_CALLBACK_PLUGINS", ""),
            ]
        ).strip(":"),
        "ARA_BASE_DIR": str(folder),
        "ARA_DEFAULT_LABELS": f"{record.plan.name},{record.id}",
    }


def of(record: Record) -> dict[str, str]:
    """Return what is set for every process of a job, beside the environment of whoever started it."""
    programs = str(Path(sys.executable).parent)
    return {
        process.MARK: record.id,
        # Jobs of several clusters share the folder in which they work.
        "QUOTE_PLATFORM_REPORT": str(Store().report(record.id)),
        **project(record.plan),
        **(ara(record) if record.plan.ara else {}),
        "PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}",
        # A connection that is kept open ends with its job, so it is not shared with another.
        "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{record.scratch}/cp",
        "ANSIBLE_LOCAL_TEMP": f"{record.scratch}/local",
        # The log is read by people and programs, with and without a terminal.
        "ANSIBLE_NOCOLOR": "1",
    }
