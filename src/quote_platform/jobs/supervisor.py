"""The process that answers for a job: it holds locks, starts the worker, ends it, and writes the record."""

import contextlib
import importlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quote_platform.jobs import lease

from quote_platform import bastion
from quote_platform.jobs import cluster, environment, process
from quote_platform.jobs.events import Summary, read
from quote_platform.jobs.lock import Held, Lock
from quote_platform.jobs.record import STATUS, State, Store, now

# How the processes of a job are kept together: systemd, cgroup or processes; chosen where it is not set.
KIND = "QUOTE_PLATFORM_JOB_GROUP"
# Seconds that processes have to end by themselves when a job is stopped.
GRACE = 5.0
DAY = 86400.0
CANCEL = "cancel.json"
# Characters of a reason that stands in one line.
LINE = 300


class Stopped(Exception):
    """The job is to end before its playbook has; the text says why."""

    def __init__(self, state: State, why: str) -> None:
        super().__init__(why)
        self.state = state


class Supervisor:
    """Runs one job from its record, which only this process writes until it ends."""

    def __init__(self, store: Store, job: str, tied: bool) -> None:
        self.store, self.record = store, store.read(job)
        self.plan, self.folder = self.record.plan, store.folder(job)
        self.tied = tied
        self.lock: Lock | None = None
        self.keeper: lease.Keeper | None = None
        self.lost = ""
        self.began: float | None = None
        # What a signal or another thread has to say is said through this pipe, so that waiting ends.
        self._heard, self._said = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.group = process.Group(job)
        self.led = contextlib.ExitStack()

    def run(self) -> State:
        """Run the job to its end; return what it came to."""
        self.record.supervisor = process.identity(os.getpid())
        self.record.scratch = environment.scratch()
        self.store.save(self.record)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._said, warn_on_full_buffer=False)
        try:
            self._hold()
            state, message = self._work()
        except Held as error:
            state, message = "refused", f"cluster {self.record.cluster}: {error}"
        except Stopped as stopped:
            state, message = stopped.state, str(stopped)
        except Exception as error:
            # Whatever it is, nothing of the job may stay behind.
            state, message = "failed", f"{type(error).__name__}: {error}"
        self._end(state, message)
        return state

    # --- before ---------------------------------------------------------------------------------------

    def _hold(self) -> None:
        """Take the locks that this job needs, or raise Held."""
        if not self.plan.changes:
            self.record.notes.append("it changes nothing, so it takes no lock")
            return
        variables = json.loads((self.folder / "variables.json").read_text())
        # What is needed next takes as long to load as the answer takes to come.
        threading.Thread(target=importlib.import_module, args=["quote_platform.jobs.lease"]).start()
        found = cluster.ask(self.plan, variables, os.environ | environment.of(self.record))
        self.record.of, self.record.cluster = found, found.name
        if found.unknown:
            self.record.notes.append(
                f"cluster_name cannot be read, so the lock is named after the inventory: {found.unknown}"
            )
        self.led.enter_context(bastion.led(found.way))
        self.lock = Lock(self.store, found.name)
        self.lock.take(self.record)
        if found.kubeconfig:
            self._lease(Path(found.kubeconfig))
        else:
            self.record.notes.append("no Lease in the cluster: cluster_kubeconfig is not set")

    def _lease(self, kubeconfig: Path) -> None:
        from quote_platform.jobs.lease import Keeper, Lease  # noqa: PLC0415 (loaded by `_hold`, meanwhile)

        lease = Lease(kubeconfig, self.store, self.record)
        if not kubeconfig.is_file():
            note = f"{kubeconfig} does not exist yet"
        else:
            try:
                lease.take()
                note = ""
            except OSError as error:
                note = str(error)
        if note:
            self.record.notes.append(
                f"started without the Lease in the cluster: {note}. It is taken as soon as the API server "
                "answers; until then another controller can start a job as well"
            )
        self.keeper = Keeper(lease, self._lost)
        self.keeper.start()

    def _lost(self, why: str) -> None:
        self.lost = why
        with contextlib.suppress(BlockingIOError):
            os.write(self._said, b"\0")

    # --- meanwhile ------------------------------------------------------------------------------------

    def _work(self) -> tuple[State, str]:
        """Run the worker; return what it came to, or raise Stopped."""
        kind = os.environ.get(KIND, "")
        self.group = process.Group.create(self.record.id, kind)
        self.group.adopt()
        self.record.cgroup = str(self.group.cgroup or "")
        self.record.state, self.record.started = "running", now()
        self.store.save(self.record)
        began = self.began = time.monotonic()
        worker = subprocess.Popen(
            [sys.executable, "-m", "quote_platform.jobs.worker", self.record.id, str(self.store.root)],
            stdin=subprocess.PIPE,  # when we are gone, whatever the cause, the worker reads its end
            cwd=self.plan.project,
            env=os.environ | environment.of(self.record),
        )
        try:
            self._wait(worker, began + self.plan.timeout)
        except Stopped:
            self._terminate(worker)
            raise
        finally:
            # Whatever the playbook has left in the background is a part of the job.
            self.group.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(process.GONE)
        return self._judge(worker.returncode)

    def _wait(self, worker: subprocess.Popen[bytes], deadline: float) -> None:
        """Wait until the worker has ended, or raise Stopped."""
        ended = os.pidfd_open(worker.pid)
        with selectors.DefaultSelector() as selector:
            selector.register(ended, selectors.EVENT_READ)
            selector.register(self._heard, selectors.EVENT_READ)
            if self.tied:
                selector.register(0, selectors.EVENT_READ)
            try:
                while True:
                    ready = {key.fd for key, _ in selector.select(self._left(deadline))}
                    if ended in ready:
                        return
                    if self._heard in ready:
                        self._listen(os.read(self._heard, 100))
                    if 0 in ready:
                        raise Stopped("cancelled", "the command that ran it has ended")
                    if time.monotonic() >= deadline:
                        raise Stopped("out of time", f"not done after {self.plan.timeout} s")
            finally:
                os.close(ended)

    @staticmethod
    def _left(deadline: float) -> float:
        """Return for how long to wait: the kernel takes no more than 24 days at once."""
        return min(max(0.0, deadline - time.monotonic()), DAY)

    def _listen(self, said: bytes) -> None:
        if self.lost:
            raise Stopped("failed", f"another controller has the cluster: {self.lost}")
        if not any(said):
            return
        try:
            by = json.loads((self.folder / CANCEL).read_text())["by"]
        except (OSError, ValueError, KeyError):
            raise Stopped(
                "interrupted", "stopped by a signal: the controller is being switched off?"
            ) from None
        raise Stopped("cancelled", f"by {by}")

    def _terminate(self, worker: subprocess.Popen[bytes]) -> None:
        """Ask the processes to end, for a while; the worker writes down what they still say."""
        for pid in self.group.members() - {worker.pid}:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + GRACE
        while time.monotonic() < end and self.group.members():
            time.sleep(0.05)

    # --- after ----------------------------------------------------------------------------------------

    def _judge(self, status: int | None) -> tuple[State, str]:
        """Return what a worker's end means."""
        summary = Summary.of(read(self.folder / "events.jsonl"))
        if summary.rc is None and status == 0 and not self.plan.check:
            self.record.notes.append("its record is incomplete: the disk was full")
            return "done", ""
        if summary.rc is None:
            how = f"signal {-status}" if status and status < 0 else f"status {status}"
            return (
                "failed",
                f"its worker process ended before the playbook did, with {how}; "
                f"see {self.folder}/supervisor.log",
            )
        if summary.rc == 0:
            if self.plan.check and summary.changes:
                return "drift", f"{summary.changes} difference{'s' * (summary.changes > 1)}"
            return "done", ""
        if summary.failed:
            first = summary.failed[0]
            why = " ".join(first.message.split())
            return "failed", f"{first.host}: {first.task}: {why if len(why) <= LINE else f'{why[:LINE]} …'}"
        return "failed", self._last_words()

    def _last_words(self) -> str:
        """Return what ansible-playbook says when no task has failed: the error, or the last line."""
        try:
            text = (self.folder / "output.log").read_text()
        except OSError:
            return "see the log"
        lines = [line for line in text.splitlines() if line.strip()]
        return next(
            (line for line in lines if line.startswith("[ERROR]")), lines[-1] if lines else "no output"
        )

    def _end(self, state: State, message: str) -> None:
        """Leave nothing behind but the record, then let others in."""
        record = self.record
        (self.folder / "ballast").unlink(missing_ok=True)
        self.group.kill()  # also where it came to nothing
        if left := self.group.members():
            record.notes.append(f"could not be ended: processes {', '.join(map(str, sorted(left)))}")
        if self.keeper:
            self.keeper.stop()
        if self.lock:
            self.lock.release()
        record.state, record.message = state, message
        record.exit_status, record.ended = STATUS[state], now()
        if self.began is not None:
            record.duration = round(time.monotonic() - self.began, 1)
        record.summary = Summary.of(read(self.folder / "events.jsonl"))
        record.next = self._next(state)
        from quote_platform.jobs import metrics  # noqa: PLC0415 (the client of Kubernetes takes long to import)

        metrics.of_run(self.store, record)
        self.led.close()
        shutil.rmtree(record.scratch, ignore_errors=True)
        self.store.save(record)
        self.store.prune(self.plan.keep, plan=self.plan)

    def _next(self, state: State) -> list[str]:
        again = f"quote-platform job retry {self.record.id}"
        if state == "done":
            return (
                [self.plan.command("verify")]
                if self.plan.playbook == "site.yml" and not self.plan.check
                else []
            )
        if state == "drift":
            return [self.plan.command("converge")]
        if state in {"refused", "interrupted", "cancelled"}:
            return [again]
        return [f"quote-platform job logs {self.record.id}", again]


def main(job: str, root: str, tied: str) -> None:
    """Run a job that a command has written down."""
    state = Supervisor(Store(Path(root)), job, tied == "tied").run()
    sys.exit(STATUS[state])


if __name__ == "__main__":
    main(*sys.argv[1:])
