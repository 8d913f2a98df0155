"""Commands of `quote-platform job`."""

import json
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from quote_platform.jobs import definition, launch, schedule, view
from quote_platform.jobs.command import Json, Signalled, checkout, raise_signals, sentences
from quote_platform.jobs.definition import Plan, WrongInput
from quote_platform.jobs.record import STATUS, Record, Store

app = typer.Typer(no_args_is_help=True)
timers = typer.Typer(no_args_is_help=True)
app.add_typer(timers, name="schedule", help="Timers of systemd, from jobs.yml.")
console = Console(soft_wrap=True, highlight=False)

Asked = Annotated[
    str, typer.Argument(metavar="NAME|PLAYBOOK", help="A job's name, or a path such as playbooks/verify.yml.")
]
Inventory = Annotated[Path | None, typer.Option("--inventory", "-i", help="Such as inventories/production.")]
Extra = Annotated[
    list[str] | None,
    typer.Option("--extra-vars", "-e", help="NAME=VALUE or @FILE; repeatable. No secrets by value."),
]
Check = Annotated[bool, typer.Option("--check", help="Change nothing; what would change is drift.")]
Limit = Annotated[str, typer.Option("--timeout", help="Stop it after this time, such as 90m.")]
Password = Annotated[
    Path | None, typer.Option("--vault-password-file", help="Opens what ansible-vault has encrypted.")
]
Id = Annotated[
    str, typer.Argument(metavar="JOB", help="As `list` names it, the beginning of that, or latest.")
]
Folder = Annotated[
    Path | None, typer.Option("--unit-directory", help="Where units lie, if not where systemd looks.")
]


def _inventory(given: Path | None) -> Path:
    if given is None:
        raise WrongInput("no inventory: pass -i inventories/NAME")
    return given


def _as_json(record: Record, store: Store | None = None) -> str:
    """Return a record for programs; with a store, with what every task did."""
    found = record.model_dump(mode="json")
    found["summary"].pop("results")
    if store:
        found["results"] = [one.model_dump(mode="json") for one in store.results(record.id)]
    return json.dumps(found, indent=2)


def _wait(store: Store, record: Record, supervisor: Any, as_json: bool) -> None:
    """Wait for a job that is tied to this process, show it, and end with its status."""
    shown = Console(stderr=True, quiet=True) if as_json else console
    shown.print(f"job {record.id}: {record.plan.name} on {record.plan.shown}", markup=False)
    try:
        raise_signals()
        record = launch.begun(store, record, supervisor)
        record = view.follow(
            shown, store.folder(record.id), record, lambda: _looked(store, record, supervisor)
        )
    except Signalled:
        shown.print(f"stopping job {record.id} …")
        record = launch.cancel(store, record)
    _finish(record, as_json, told_already=True)


def _looked(store: Store, record: Record, supervisor: Any) -> Record:
    supervisor.poll()  # so that one that has ended is gone
    return store.look(record.id)


def _finish(record: Record, as_json: bool, told_already: bool = False) -> None:
    if as_json:
        typer.echo(_as_json(record))
    else:
        view.ending(console, record, told_already)
    raise typer.Exit(STATUS[record.state])


def _begin(  # noqa: PLR0917
    store: Store, plan: Plan, variables: dict[str, Any], retry_of: str, background: bool, as_json: bool
) -> None:
    """Start a job and, unless it is to run in the background, wait for it."""
    record, supervisor = launch.launch(store, plan, variables, retry_of, tied=not background)
    if not background:
        _wait(store, record, supervisor, as_json)
    record = launch.begun(store, record, supervisor)
    if record.over:  # it was refused, or was that short
        _finish(record, as_json)
    if as_json:
        typer.echo(_as_json(record))
    else:
        console.print(f"job {record.id} runs: {plan.name} on {plan.shown}", markup=False)
        for command in (f"logs {record.id} --follow", f"cancel {record.id}"):
            console.print(f"next: quote-platform job {command}", markup=False)


def _ask(  # noqa: PLR0917
    asked: str,
    inventory: Path | None,
    extra: list[str] | None,
    check: bool,
    timeout: str,
    password: Path | None,
    background: bool,
    as_json: bool,
) -> None:
    with sentences():
        project = checkout()
        plan, variables = definition.plan(
            asked, project, _inventory(inventory), extra or [], check, timeout, password
        )
        _begin(Store(), plan, variables, "", background, as_json)


@app.command()
def run(  # noqa: PLR0917 (options, not positions)
    asked: Asked,
    inventory: Inventory = None,
    extra: Extra = None,
    check: Check = False,
    timeout: Limit = "",
    password: Password = None,
    as_json: Json = False,
) -> None:
    """Run a job in front; it is cancelled with this command."""
    _ask(asked, inventory, extra, check, timeout, password, False, as_json)


@app.command()
def start(  # noqa: PLR0917
    asked: Asked,
    inventory: Inventory = None,
    extra: Extra = None,
    check: Check = False,
    timeout: Limit = "",
    password: Password = None,
    as_json: Json = False,
) -> None:
    """Start a job in the background; it runs on when this session ends."""
    _ask(asked, inventory, extra, check, timeout, password, True, as_json)


@app.command("list")
def list_(inventory: Inventory = None, as_json: Json = False) -> None:
    """Show all jobs, the newest first."""
    records = Store().all()
    if inventory:
        records = [one for one in records if one.plan.inventory == str(inventory.resolve())]
    if as_json:
        typer.echo(json.dumps([json.loads(_as_json(one)) for one in records], indent=2))
    elif records:
        console.print(view.listing(records))
    else:
        console.print("no jobs yet: quote-platform job run verify -i inventories/NAME", markup=False)


@app.command()
def show(job: Id, as_json: Json = False) -> None:
    """Show one job: what it did, and how it ended."""
    with sentences():
        store = Store()
        record = store.find(job)
    if as_json:
        typer.echo(_as_json(record, store))
        return
    check = " --check" if record.plan.check else ""
    console.print(
        f"{record.plan.playbook}{check}, by {record.owner}, in {store.folder(record.id)}", markup=False
    )
    slow = view.table("seconds", "host", "task")
    for one in sorted(store.results(record.id), key=lambda one: -one.duration)[:10]:
        slow.add_row(f"{one.duration:.1f}", Text(one.host), Text(one.task))
    console.print(slow)
    view.ending(console, record)


@app.command()
def logs(
    job: Id,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job has ended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Events, one a line, for programs.")] = False,
) -> None:
    """Print what Ansible printed."""
    with sentences():
        store = Store()
        record = store.find(job)
        tail = view.Tail(store.folder(record.id) / ("events.jsonl" if as_json else "output.log"))
        try:
            while True:
                over = not follow or record.over
                for line in tail.lines(rest=over):
                    typer.echo(line)
                if over:
                    return
                time.sleep(view.LOOK)
                record = store.look(record.id)
        except KeyboardInterrupt:
            return  # the job goes on


@app.command()
def cancel(job: Id, as_json: Json = False) -> None:
    """Stop a job, and wait until nothing of it is left."""
    with sentences():
        store = Store()
        record = store.find(job)
        if record.over:
            raise WrongInput(f"{record.id}: has ended: {record.state}")
        record = launch.cancel(store, record)
    if as_json:
        typer.echo(_as_json(record))
    else:
        view.ending(console, record)


@app.command()
def retry(
    job: Id,
    background: Annotated[bool, typer.Option("--background", help="As `start` does.")] = False,
    as_json: Json = False,
) -> None:
    """Run a job once more, as it was: same playbook, inventory and variables."""
    with sentences():
        store = Store()
        before = store.find(job)
        if not before.over:
            raise WrongInput(f"{before.id}: still runs; to stop it: quote-platform job cancel {before.id}")
        plan = before.plan
        for what, path in (
            ("checkout", f"{plan.project}/site.yml"),
            ("playbook", f"{plan.project}/{plan.playbook}"),
            ("inventory", plan.inventory),
            *(("file of variables", one) for one in plan.variables_files),
            *([("vault password file", plan.vault_password_file)] if plan.vault_password_file else []),
        ):
            if not Path(path).exists():
                raise WrongInput(f"{before.id}: its {what} is gone: {path}")
        variables = json.loads((store.folder(before.id) / "variables.json").read_text())
        _begin(store, plan, variables, before.id, background, as_json)


@app.command()
def prune(
    keep: Annotated[int, typer.Option(min=0, help="How many records of each job and inventory stay.")] = 50,
    older_than: Annotated[str, typer.Option(help="Remove only those that are older, such as 30d.")] = "",
    as_json: Json = False,
) -> None:
    """Remove records of jobs that have ended."""
    with sentences():
        try:
            seconds = definition.duration(older_than) if older_than else None
        except ValueError as error:
            raise WrongInput(f"--older-than: {error}") from error
        removed = Store().prune(keep, seconds)
    if as_json:
        typer.echo(json.dumps(removed))
    else:
        console.print(f"{len(removed)} records removed", markup=False)


@timers.command("apply")
def apply_timers(inventory: Inventory = None, folder: Folder = None, as_json: Json = False) -> None:
    """Have exactly the timers that jobs.yml names for an inventory."""
    from quote_platform.jobs import metrics  # noqa: PLC0415 (the client of Kubernetes takes long to import)

    with sentences():
        project, where = checkout(), _inventory(inventory)
        if not where.exists():
            raise WrongInput(f"-i {where}: no such inventory")
        jobs = definition.load(project, where)
        units = folder or schedule.units_folder()
        before = {one.job for one in schedule.timers(units, where.resolve())}
        changes = schedule.apply(project, where.resolve(), jobs, units)
        now = {one.job for one in schedule.timers(units, where.resolve())}
        for why in metrics.expect(project, where, now | before):
            typer.echo(f"JobOverdue does not know of these timers: {why}", err=True)
    _changes(changes, units, as_json)


@timers.command("remove")
def remove_timers(inventory: Inventory = None, folder: Folder = None, as_json: Json = False) -> None:
    """Remove the timers of an inventory; a job that runs goes on."""
    with sentences():
        units = folder or schedule.units_folder()
        changes = schedule.remove(_inventory(inventory).resolve(), units)
    _changes(changes, units, as_json)


@timers.command("list")
def list_timers(inventory: Inventory = None, folder: Folder = None, as_json: Json = False) -> None:
    """Show the timers there are, of one inventory or of all."""
    units = folder or schedule.units_folder()
    found = schedule.timers(units, inventory.resolve() if inventory else None)
    if as_json:
        typer.echo(json.dumps([one.model_dump() for one in found], indent=2))
        return
    table = view.table("job", "when", "inventory")
    for one in found:
        table.add_row(one.job, one.calendar, Text(one.inventory))
    console.print(table)
    if schedule.runs_here(units):
        console.print("when they run next: systemctl list-timers 'quote-platform-*'", markup=False)


def _changes(changes: schedule.Changes, units: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(changes.model_dump_json(indent=2))
        return
    for what, names in changes.model_dump().items():
        for name in names:
            console.print(f"{what:<10}{name}", markup=False)
    if not shutil.which("systemd-analyze"):
        console.print("calendar expressions were not checked: there is no systemd-analyze", markup=False)
    if not schedule.runs_here(units):
        console.print(f"systemd was not told: it does not run here, or does not read {units}", markup=False)
