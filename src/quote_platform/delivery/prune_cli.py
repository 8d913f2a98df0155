"""Commands of `quote-platform registry`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from quote_platform.delivery import DeliveryError
from quote_platform.delivery import prune as pruning
from quote_platform.delivery.cli import AsJson, Authority, Inventory, console, told
from quote_platform.delivery.settings import settings, versions_file
from quote_platform.delivery.versions import Versions
from quote_platform.images import Reference

registry = typer.Typer(no_args_is_help=True)


@registry.callback()
def main() -> None:
    """Keep registries in order."""


@registry.command()
def prune(
    *,
    repository: Annotated[list[str], typer.Argument(help="REGISTRY/NAME, one or more.")],
    keep: Annotated[
        int, typer.Option(envvar="QUOTE_PLATFORM_REGISTRY_KEEP", help="How many of the newest images stay.")
    ] = 30,
    kubeconfig: Annotated[
        list[Path] | None, typer.Option(help="Of a cluster, whose images stay; repeatable.")
    ] = None,
    no_cluster: Annotated[bool, typer.Option("--no-cluster", help="No cluster runs any of it.")] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete; without it, only say what would be.")
    ] = False,
    plain_http: Annotated[bool, typer.Option("--plain-http", help="The registry has no TLS.")] = False,
    inventory: Inventory = None,
    authority: Authority = None,
    as_json: AsJson = False,
) -> None:
    """Delete old images with their signatures and documents: a dry run, unless --delete is given.

    What a cluster runs or may run again, and what versions.yml pins, stays whatever its age.
    """
    with told():
        if bool(kubeconfig) == no_cluster:
            raise DeliveryError(
                "give --kubeconfig FILE for each cluster that runs these images, or --no-cluster"
            )
        access = settings(inventory, authority=authority).access
        pinned = pruning.used(str(one.reference) for one in Versions(versions_file()).images())
        plans = []
        for name in repository:
            try:
                reference = Reference.parse(name)
            except ValueError as error:
                raise DeliveryError(str(error)) from error
            if reference.tag or reference.digest:
                raise DeliveryError(f"{name}: allowed is REGISTRY/NAME, without tag and digest")
            host = f"http://{reference.registry}" if plain_http else reference.registry
            with access.repository(host, reference.repository) as opened:
                # A cluster is asked as late as can be: what it begins to run meanwhile stays.
                in_use = pinned
                for file in kubeconfig or []:
                    in_use |= pruning.running(file)
                found = pruning.plan(opened, keep, in_use)
                if delete:
                    pruning.carry_out(opened, found)
            plans.append(found)
    if as_json:
        typer.echo(json.dumps({"deleted": delete, "repositories": [one.data() for one in plans]}, indent=2))
        return
    verb = "deleted" if delete else "would delete"
    for found in plans:
        for one in found.gone:
            text = f"{verb} {found.repository}@{one.digest} ({', '.join(one.tags)}; {one.created})"
            console.print(text, markup=False)
        for tag in found.orphans:
            console.print(f"{verb} {found.repository}:{tag} (its image is gone)", markup=False)
        in_use_count = sum(reason == "used" for reason in found.kept.values())
        console.print(
            f"{found.repository}: {len(found.kept)} tags stay, {in_use_count} of them used", markup=False
        )
