"""One job that changes a cluster at a time: the lock on the controller."""

import contextlib
import fcntl
import json
import os
import re
import time
from datetime import UTC, datetime
from typing import Any

from quote_platform.jobs.definition import WrongInput
from quote_platform.jobs.record import Record, Store


class Held(Exception):
    """Another job holds the cluster; the text names owner, job and start."""


def describe(owner: str, job: str, start: str, where: str) -> str:
    """Return who holds a cluster, as a refusal says it."""
    return f"job {job} of {owner}, since {start}, holds it ({where})"


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def text(when: datetime | None) -> str:
    """Return a time as a refusal says it."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if when else "an unknown time"


class Lock:
    """The lock of a cluster on this controller: the kernel frees it when its holder dies, however it does."""

    def __init__(self, store: Store, cluster: str) -> None:
        self.store = store
        self.file = store.root / "locks" / f"{re.sub(r'[^A-Za-z0-9._-]', '_', cluster)}.json"
        self._descriptor = -1

    def take(self, record: Record) -> None:
        """Hold the lock, or raise Held."""
        self.file.parent.mkdir(mode=0o700, exist_ok=True)
        # No child inherits it: Python's descriptors are closed when another program starts.
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Held(self._holder()) from None
        self._descriptor = descriptor
        before = self._read()
        if before and before["job"] != record.id:
            # Its supervisor is dead, but what it has started must be so too before another begins.
            with contextlib.suppress(WrongInput):  # its record may have been removed
                self.store.look(str(before["job"]))
        content = {"job": record.id, "name": record.plan.name, "owner": record.owner, "start": text(now())}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(content).encode(), 0)

    def release(self) -> None:
        """Free the lock."""
        if self._descriptor >= 0:
            # The file stays: one that is removed and made anew could be held twice.
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self.file.read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and "job" in found else None

    def _holder(self) -> str:
        for _ in range(50):
            if found := self._read():
                name = f"{found['job']} ({found['name']})"
                return describe(found["owner"], name, found["start"], "on this controller")
            time.sleep(0.02)  # it has the lock and has not written its name yet
        return "a job that has just begun holds it (on this controller)"
