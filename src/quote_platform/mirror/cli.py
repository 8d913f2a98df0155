"""Commands of `quote-platform mirror`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from quote_platform.mirror import align as aligning
from quote_platform.mirror import availability
from quote_platform.mirror import catalogue as cat
from quote_platform.mirror import fill as filling
from quote_platform.mirror.progress import Work, shown
from quote_platform.mirror.source import Source
from quote_platform.mirror.storage import MirrorError, root

app = typer.Typer(no_args_is_help=True)
console = Console(soft_wrap=True, highlight=False)


@app.command()
def fill(
    provider: Annotated[
        filling.Provider, typer.Option(help="auto: upstream where it can be reached, else source.")
    ] = filling.Provider.AUTO,
    part: Annotated[
        list[cat.Part] | None,
        typer.Option(
            help="Only what this part of the platform needs; repeatable. All but delivery without it."
        ),
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only artifacts with this in their name.")] = None,
    kubernetes: Annotated[
        str, typer.Option(help="Only what carries the number of this version, beside the pinned one.")
    ] = "",
    jobs: Annotated[int, typer.Option(min=1, help="Artifacts at the same time.")] = 2,
) -> None:
    """Bring the mirror to what lab/mirror/catalogue.yml says; can be stopped and run again at any point."""
    work = Work()
    try:
        with shown(work, console):
            report = filling.fill(
                provider,
                only or [],
                jobs,
                lambda text: console.print(text, markup=False),
                parts=part or cat.USUAL,
                kubernetes=kubernetes,
                work=work,
            )
    except MirrorError as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from error
    for entry in report.unavailable:
        console.print(f"not in this mirror: {entry.name}: {entry.reason}", style="yellow", markup=False)
    console.print(f"{len(report.ready)} artifacts are there; it took {work.whole}", markup=False)
    if report.failed:
        console.print(
            f"{len(report.failed)} artifacts failed: run `quote-platform mirror fill` again", style="red"
        )
        raise typer.Exit(1)


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Show what the mirror holds, and what it lacks."""
    catalogue = cat.load()
    lacking = {entry.name: entry.reason for entry in availability.unavailable()}
    rows = []
    for one in filling.artifacts(catalogue, Source(catalogue, lambda _: None)):
        row = {"kind": one.kind, "name": one.name, "version": one.version, "state": one.state()}
        row["part"] = ", ".join(one.parts)
        row["origin"] = one.held().get("origin", "")
        if row["state"] == "missing" and one.component in lacking:
            row |= {"state": "unavailable", "reason": lacking[one.component]}
        rows.append(row)
    if as_json:
        typer.echo(json.dumps({"root": str(root()), "artifacts": rows}, indent=2))
        return
    table = Table("kind", "name", "version", "part", "state", "from", title=f"Mirror in {root()}")
    for row in rows:
        name = Path(row["name"]).name if "://" in row["name"] else row["name"]
        origin = row["origin"] or row.get("reason", "")
        table.add_row(row["kind"], name, row["version"], row["part"], row["state"], origin)
    console.print(table)


@app.command()
def verify() -> None:
    """Recompute the checksum of everything that is served."""
    wrong = filling.verify()
    for line in wrong:
        console.print(line, style="red", markup=False)
    if wrong:
        console.print("delete the mirror's folder and run `quote-platform mirror fill`", style="red")
        raise typer.Exit(1)
    console.print("every checksum holds")


@app.command()
def align() -> None:
    """Bring the recipes to the same versions of what they share, after one of them has changed."""
    try:
        aligning.align(Source(cat.load(), console.print), lambda text: console.print(text, markup=False))
    except MirrorError as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from error


@app.command()
def settle() -> None:
    """Wait until caches of Go that a fill has emptied are off the disk."""
    filling.settle()


@app.command()
def prune(
    limit: Annotated[
        float, typer.Option(help="Empty each of Go's caches above this size, in GB.")
    ] = filling.CACHE_GB,
) -> None:
    """Delete artifacts that no recipe names any more, and Go's caches when they are large."""
    for path in filling.prune(limit):
        console.print(f"deleted {path}", markup=False)
