"""Jobs of clusters that an execution node reaches, asked for over receptor, by TLS and with signed work."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Any

from receptorctl import ReceptorControl

from quote_platform.fleet.definition import Receptor
from quote_platform.fleet.local import Status
from quote_platform.fleet.run import Entry, News, Request
from quote_platform.fleet.serve import Answer, Ask, parse
from quote_platform.fleet.version import Version
from quote_platform.jobs import process
from quote_platform.jobs.record import STATUS
from quote_platform.jobs.supervisor import GRACE

# Seconds without a word from a node after which its job is lost; it says something every five.
LOST = 45.0
# Seconds within which a node has to begin with what it was asked; later it does not any more.
BEGIN = "30s"
# Seconds for the answer to a question that takes none.
ANSWER = 30.0
# Seconds that a job may take to be cancelled.
CANCEL = GRACE + process.GONE + 60
# What receptor calls the state of work that has ended: succeeded, failed, cancelled.
ENDED = (2, 3, 4)
# What can go wrong between us and the controller's receptor.
ERRORS = (OSError, RuntimeError, ValueError)


class Unheard(Exception):
    """A node does not answer; the text says why, as far as that is known."""


class Work:
    """A question to a node, and the lines of its answer."""

    def __init__(self, mesh: Receptor, node: str, ask: Ask) -> None:
        self.mesh, self.node, self.ask = mesh, node, ask
        self.unit = ""
        self.why = ""
        self._position = 0
        self._stopped = False

    def _control(self) -> Any:
        return ReceptorControl(f"unix:{self.mesh.socket}")

    def answers(self) -> Iterator[Answer]:
        """Yield what the node answers until that ends; raise Unheard if it is cut off."""
        try:
            self.unit = self._control().submit_work(
                self.mesh.work_type,
                self.ask.model_dump_json(),
                node=self.node,
                tlsclient=self.mesh.tls_client,
                ttl=BEGIN,
                signwork=True,
            )["unitid"]
        except OSError as error:
            raise Unheard(f"{self.mesh.socket}: {error.strerror or error}") from error
        except ERRORS as error:
            raise Unheard(str(error)) from error
        while not self._stopped:
            with contextlib.suppress(*ERRORS):
                lines = self._control().get_work_results(self.unit, startpos=self._position)
                with contextlib.closing(lines):
                    yield from self._read(lines)
            if self._ended():
                return
            time.sleep(1)

    def _read(self, lines: IO[bytes]) -> Iterator[Answer]:
        for line in lines:
            if not line.endswith(b"\n"):
                return  # cut off; it comes again
            self._position += len(line)
            if answer := parse(line):
                yield answer

    def _ended(self) -> bool:
        """Return whether the work has ended and all of its answer was read; its end stays in `why`."""
        control = self._control()
        try:
            known = control.simple_command(f"work status {self.unit}")
        except ERRORS as error:
            self.why = str(error)
            return False
        finally:
            control.close()
        self.why = str(known.get("Detail", ""))
        # A failed one may have said nothing, so its size is not known on this side.
        return known.get("State") in ENDED and known.get("StdoutSize", 0) <= self._position

    def release(self, unit: str = "") -> None:
        """Have receptor forget the work; on a node that is away it does that when the node is back."""
        self._stopped = True
        if name := unit or self.unit:
            # It tries for some seconds to reach the node, for which nobody waits.
            threading.Thread(target=self._release, args=[name]).start()

    def _release(self, unit: str) -> None:
        control = self._control()
        with contextlib.suppress(*ERRORS):
            control.simple_command(f"work release {unit}")
        control.close()


class Remote:
    """The job of a cluster, on an execution node."""

    def __init__(self, mesh: Receptor, version: Version, request: Request, origin: str, entry: Entry) -> None:
        self.mesh, self.entry = mesh, entry
        self.ask = Ask(
            do="run", version=version, origin=origin, inventories=[entry.of.inventory], request=request
        )
        self.work = Work(mesh, entry.of.node, self.ask)
        self.news, self.heard = News(state="starting"), time.monotonic()

    def start(self) -> News:
        """Ask for the job; the node starts it unless it has started it before for the same run."""
        before = self.entry.unit
        self.heard = time.monotonic()
        threading.Thread(target=self._listen, args=[before], daemon=True).start()
        return self.news

    def _listen(self, before: str) -> None:
        if before:  # that of a process that was killed
            Work(self.mesh, self.entry.of.node, self.ask).release(before)
        try:
            for answer in self.work.answers():
                self.news, self.heard = answer.news, time.monotonic()
            why = self.work.why
        except Unheard as error:
            why = str(error)
        if not self.news.over:
            self.news = self._lost(why)

    def _lost(self, why: str) -> News:
        return self.news.model_copy(
            update={
                "state": "lost",
                "exit_status": STATUS["failed"],
                "message": f"node {self.entry.of.node}: {why or 'no answer'}",
            }
        )

    def look(self) -> News:
        """Return what the node has said last, or that it says nothing any more."""
        if not self.news.over and time.monotonic() - self.heard > LOST:
            why = f": {self.work.why}" if self.work.why else ""
            self.news = self._lost(f"no word for {LOST:.0f} s{why}")
        self.entry.unit = self.work.unit
        if self.news.over:
            self.work.release()
            self.entry.unit = ""
        return self.news

    def cancel(self) -> News:
        """Have the node stop the job."""
        ask = self.ask.model_copy(update={"do": "cancel"})
        try:
            self.news = one_answer(self.mesh, self.entry.of.node, ask, CANCEL).news
        except Unheard as error:
            self.news = self._lost(f"not cancelled: {error}")
        self.work.release()
        self.entry.unit = ""
        return self.news


def one_answer(mesh: Receptor, node: str, ask: Ask, seconds: float) -> Answer:
    """Return the last line of a node's answer, or raise Unheard after so many seconds."""
    work, found = Work(mesh, node, ask), list[Answer]()

    def listen() -> None:
        try:
            found.extend(work.answers())
        except Unheard as error:
            work.why = str(error)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    thread.join(seconds)
    late = thread.is_alive()
    work.release()
    if not found:
        raise Unheard(f"no answer for {seconds:.0f} s" if late else work.why or "no answer")
    return found[-1]


def statuses(mesh: Receptor, version: Version, entries: list[Entry]) -> dict[str, Status]:
    """Return what nodes know of clusters, by their names; all nodes are asked at once."""
    found: dict[str, Status] = {}
    nodes: dict[str, list[Entry]] = {}
    for one in entries:
        nodes.setdefault(one.of.node, []).append(one)

    def asker(node: str, of: list[Entry]) -> Callable[[], None]:
        def asking() -> None:
            ask = Ask(do="status", version=version, inventories=[one.of.inventory for one in of])
            try:
                answer = one_answer(mesh, node, ask, ANSWER)
                why = answer.news.message
            except Unheard as error:
                answer, why = Answer(), str(error)
            for one in of:
                nothing = Status(message=f"node {node}: {why or 'no answer'}", same=False)
                found[one.cluster] = answer.statuses.get(one.of.inventory, nothing)

        return asking

    threads = [threading.Thread(target=asker(node, of), daemon=True) for node, of in nodes.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
