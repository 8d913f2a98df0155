"""Commands of `quote-platform lab`."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from quote_platform import machine
from quote_platform.lab import access, application, drivers, lifecycle
from quote_platform.lab.errors import LabError
from quote_platform.lab.model import Driver, Lab, System, Unkind
from quote_platform.mirror import fill as filling
from quote_platform.mirror.catalogue import USUAL, Part
from quote_platform.mirror.storage import MirrorError

app = typer.Typer(no_args_is_help=True)
console = Console(soft_wrap=True, highlight=False)
Name = Annotated[str, typer.Option(help="Name of the lab.")]


@contextmanager
def _sentences() -> Iterator[None]:
    """Turn what a lab refuses into a sentence and a status."""
    try:
        yield
    except ValidationError as error:
        for one in error.errors():
            console.print(
                f"{'.'.join(map(str, one['loc'])) or 'lab'}: {one['msg']}", style="red", markup=False
            )
        raise typer.Exit(1) from error
    except (LabError, MirrorError, machine.Unfit) as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from error


@app.command()
def up(  # noqa: PLR0917 (options, not positions)
    name: Annotated[
        str | None, typer.Option(help="Name of the lab: lab; of one of virtual machines: vm.")
    ] = None,
    subnet: Annotated[
        str, typer.Option(help="A private network of at least 256 addresses.")
    ] = "10.89.42.0/24",
    control_planes: Annotated[int, typer.Option(help="1 or 3.")] = 1,
    workers: Annotated[int, typer.Option(help="At least 1, unless the control plane takes pods.")] = 3,
    stores: Annotated[int, typer.Option(help="0 or 1 machine for the object store.")] = 1,
    vaults: Annotated[int, typer.Option(help="0, 1 or 3 machines for Vault.")] = 1,
    control_plane_cpus: float = 2,
    control_plane_memory: Annotated[str, typer.Option(help="Such as 4g or 3500m.")] = "4g",
    worker_cpus: float = 4,
    worker_memory: Annotated[str, typer.Option(help="Such as 8g or 3500m.")] = "8g",
    acme: Annotated[bool, typer.Option(help="Have an ACME server, which signs the certificates.")] = True,
    logs: Annotated[bool, typer.Option(help="Have a store of logs, which are collected then.")] = True,
    virtual_ip: Annotated[
        bool, typer.Option(help="Reach the API server at an address of its own, as with 3 control planes.")
    ] = False,
    unkind: Annotated[
        list[Unkind] | None,
        typer.Option(help="What the place is to have of those that are not ours; repeatable."),
    ] = None,
    hostile: Annotated[bool, typer.Option("--hostile", help="All of it.")] = False,
    driver: Annotated[
        Driver, typer.Option(help="What runs the nodes: containers by podman, or virtual machines by QEMU.")
    ] = Driver.PODMAN,
    system: Annotated[
        System | None, typer.Option(help="What nodes run; virtual machines Ubuntu, unless they are told.")
    ] = None,
    components: Annotated[
        list[Part] | None,
        typer.Option(help="Only these, and always the core; repeatable. All but delivery without it."),
    ] = None,
) -> None:
    """Start a lab, or what is missing of it, and write its inventory."""
    with _sentences():
        name = name or {Driver.PODMAN: "lab", Driver.QEMU: "vm"}[driver]
        lab = Lab(
            name=name,
            subnet=subnet,
            control_planes=control_planes,
            workers=workers,
            stores=stores,
            vaults=vaults,
            control_plane_cpus=control_plane_cpus,
            control_plane_memory=control_plane_memory,
            worker_cpus=worker_cpus,
            worker_memory=worker_memory,
            acme=acme,
            logs=logs,
            virtual_ip=virtual_ip,
            unkind=frozenset(Unkind if hostile else unkind or []),
            driver=driver,
            system=system or {Driver.PODMAN: System.DEBIAN, Driver.QEMU: System.UBUNTU}[driver],
            components=frozenset(components or USUAL),
        )
        machine.check(
            machine.read(), machine.Needs.of_lab(lab, bool(drivers.states(name)), lifecycle.connected(lab))
        )
        if lacking := filling.lacking(lab.components):
            text = f"the mirror lacks {len(lacking)} artifacts, such as {lacking[0]}: before site.yml run "
            options = "".join(f" --part {one}" for one in Part if components and one in lab.components)
            console.print(f"{text}`quote-platform mirror fill{options}`", style="yellow", markup=False)
        folder = lifecycle.up(lab, lambda text: console.print(text, markup=False))
    console.print(f"lab {name} is up: ansible-playbook -i {os.path.relpath(folder)} site.yml", markup=False)


@app.command()
def down(name: Name = "lab") -> None:
    """Remove a lab and everything it made."""
    with _sentences():
        lifecycle.down(name)


@app.command()
def status(
    name: Name = "lab", as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Show the nodes of a lab."""
    with _sentences():
        lab = lifecycle.find(name)
        states = drivers.states(name)
    rows = [
        node.model_dump() | {"state": states.get(node.name, "missing")}
        for node in [*lab.nodes, *lab.services]
    ]
    if as_json:
        typer.echo(json.dumps({"name": name, "subnet": lab.subnet, "nodes": rows}, indent=2))
        return
    table = Table("node", "address", "CPU", "memory", "state", title=f"lab {name}")
    for row in rows:
        table.add_row(row["name"], row["address"], f"{row['cpus']:g}", row["memory"], row["state"])
    console.print(table)


@app.command("await")
def await_(
    name: Name = "lab",
    since: Annotated[float | None, typer.Option(help="Count from this second of the epoch, not now.")] = None,
) -> None:
    """Wait until the application answers; `summary` then says how long that took."""
    with _sentences():
        application.wait(lifecycle.find(name), since or time.time())


@app.command()
def summary(name: Name = "lab") -> None:
    """Say how the application, the cluster and the nodes are reached."""
    with _sentences():
        for line in application.summary(lifecycle.find(name)):
            console.print(line, markup=False)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def ssh(context: typer.Context, node: str, name: Name = "lab") -> None:
    """Open a shell on a node, or run a command there."""
    with _sentences():
        lab = lifecycle.find(name)
        command = access.ssh(lab, lifecycle.node_of(lab, node), context.args)
    os.execvp(command[0], command)  # noqa: S606 (the shell takes over)


@app.command()
def stop(nodes: list[str], name: Name = "lab") -> None:
    """Switch nodes off at once, as a power cut does."""
    with _sentences():
        lab = lifecycle.find(name)
        lifecycle.switch_off(lab, *(lifecycle.node_of(lab, node) for node in nodes))


@app.command()
def start(node: str, name: Name = "lab") -> None:
    """Switch a node on again."""
    with _sentences():
        lab = lifecycle.find(name)
        lifecycle.switch_on(lab, lifecycle.node_of(lab, node))


@app.command()
def destroy(node: str, name: Name = "lab") -> None:
    """Destroy a node with its disks; `up` makes a new one of the same name and address."""
    with _sentences():
        lab = lifecycle.find(name)
        lifecycle.destroy(lab, lifecycle.node_of(lab, node))
