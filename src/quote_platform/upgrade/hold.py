"""A Lease in the cluster by which one upgrade keeps others away, until its process ends."""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from kubernetes import client

from quote_platform import lease
from quote_platform.upgrade.plan import Refused

NAME = "quote-platform-upgrade"
# Seconds after the last sign of life until another controller, which cannot see the process, takes it for
# dead: longer than one node takes.
DURATION = 3600
ANNOTATION = "quote-platform/owner"


class Hold:
    """The Lease, held by the process of ansible-playbook."""

    def __init__(self, api: client.ApiClient) -> None:
        self.api = client.CoordinationV1Api(api)
        process = psutil.Process(_playbook())
        self.holder = f"{_machine()}/{process.pid}/{process.create_time():.0f}"
        started = datetime.fromtimestamp(process.create_time(), UTC)
        self.owner = (
            f"{getpass.getuser()} on {platform.node()}, process {process.pid}, "
            f"since {started:%Y-%m-%d %H:%M:%SZ}"
        )

    def take(self) -> None:
        """Hold it, or give a sign of life; raise Refused, naming who holds it."""
        for _ in range(5):
            found = lease.read(self.api, NAME)
            if found and (held := found.spec.holder_identity) and held != self.holder and _lives(found):
                owner = (found.metadata.annotations or {}).get(ANNOTATION, held)
                raise Refused(
                    f"another upgrade holds the cluster: {owner}. If it is dead, delete its Lease: "
                    f"kubectl --namespace {lease.NAMESPACE} delete lease {NAME}"
                )
            if self._write(found, self.holder):
                return
            time.sleep(0.2)  # another was faster: look who
        raise Refused(f"the Lease {lease.NAMESPACE}/{NAME} is changed again and again: look who does")

    def release(self) -> None:
        """Free it, if it is ours."""
        found = lease.read(self.api, NAME)
        if found and found.spec.holder_identity == self.holder:
            self._write(found, "")

    def _write(self, found: Any, holder: str) -> bool:
        """Write it over what was read; return whether nobody was faster."""
        now = datetime.now(UTC)
        spec = client.V1LeaseSpec(
            holder_identity=holder, lease_duration_seconds=DURATION, acquire_time=now, renew_time=now
        )
        return lease.write(self.api, NAME, found, {ANNOTATION: self.owner}, spec) is not None


def _playbook() -> int:
    """Return the process of ansible-playbook: tasks run in its children."""
    for process in (psutil.Process(), *psutil.Process().parents()):
        with contextlib.suppress(psutil.Error):
            if any(Path(word).name == "ansible-playbook" for word in process.cmdline()[:2]):
                return process.pid
    return os.getpid()


def _machine() -> str:
    file = Path("/etc/machine-id")
    return file.read_text().strip()[:12] if file.is_file() and file.stat().st_size else platform.node()


def _lives(found: Any) -> bool:
    """Tell whether the holder is alive, as far as it can be known here."""
    machine, pid, created = found.spec.holder_identity.rsplit("/", 2)
    if machine == _machine():
        with contextlib.suppress(psutil.Error):
            return bool(f"{psutil.Process(int(pid)).create_time():.0f}" == created)
        return False
    renewed = found.spec.renew_time
    return bool(
        renewed and renewed + timedelta(seconds=found.spec.lease_duration_seconds or 0) > datetime.now(UTC)
    )
