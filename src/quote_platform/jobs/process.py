"""Processes by more than their number, and groups of them that end together."""

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

import psutil
from pydantic import BaseModel

# In the environment of every process of a job, for what no cgroup holds.
MARK = "QUOTE_PLATFORM_JOB"
PR_SET_CHILD_SUBREAPER = 36
# Seconds that a killed process may take to be gone.
GONE = 15.0


class Identity(BaseModel):
    """A process, over reboots and numbers that are given again."""

    boot: str
    pid: int
    # Ticks since the boot, which no clock that is set changes.
    started: int


def boot() -> str:
    """Return what names the time since the last boot of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on, or None without such a process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None


def identity(pid: int) -> Identity:
    """Return a process that lives."""
    fields = _stat(pid)
    if fields is None:
        raise ProcessLookupError(pid)
    return Identity(boot=boot(), pid=pid, started=int(fields[19]))


def alive(one: Identity) -> bool:
    """Return whether a process still runs; one that has ended and waits for its parent does not."""
    fields = _stat(one.pid)
    return (
        fields is not None and fields[0] not in "ZX" and int(fields[19]) == one.started and boot() == one.boot
    )


def send(one: Identity, number: signal.Signals) -> bool:
    """Send a signal to exactly this process; return whether it was there."""
    try:
        descriptor = os.pidfd_open(one.pid)
    except ProcessLookupError:
        return False
    try:
        # The descriptor stays with the process that it was opened for, so looking now is not too late.
        if not alive(one):
            return False
        signal.pidfd_send_signal(descriptor, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)


class Group:
    """Every process of a job, below one that starts it; whoever holds the name can end them all.

    By a cgroup v2 of its own where one can be made, so that nothing gets out, and by a mark in the
    environment, which a process could take off; without a cgroup, also by the descendants of whoever calls
    `adopt`.
    """

    def __init__(self, job: str, cgroup: str = "") -> None:
        self.job = job
        self.cgroup = Path(cgroup) if cgroup else None
        # Whether the descendants of the calling process are the group's.
        self._parent = False

    @classmethod
    def create(cls, job: str, kind: str = "") -> "Group":
        """Make a group; `kind` is `processes` where no cgroup is wanted."""
        base = None if kind == "processes" else own_cgroup()
        if base:
            path = base / f"quote-platform-job-{job}"
            try:
                path.mkdir()
            except OSError:
                return cls(job)
            if (path / "cgroup.kill").exists() and os.access(path / "cgroup.procs", os.W_OK):
                return cls(job, str(path))
            path.rmdir()
        return cls(job)

    def join(self) -> None:
        """Take the calling process, and all that it starts, into the group."""
        if self.cgroup:
            (self.cgroup / "cgroup.procs").write_text("0")
        else:
            self.adopt()

    def adopt(self) -> None:
        """Count the descendants of the calling process, and become their parent when their own ends."""
        if not self.cgroup:
            adopt()
            self._parent = True

    def members(self) -> set[int]:
        """Return the processes of the group that live, without the calling one."""
        # By the mark also with a cgroup: a worker that has just been started has not joined it yet.
        found = marked(self.job)
        if self.cgroup:
            with contextlib.suppress(OSError):
                found |= {int(pid) for pid in (self.cgroup / "cgroup.procs").read_text().split()}
        elif self._parent:
            found |= {one.pid for one in psutil.Process().children(recursive=True)}
        # One that waits for its parent holds nothing any more.
        living = {pid for pid in found if (fields := _stat(pid)) and fields[0] not in "ZX"}
        return living - {os.getpid()}

    def kill(self) -> None:
        """End every process of the group at once, with a cgroup also the calling one if it is in it."""
        end = time.monotonic() + GONE
        while time.monotonic() < end:
            if self.cgroup:
                with contextlib.suppress(OSError):
                    (self.cgroup / "cgroup.kill").write_text("1")
            members = self.members()
            if not members:
                break
            for pid in members:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        if self.cgroup:
            # A directory is free some moments after its last process.
            while self.cgroup.exists() and time.monotonic() < end:
                with contextlib.suppress(OSError):
                    self.cgroup.rmdir()
                    break
                time.sleep(0.02)


def adopt() -> None:
    """Have the kernel give descendants whose own parent ends to this process, not to init."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def marked(job: str) -> set[int]:
    """Return the processes whose environment says that they belong to a job."""
    entry = f"{MARK}={job}".encode()
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if entry in (folder / "environ").read_bytes().split(b"\0"):
                    found.add(int(folder.name))
    return found


def own_cgroup() -> Path | None:
    """Return the cgroup v2 directory of this process, or None where there is none."""
    path = next(
        (line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")),
        None,
    )
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    mount = next((fields[1] for fields in mounts if fields[2] == "cgroup2"), None)
    return Path(mount) / path.lstrip("/") if path is not None and mount else None
