"""The commands `quote-platform cost` and `quote-platform aws`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from rich.console import Console
from rich.table import Table

from quote_platform import paths, validation
from quote_platform.aws import Refused, chosen, cost, policy
from quote_platform.aws.design import (
    DATABASES,
    Balancers,
    Buckets,
    Database,
    Dns,
    Keys,
    Machines,
    Network,
    Part,
    Registry,
    judge,
)
from quote_platform.validation import specs

CALLERS = ("operator", "cert-manager")
app = typer.Typer(no_args_is_help=True)
Inventory = Annotated[Path, typer.Option("-i", "--inventory", help="Folder of the inventory.")]

PARTS: dict[str, tuple[str, type[Part]]] = {
    "network": ("aws_network", Network),
    "machines": ("aws_machines", Machines),
    "balancers": ("aws_load_balancers", Balancers),
    "buckets": ("aws_buckets", Buckets),
    "keys": ("aws_keys", Keys),
    "registry": ("aws_registry", Registry),
    "database": ("aws_database", Database),
    "dns": ("aws_dns", Dns),
}


def choices(inventory: Path) -> dict[str, Any]:
    """Return what apply_aws would be given, of an inventory's variables for all; no host is asked for."""
    project = paths.repository()
    values = dict(specs.defaults(project / "roles"))
    loader = DataLoader()
    for folder in (project / "group_vars/all", inventory / "group_vars/all"):
        for file in sorted(folder.glob("*.yml")):
            values |= loader.load_from_file(str(file), trusted_as_template=True) or {}
    template = Templar(loader, variables=values).template

    def value(name: str) -> Any:
        return validation.plain(template(values[name]))

    found: dict[str, Any] = {
        part: {name: value(f"{role}_{name}") for name in model.model_fields}
        for part, (role, model) in PARTS.items()
    }
    return found | {
        "account_id": value("aws_account_id"),
        "region": value("aws_account_region"),
        "cluster": value("cluster_name"),
        "pod_cidr": value("cluster_pod_cidr"),
        "service_cidr": value("cluster_service_cidr"),
        "zone": values.get("aws_account_made", {}).get("zone", ""),
        "budget": value("aws_account_budget"),
        "budget_mails": value("aws_account_budget_mails"),
        "assumed": value("aws_account_assumed"),
    }


def show(
    inventory: Inventory,
    compare: Annotated[
        str, typer.Option(help=f"Databases side by side, such as {','.join(DATABASES)}.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="As data.")] = False,
) -> None:
    """Say what an inventory would cost on AWS, each month."""
    try:
        given = choices(inventory)
        names = compare.split(",") if compare else [given["database"]["choice"]]
        if strange := [name for name in names if name not in DATABASES]:
            raise Refused(f"--compare: {', '.join(strange)}; allowed are {', '.join(DATABASES)}")
        designs = {name: given | {"database": given["database"] | {"choice": name}} for name in names}
        bills = {name: cost.bill(chosen(one), given["assumed"]) for name, one in designs.items()}
    except Refused as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    if as_json:
        data = {name: bill.data() for name, bill in bills.items()}
        typer.echo(json.dumps(data if compare else data[names[0]], indent=2))
        return
    if compare:
        _beside(bills)
    else:
        _alone(bills[names[0]])


def _alone(bill: cost.Bill) -> None:
    """Print one bill."""
    table = Table(
        "component", "type", "count", "USD a month", title=f"{bill.region}, list prices of {bill.date}"
    )
    for column in table.columns[2:]:
        column.justify = "right"
    for row in bill.rows:
        table.add_row(row.component, row.type, f"{row.count:g}", f"{row.price:.2f}")
    for what in bill.unknown:
        table.add_row(what, "no price is known", "", "")
    table.add_section()
    table.add_row("total", "", "", f"{bill.total:.2f}")
    table.add_row("the reference", "", "", f"{bill.reference['total']:.2f}")
    console = Console()
    console.print(table)
    console.print(f"The reference leaves out: {', '.join(bill.reference['left_out'])}.", highlight=False)


def _beside(bills: dict[str, cost.Bill]) -> None:
    """Print what bills have in common as one line, then in what they differ."""
    first = next(iter(bills.values()))
    table = Table("USD a month", title=f"{first.region}, list prices of {first.date}")
    for name in bills:
        table.add_column(name, justify="right")
    prices = {name: {row.component: row.price for row in bill.rows} for name, bill in bills.items()}
    differ = {
        component: [of.get(component, 0) for of in prices.values()]
        for component in dict.fromkeys(key for of in prices.values() for key in of)
        if len({of.get(component) for of in prices.values()}) > 1
    }
    own = [sum(each) for each in zip(*differ.values(), strict=True)] or [0.0] * len(bills)
    table.add_row(
        "the same", *(f"{bill.total - less:.2f}" for bill, less in zip(bills.values(), own, strict=True))
    )
    for component, each in differ.items():
        table.add_row(component, *(f"{price:.2f}" for price in each))
    for what in dict.fromkeys(what for bill in bills.values() for what in bill.unknown):
        table.add_row(f"{what}: no price is known")
    table.add_section()
    table.add_row("total", *(f"{bill.total:.2f}" for bill in bills.values()))
    Console().print(table)


@app.command("policy")
def rights(
    inventory: Inventory,
    of: Annotated[str, typer.Option(help=f"Whose rights: {' or '.join(CALLERS)}.")] = "operator",
) -> None:
    """Print the least policy of IAM for whoever runs the playbooks, or for cert-manager's challenges."""
    try:
        if of not in CALLERS:
            raise Refused(f"--of: {of}; allowed are {', '.join(CALLERS)}")
        given = choices(inventory)
        design = chosen(given)
        if wrong := judge(design):
            raise Refused("\n".join(wrong))
        if of == "cert-manager" and not given["zone"]:
            raise Refused(
                "--of cert-manager: no zone is known; set aws_dns_domain and run playbooks/aws.yml first"
            )
        found = policy.document(design) if of == "operator" else policy.challenges(design, given["zone"])
    except Refused as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    typer.echo(json.dumps(found, indent=2))
