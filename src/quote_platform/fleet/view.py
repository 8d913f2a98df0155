"""What a person sees of a fleet: a table while a run goes on, or lines without a terminal; how it ended."""

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from quote_platform.fleet.definition import LOCAL
from quote_platform.fleet.local import Judged, Last, Status
from quote_platform.fleet.run import Entry, Run, State
from quote_platform.jobs.record import now
from quote_platform.jobs.view import STYLE as OF_JOBS
from quote_platform.jobs.view import table, took
from quote_platform.verify.report import BACKUPS, CERTIFICATES

STYLE: dict[str, str] = {"waiting": "dim", "not started": "yellow", "lost": "bold red"} | {
    str(state): style for state, style in OF_JOBS.items()
}
# Jobs that have columns of their own.
COLUMNS = ("verify", "drift")
# Where these differ, a line is worth printing.
Shown = tuple[State, str]


class Progress:
    """Shows a run while it goes on."""

    def __init__(self, console: Console, run: Run) -> None:
        self.console, self.run = console, run
        self.seen: dict[str, Shown] = {one.cluster: ("waiting", "") for one in run.entries}
        self.live = Live(
            get_renderable=lambda: rows(run), console=console, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> "Progress":
        """Begin."""
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was."""
        if self.console.is_terminal:
            self.live.stop()

    def show(self) -> None:
        """Print what has changed, unless the table shows it."""
        if self.console.is_terminal:
            return
        for one in self.run.entries:
            shown = (one.news.state, one.news.job)
            if shown != self.seen[one.cluster] and one.news.state != "starting":
                self.seen[one.cluster] = shown
                job = f" (job {one.news.job})" if one.news.job else ""
                say(self.console, f"{one.cluster}: {one.news.state}{job}", STYLE[one.news.state])


def say(console: Console, text: str, style: str = "") -> None:
    """Print one line as it is."""
    console.print(text, style=style or None, markup=False, highlight=False, soft_wrap=True)


def rows(run: Run) -> Table:
    """Return a run as a table."""
    made = table("cluster", "wave", "node", "state", "changed", "failed", "took", "what")
    for one in run.entries:
        news = one.news
        counts = [str(news.changed), str(news.failed), took(news.seconds)] if news.job else ["", "", ""]
        made.add_row(
            Text(one.cluster),
            str(one.wave),
            Text(one.of.node),
            Text(news.state, style=STYLE[news.state]),
            *counts,
            Text(news.message or news.task),
        )
    return made


def ending(console: Console, run: Run) -> None:
    """Print how a run ended: the table, what failed or drifted, the next command."""
    console.print(rows(run))
    for one in run.entries:
        for text in one.news.found:
            say(console, f"{one.cluster}: {text}", STYLE[one.news.state])
    counts: dict[State, int] = {}
    for one in run.entries:
        counts[one.news.state] = counts.get(one.news.state, 0) + 1
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    say(console, f"{run.request.job} on {len(run.entries)} clusters: {states} (run {run.id})")
    for command in following(run):
        say(console, f"next: {command}")


def following(run: Run) -> list[str]:
    """Return the commands that go on from a run's end."""
    found = [
        f"quote-platform job logs {one.news.job}" + (f"  # on {one.of.node}" if one.of.node != LOCAL else "")
        for one in run.entries
        if one.news.bad and one.news.job
    ]
    if any(one.news.state in {"not started", "lost"} for one in run.entries):
        found.append(f"quote-platform fleet resume {run.id}")
    return found


def statuses(found: list[tuple[Entry, Status]]) -> Table:
    """Return what is known of each cluster."""
    made = table("cluster", "node", "version", "verify", "drift", "backups", "certificates", "other jobs")
    for entry, status in found:
        jobs = Text(status.message, style="bold red")
        others = sorted(status.jobs.keys() - set(COLUMNS))
        for index, name in enumerate(others):
            jobs.append(f"{', ' if index else ''}{name} ")
            jobs.append_text(_last(status.jobs[name]))
        never = Text("never" if not status.message else "")
        made.add_row(
            Text(entry.cluster),
            Text(entry.of.node),
            Text(status.version, style="" if status.same else "bold red"),
            *(_last(status.jobs[name]) if name in status.jobs else never for name in COLUMNS),
            backups(status.checks),
            certificates(status.checks),
            jobs,
        )
    return made


def backups(checks: dict[str, Judged]) -> Text:
    """Return which kinds of backup are missing, else the age of the oldest of the newest ones."""
    found = {name: one for name, one in checks.items() if name in BACKUPS}
    if missing := [name for name, one in found.items() if one.status == "failed"]:
        return Text(f"{', '.join(missing)} failed", style="bold red")
    moments = [one.moment for one in found.values() if one.moment]
    return Text(f"{ago((now() - min(moments)).total_seconds())} ago" if moments else "")


def certificates(checks: dict[str, Judged]) -> Text:
    """Return when the first certificate ends."""
    found = checks.get(CERTIFICATES)
    if not found or not found.moment:
        return Text("")
    return Text(f"until {found.moment:%Y-%m-%d}", style="bold red" if found.status == "failed" else "")


def _last(last: Last) -> Text:
    return Text.assemble((last.state, STYLE.get(last.state, "")), f" {ago(last.age)} ago")


def ago(seconds: float) -> str:
    """Return an age as people say it."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
