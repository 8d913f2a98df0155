"""What a person sees of a job: a short live view on a terminal, lines elsewhere, and how it ended."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from quote_platform.jobs.events import RECAP, Result, Summary
from quote_platform.jobs.record import Record, State

STYLE: dict[State, str] = {
    "starting": "cyan",
    "running": "cyan",
    "done": "green",
    "failed": "bold red",
    "drift": "yellow",
    "refused": "bold red",
    "cancelled": "yellow",
    "out of time": "bold red",
    "interrupted": "bold red",
}
# Seconds between two looks at what is new.
LOOK = 0.1


def took(seconds: float) -> str:
    """Return a duration as people say it."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Tail:
    """What is written to a file after it was last looked at, in whole lines."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._at = 0

    def lines(self, rest: bool = False) -> Iterator[str]:
        """Yield new lines; with `rest`, also a last one that has no end."""
        try:
            with self.file.open("rb") as opened:
                opened.seek(self._at)
                content = opened.read()
        except FileNotFoundError:
            return
        whole = content if rest else content[: content.rfind(b"\n") + 1]
        self._at += len(whole)
        yield from whole.decode(errors="replace").splitlines()


def told(result: Result) -> str:
    """Return a line about a result that is worth one, or nothing."""
    what = f"{result.host}  {result.task}"
    if result.status in {"failed", "unreachable", "ignored"}:
        return f"{result.status}  {what}: {result.message}"
    if result.changed:
        return f"changed  {what}{': ' if result.objects else ''}{', '.join(result.objects)}"
    return result.message


class Progress:
    """Shows a job while it runs."""

    def __init__(self, console: Console, record: Record) -> None:
        self.console, self.record = console, record
        self.summary = Summary()
        self.live = console.is_terminal

    def take(self, line: dict[str, Any]) -> None:
        """Take one more event in, and say what is worth a line."""
        result = self.summary.add(line)
        if result:
            text = told(result)
            # On a terminal changes are counted, and drift is listed in the end.
            if text and not (self.live and result.changed):
                self.say(text, "red" if result.status in {"failed", "unreachable"} else "")
        elif not self.live and line["event"] in {"play", "task"}:
            self.say(f"{line['event']}  {line[line['event']]}")

    def say(self, text: str, style: str = "") -> None:
        """Print one line, with the time where lines are all there is."""
        stamp = "" if self.live else f"{datetime.now(UTC):%H:%M:%S}  "
        self.console.print(
            f"{stamp}{text}", style=style or None, markup=False, highlight=False, soft_wrap=True
        )

    def panel(self) -> Group:
        """Return the live view."""
        plan, now = self.record.plan, self.summary
        rows = Table.grid(padding=(0, 2))
        hosts = f"{len(now.hosts)}" + (f", now on {', '.join(now.busy[:5])}" if now.busy else "")
        done = max(now.plays - 1, 0)
        for name, value in (
            ("play", f"{now.play or 'reading the playbook'} ({done} done)"),
            ("task", now.task),
            ("hosts", hosts),
            ("changed", str(now.changes)),
            ("failed", str(now.failures)),
        ):
            rows.add_row(Text(name, style="dim"), Text(value, overflow="ellipsis", no_wrap=True))
        check = " --check" if plan.check else ""
        title = f"{plan.name}: {plan.playbook}{check} on {plan.shown}, {took(self.record.seconds)}"
        return Group(Text(title, style="bold"), rows)


def follow(console: Console, folder: Path, record: Record, look: Callable[[], Record]) -> Record:
    """Show a job until it has ended; return its record."""
    progress, tail = Progress(console, record), Tail(folder / "events.jsonl")

    def news(rest: bool = False) -> None:
        for line in tail.lines(rest):
            event = _event(line)
            if event:
                progress.take(event)

    live = Live(get_renderable=progress.panel, console=console, refresh_per_second=4, transient=True)
    if progress.live:
        live.start()
    try:
        while not progress.record.over:
            news()
            time.sleep(LOOK)
            progress.record = look()
        news(rest=True)
    finally:
        if progress.live:
            live.stop()
    return progress.record


def _event(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "event" in found else None


def ending(console: Console, record: Record, told_already: bool = False) -> None:
    """Print how a job ended: the recap as by hand, what was found, the next command.

    Failures are left out if they have been told already, while the job ran.
    """
    summary = record.summary
    if summary.recap:
        recap = table("host", *RECAP.values())
        for host, counts in summary.recap.items():
            recap.add_row(Text(host), *(str(counts[name]) for name in RECAP.values()))
        console.print(recap)
    if record.state == "drift":
        for one in summary.changed:
            _line(console, told(one).replace("changed", "drift", 1))
    for one in [] if told_already else summary.failed:
        _line(console, told(one), "red")
    for note in record.notes:
        _line(console, f"note: {note}", "dim")
    what = f"{record.plan.name} on {record.plan.shown}: {record.state}"
    after = f" after {took(record.seconds)}" if record.started else ""
    listed = summary.failed and not told_already
    reason = f": {record.message}" if record.message and not listed else ""
    _line(console, f"{what}{after}{reason} (job {record.id})", STYLE[record.state])
    for command in record.next:
        _line(console, f"next: {command}")


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style or None, markup=False, highlight=False, soft_wrap=True)


def table(*names: str) -> Table:
    """Return a table without lines, which fits on a narrow terminal; the last column takes what is left."""
    made = Table(box=None, header_style="bold", padding=(0, 1), pad_edge=False)
    for name in names[:-1]:
        made.add_column(name, no_wrap=True)
    made.add_column(names[-1], overflow="fold")
    return made


def listing(records: list[Record]) -> Table:
    """Return a table of jobs."""
    found = table("job", "state", "started", "took", "what")
    for one in records:
        started = f"{one.started:%m-%d %H:%MZ}" if one.started else ""
        state = Text(one.state, style=STYLE[one.state])
        what = Text(f"{one.plan.name} on {one.plan.shown}")
        found.add_row(one.id, state, started, took(one.seconds) if one.started else "", what)
    return found
