"""Commands of `quote-platform fleet`."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from quote_platform import paths
from quote_platform.fleet import definition, serve, version, view
from quote_platform.fleet.definition import Fleet, Receptor
from quote_platform.fleet.local import Local, Status, status
from quote_platform.fleet.run import Driver, Entry, News, Place, Request, Run, Runs, default
from quote_platform.jobs import process
from quote_platform.jobs.command import Json, Signalled, checkout, raise_signals, sentences
from quote_platform.jobs.definition import WrongInput, parse_extra
from quote_platform.jobs.record import Store

app = typer.Typer(no_args_is_help=True)
console = Console(soft_wrap=True, highlight=False)

File = Annotated[
    Path | None, typer.Option("--fleet", "-f", help="By default inventories/fleet.yml of the checkout.")
]
On = Annotated[
    list[str] | None, typer.Option("--on", help="A group, a cluster, or all; repeatable.", metavar="GROUP")
]


def _load(file: Path | None) -> tuple[Path, Fleet]:
    """Return the checkout and its fleet."""
    project = checkout()
    return project, definition.load(project, file or default())


def _entries(fleet: Fleet, on: list[str] | None, at_once: int) -> list[Entry]:
    if not on:
        raise WrongInput("no clusters: pass --on GROUP, --on CLUSTER or --on all")
    return [
        Entry(cluster=name, of=fleet.clusters[name], wave=number)
        for number, names in enumerate(fleet.waves(fleet.on(on), at_once), 1)
        for name in names
    ]


def _judge(project: Path, entries: list[Entry], request: Request) -> None:
    """Raise WrongInput if the job cannot be had on one of the clusters."""
    _, files = parse_extra(request.extra, project)
    away = [one.cluster for one in entries if one.of.node != definition.LOCAL]
    if files and away:
        raise WrongInput(
            f"-e @FILE: files of this controller are not sent to the nodes of {', '.join(away)}; "
            "name one that is there in variables_files of jobs.yml"
        )
    wrong: dict[str, list[str]] = {}
    for one in entries:
        if one.of.node != definition.LOCAL:
            continue
        try:
            Local(project, one.of.inventory, request, "").plan()
        except WrongInput as error:
            wrong.setdefault(str(error), []).append(one.cluster)
    if wrong:
        raise WrongInput(
            "\n".join([*(f"{', '.join(on)}: {why}" for why, on in wrong.items()), "nothing was started."])
        )


def _drive(project: Path, runs: Runs, run: Run, mesh: Receptor | None, as_json: bool) -> None:
    """Work on a run, show it, and end with its status."""
    mine = version.of(project) if mesh else None

    def place(entry: Entry) -> Place:
        if entry.of.node != definition.LOCAL and mesh and mine:
            from quote_platform.fleet.mesh import Remote  # noqa: PLC0415 (only where there are nodes)

            return Remote(mesh, mine, run.request, run.origin(entry), entry)
        return Local(project, entry.of.inventory, run.request, run.origin(entry))

    shown = Console(stderr=True, quiet=True) if as_json else console
    view.say(shown, f"run {run.id}: {run.request.job} on {len(run.entries)} clusters")
    raise_signals()
    with view.Progress(shown, run) as progress:
        driver = Driver(run, runs.save, place, progress.show)
        try:
            driver.drive()
        except Signalled:
            driver.cancel()
    if driver.unsaved:
        typer.echo(f"the record of {run.id} is not as the run has ended: {driver.unsaved}", err=True)
    if as_json:
        typer.echo(_as_json(run))
    else:
        view.ending(console, run)
    raise typer.Exit(run.exit_status)


def _as_json(run: Run) -> str:
    found = run.model_dump(mode="json", exclude={"driver"})
    return json.dumps(found | {"exit_status": run.exit_status, "next": view.following(run)}, indent=2)


@app.command()
def run(  # noqa: PLR0917 (options, not positions)
    job: Annotated[
        str, typer.Argument(metavar="NAME|PLAYBOOK", help="As `quote-platform job run` takes it.")
    ],
    on: On = None,
    at_once: Annotated[int, typer.Option(min=1, help="How many clusters are in one wave.")] = 1,
    stop_after: Annotated[int, typer.Option(min=1, help="Start no more after so many failures.")] = 1,
    extra: Annotated[
        list[str] | None, typer.Option("--extra-vars", "-e", help="NAME=VALUE or @FILE; repeatable.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; what would change is drift.")
    ] = False,
    timeout: Annotated[str, typer.Option(help="Stop each job after this time, such as 90m.")] = "",
    file: File = None,
    as_json: Json = False,
) -> None:
    """Run a job on many clusters, canaries first; its jobs are cancelled with this command."""
    with sentences():
        project, fleet = _load(file)
        given = [
            f"@{Path(one[1:]).expanduser().resolve()}" if one.startswith("@") else one for one in extra or []
        ]
        request = Request(job=job, extra=given, check=check, timeout=timeout)
        entries = _entries(fleet, on, at_once)
        _judge(project, entries, request)
        runs = Runs()
        made = runs.create(request, entries, at_once, stop_after, fleet.receptor)
        _drive(project, runs, made, fleet.receptor, as_json)


@app.command()
def resume(
    asked: Annotated[
        str, typer.Argument(metavar="RUN", help="As `fleet run` named it, or latest.")
    ] = "latest",
    as_json: Json = False,
) -> None:
    """Go on with a run that was killed or has stopped: find what its jobs came to, start those that wait."""
    with sentences():
        runs = Runs()
        found = runs.find(asked)
        if found.driven:
            raise WrongInput(f"{found.id}: process {found.driver.pid} works on it")
        again = {"not started", "lost"}
        left = [one for one in found.entries if not one.news.over or one.news.state in again]
        if not left:
            raise WrongInput(f"{found.id}: has ended on all of its clusters")
        for one in left:
            if one.news.state in again:
                one.news = News()
        if found.ended and found.bad >= found.stop_after:
            # Whoever goes on has seen these failures.
            found.stop_after = found.bad + found.stop_after
        found.driver, found.ended = process.identity(os.getpid()), None
        runs.save(found)
        _drive(checkout(), runs, found, found.receptor, as_json)


@app.command("status")
def status_(on: On = None, file: File = None, as_json: Json = False) -> None:
    """Show for each cluster the version of its checkout, and the last job of each name."""
    with sentences():
        project, fleet = _load(file)
        entries = _entries(fleet, on or [definition.ALL], 1)
    store, here, now = Store(), version.of(project), time.time()
    known = {
        one.cluster: status(store, project, one.of.inventory, str(here), now)
        for one in entries
        if one.of.node == definition.LOCAL
    }
    if fleet.receptor and len(known) < len(entries):
        from quote_platform.fleet import mesh  # noqa: PLC0415 (only where there are nodes)

        known |= mesh.statuses(fleet.receptor, here, [one for one in entries if one.cluster not in known])
    found = [(one, known[one.cluster]) for one in entries]
    if as_json:
        typer.echo(json.dumps([_status(*one) for one in found], indent=2))
    else:
        console.print(view.statuses(found))


def _status(entry: Entry, known: Status) -> dict[str, Any]:
    return {
        "cluster": entry.cluster,
        "groups": entry.of.groups,
        "node": entry.of.node,
        "inventory": entry.of.inventory,
        "verify": known.jobs["verify"].model_dump(mode="json") if "verify" in known.jobs else None,
        **known.model_dump(mode="json"),
    }


@app.command("serve", hidden=True)
def serve_() -> None:
    """Answer a controller; receptor on an execution node starts this."""
    serve.main(paths.repository(), sys.stdin.read())
