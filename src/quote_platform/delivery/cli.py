"""Commands of `quote-platform pins`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from quote_platform.delivery import DeliveryError, signature
from quote_platform.delivery.pins import Pins, Row, Signatures, State, Within
from quote_platform.delivery.settings import settings, versions_file
from quote_platform.delivery.versions import Versions

pins = typer.Typer(no_args_is_help=True)
console = Console(soft_wrap=True, highlight=False)
DIFFERS, UNKNOWN = 1, 2

Inventory = Annotated[
    Path | None,
    typer.Option("-i", "--inventory", help="Inventory, whose mirror, authorities and accounts count."),
]
Mirror = Annotated[str, typer.Option(help="URL of a registry that has all images under their whole names.")]
Manifests = Annotated[str, typer.Option(help="URL below which all manifests lie by their path.")]
Authority = Annotated[Path | None, typer.Option(help="File of certificates to trust beside the system's.")]
Only = Annotated[list[str] | None, typer.Option(help="Only variables with this in their name; repeatable.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@contextmanager
def told() -> Iterator[None]:
    """Say what is wrong in one sentence, and end with status 2; shared by all commands of delivery."""
    try:
        yield
    except DeliveryError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(str(error), style="red", markup=False)
        raise typer.Exit(UNKNOWN) from error


@pins.command()
def check(
    *,
    inventory: Inventory = None,
    mirror: Mirror = "",
    manifests: Manifests = "",
    authority: Authority = None,
    within: Annotated[
        Within,
        typer.Option(help="Newer tags to look for: none, of the same minor, of the same major version."),
    ] = Within.MINOR,
    only: Only = None,
    signatures: Annotated[bool, typer.Option("--signatures", help="Also tell which are signed.")] = False,
    key: Annotated[
        Path | None, typer.Option(help="Public key (PEM) to check signatures with; implies --signatures.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare versions.yml with what registries and publishers have.

    Exit status: 0 nothing differs, 1 something does, 2 something could not be looked up.
    """
    with told():
        given = settings(inventory, mirror, manifests, authority)
        judge = Signatures(signature.public_key(key) if key else None) if signatures or key else None
        looked = Pins(Versions(versions_file()), given.access, given.manifest_base_url, judge)
        rows = looked.check(within, only or [])
    _show(rows, as_json, judge is not None)
    if any(row.state is State.UNREACHABLE for row in rows):
        raise typer.Exit(UNKNOWN)
    if any(row.differs for row in rows):
        raise typer.Exit(DIFFERS)


@pins.command()
def update(
    *,
    inventory: Inventory = None,
    mirror: Mirror = "",
    manifests: Manifests = "",
    authority: Authority = None,
    within: Annotated[
        Within, typer.Option(help="digest: pin the tags that are there; patch or minor: take newer ones.")
    ] = Within.DIGEST,
    only: Only = None,
    as_json: AsJson = False,
) -> None:
    """Write digests, and newer tags if asked for, into versions.yml; the rest of it stays as it is.

    A tag that has moved since it was pinned is left, unless --only names its variable.
    Exit status: 0 all is pinned, 1 something is left, 2 something could not be looked up.
    """
    with told():
        given = settings(inventory, mirror, manifests, authority)
        looked = Pins(Versions(versions_file()), given.access, given.manifest_base_url)
        rows, written = looked.update(within, only or [])
    if as_json:
        typer.echo(json.dumps({"written": written, "pins": [row.data() for row in rows]}, indent=2))
    else:
        for name, text in written.items():
            console.print(f"{name}: {text}", markup=False)
        console.print(f"{len(written)} pins were written", markup=False)
    left = [
        row
        for row in rows
        if row.variable not in written and row.state not in (State.SAME, State.UNREACHABLE)
    ]
    for row in left:
        console.print(f"left: {row.variable}: {row.pinned}: {row.state}", style="yellow", markup=False)
    if any(row.state is State.UNREACHABLE for row in rows):
        raise typer.Exit(UNKNOWN)
    if left:
        raise typer.Exit(DIFFERS)


def _show(rows: list[Row], as_json: bool, signatures: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"pins": [row.data() for row in rows]}, indent=2))
        return
    table = Table(title="Pins of group_vars/all/versions.yml")
    for name in ("variable", "pinned", "state", "newer", "note", *(["signed"] if signatures else [])):
        table.add_column(name, overflow="fold")
    for row in rows:
        if row.differs or signatures:
            cells = [row.variable, row.pinned, row.state, row.newer, row.note]
            table.add_row(*cells, *([row.signed] if signatures else []))
    if table.row_count:
        console.print(table)
    same = sum(not row.differs for row in rows)
    console.print(
        f"{same} of {len(rows)} pins are as their registries and publishers have them", markup=False
    )
