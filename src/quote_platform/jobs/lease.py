"""One job that changes a cluster at a time: the Lease in the cluster, which keeps other controllers out.

Apart from the lock, since the client of Kubernetes takes long to import.
"""

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from kubernetes import client
from urllib3.exceptions import HTTPError

from quote_platform import lease
from quote_platform.jobs.lock import Held, describe, now, text
from quote_platform.jobs.record import Record, Store, write
from quote_platform.kubeconfig import Unusable, connect, trouble

NAME = "quote-platform-job"
PREFIX = "quote-platform/"
# Seconds without a sign of life after which the holder is taken for dead, and between two signs.
DURATION = 60
RENEW = 10.0
# Seconds that a Lease that looks expired is watched, time for two signs: its holder's clock may be behind.
WATCH = 25.0
UNREACHABLE = (HTTPError, OSError)


def controller(store: Store) -> str:
    """Return the name of this controller and user that no other has, made once."""
    file = store.root / "controller"
    if not file.exists():
        made = file.with_name(f".controller.{os.getpid()}")
        write(made, uuid.uuid4().hex[:12])
        with contextlib.suppress(FileExistsError):  # of two at once, the first
            file.hardlink_to(made)
        made.unlink()
    return file.read_text().strip()


class Lease:
    """A Lease by which controllers exclude one another."""

    def __init__(self, kubeconfig: Path, store: Store, record: Record) -> None:
        self.kubeconfig, self.scratch = kubeconfig, record.scratch
        self.holder = f"{controller(store)}/{record.id}"
        self.annotations = {
            f"{PREFIX}owner": record.owner,
            f"{PREFIX}job": f"{record.id} ({record.plan.name})",
            f"{PREFIX}start": text(now()),
        }
        self._api: client.CoordinationV1Api | None = None
        self._current: Any = None

    @property
    def api(self) -> Any:
        """The API of the cluster."""
        if self._api is None:
            # The folder goes with the job.
            self._api = client.CoordinationV1Api(connect(self.kubeconfig, self.scratch, retries=False))
        return self._api

    def take(self) -> None:
        """Hold the Lease; raise Held, or OSError if the cluster cannot be asked."""
        try:
            self._take()
        except Unusable as error:
            raise OSError(str(error)) from error
        except (client.ApiException, HTTPError) as error:
            raise OSError(trouble(error)) from error

    def _take(self) -> None:
        end = time.monotonic() + WATCH
        watched = ""
        while True:
            found = self._read()
            if found is None:
                if self._write(None):
                    return
                continue  # another was faster
            if not self._free(found):
                if not self._expired(found):
                    raise Held(self._of(found))
                version = found.metadata.resource_version
                if watched and version != watched:
                    raise Held(self._of(found))  # it lives: its clock is behind ours
                if not watched or time.monotonic() < end:
                    watched = version
                    time.sleep(min(1.0, WATCH / 5))
                    continue
            if self._write(found):
                return

    def _read(self) -> Any:
        return lease.read(self.api, NAME)

    def _free(self, found: Any) -> bool:
        """Return whether nobody holds it, or a job of this controller, whose lock we have: it is dead."""
        holder = found.spec.holder_identity or ""
        return not holder or holder.split("/")[0] == self.holder.split("/")[0]

    @staticmethod
    def _expired(found: Any) -> bool:
        if not found.spec.renew_time:
            return True
        return bool(found.spec.renew_time + timedelta(seconds=found.spec.lease_duration_seconds or 0) < now())

    @staticmethod
    def _of(found: Any) -> str:
        said = found.metadata.annotations or {}
        return describe(
            said.get(f"{PREFIX}owner", found.spec.holder_identity),
            said.get(f"{PREFIX}job", found.spec.holder_identity),
            said.get(f"{PREFIX}start") or text(found.spec.acquire_time),
            f"Lease {lease.NAMESPACE}/{NAME}, last renewed at {text(found.spec.renew_time)}",
        )

    def _write(self, found: Any, free: bool = False) -> bool:
        """Write the Lease over what was read; return whether nobody was faster."""
        taken = found and found.spec.holder_identity == self.holder
        spec = client.V1LeaseSpec(
            holder_identity="" if free else self.holder,
            lease_duration_seconds=DURATION,
            acquire_time=found.spec.acquire_time if taken else now(),
            renew_time=now(),
            lease_transitions=(found.spec.lease_transitions or 0) + (not taken) if found else 0,
        )
        written = lease.write(self.api, NAME, found, self.annotations, spec)
        if written is None:
            return False
        self._current = written
        return True

    @property
    def held(self) -> bool:
        """Whether it was held when it was last written."""
        return self._current is not None

    def renew(self) -> None:
        """Give a sign of life; raise Held if another has taken it, OSError if the cluster cannot be asked."""
        if not self.held:
            self.take()
            return
        try:
            if self._write(self._current):
                return
            found = self._read()
            if found is None or found.spec.holder_identity == self.holder:
                # Somebody has changed or deleted it; nobody has taken it.
                if not self._write(found):
                    raise OSError("the Lease is changed again and again")
                return
            self._current = None
            raise Held(self._of(found))
        except client.ApiException as error:
            if error.status == 404:
                self._current = None
                self.take()
                return
            raise OSError(trouble(error)) from error
        except HTTPError as error:
            raise OSError(trouble(error)) from error

    def release(self) -> None:
        """Free the Lease, if the cluster answers; else it ends by itself."""
        if self.held:
            with contextlib.suppress(client.ApiException, *UNREACHABLE):
                self._write(self._current, free=True)
            self._current = None


class Keeper(threading.Thread):
    """Renews a Lease while a job runs, and takes it as soon as the cluster can be asked."""

    def __init__(self, lease: Lease, lost: Callable[[str], None]) -> None:
        super().__init__(daemon=True)
        self.lease, self.lost = lease, lost
        self._over = threading.Event()

    def run(self) -> None:
        """Work until `stop`, or until another has the Lease."""
        while not self._over.wait(RENEW):
            # A cluster that is being built has no kubeconfig yet.
            if not self.lease.held and not self.lease.kubeconfig.is_file():
                continue
            try:
                self.lease.renew()
            except Held as error:
                self.lost(str(error))
                return
            except OSError:
                continue  # the API server may be restarting: that is what some jobs do

    def stop(self) -> None:
        """End, and free the Lease."""
        self._over.set()
        self.join(30)
        self.lease.release()
