"""Commands of `quote-platform verify`."""

import json
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer
from kubernetes.client import ApiException
from rich.console import Console

from quote_platform.verify.checks import LANES, CheckFunction
from quote_platform.verify.report import Check, Report
from quote_platform.verify.target import Failed, NotRun, Target

app = typer.Typer(no_args_is_help=True)


@app.callback()
def main() -> None:
    """Group of commands."""


def run_check(name: str, function: CheckFunction, target: Target) -> Check:
    """Run one check and judge it; an error that nobody foresaw is a failure."""
    started = time.monotonic()
    check = Check(name=name, status="passed")
    try:
        seen = function(target)
        check.detail, check.moment = (seen, None) if isinstance(seen, str) else seen
    except NotRun as reason:
        check.status, check.detail = "not run", str(reason)
    except Failed as failure:
        check.status, check.detail, check.next_command = "failed", str(failure), failure.next_command
        check.moment = failure.moment
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = error.reason if isinstance(error, ApiException) else error
        check.status, check.detail = "failed", f"{type(error).__name__}: {text} ({where.name}:{where.lineno})"
    check.seconds = round(time.monotonic() - started, 1)
    return check


def run_lane(lane: list[tuple[str, CheckFunction]], target: Target) -> list[Check]:
    """Run checks one after the other."""
    return [run_check(name, function, target) for name, function in lane]


@app.command()
def run(  # noqa: PLR0917 (options, not positions)
    kubeconfig: Annotated[Path, typer.Option(help="How to reach the API server.", exists=True)],
    version: Annotated[str, typer.Option(help="Kubernetes version that nodes must run, such as 1.36.3.")],
    address: Annotated[list[str], typer.Option(help="Address of an ingress controller; repeatable.")],
    image: Annotated[str, typer.Option(help="Image of the pods that look around (agnhost).")],
    host: Annotated[str, typer.Option(help="Host name of the application.")],
    namespace: Annotated[
        list[str], typer.Option(help="PART=NAME, for application, logging, monitoring, snapshots and velero.")
    ],
    domain: Annotated[str, typer.Option(help="DNS domain of the cluster.")],
    postgres: Annotated[str, typer.Option(help="Name of PostgreSQL's Cluster.")],
    database: Annotated[str, typer.Option(help="The application's database.")],
    secret: Annotated[str, typer.Option(help="Secret with an account that is delivered from elsewhere.")],
    outside: Annotated[bool, typer.Option(help="PostgreSQL is outside of the cluster.")] = False,
    cluster: Annotated[str, typer.Option(help="Name of the cluster, for the report.")] = "cluster",
    authority: Annotated[
        str, typer.Option(help="Who must have signed the application's certificate: PEM, or `public`.")
    ] = "",
    server: Annotated[
        list[str] | None, typer.Option(help="HOST:PORT of another TLS server; repeatable.")
    ] = None,
    node: Annotated[
        list[str] | None,
        typer.Option(help="NAME=ADDRESS by which a node is reached from here, if by another; repeatable."),
    ] = None,
    certificate_days: Annotated[int, typer.Option(help="No certificate may end within these days.")] = 21,
    known_alert: Annotated[list[str] | None, typer.Option(help="An alert that may fire; repeatable.")] = None,
    vault: Annotated[list[str] | None, typer.Option(help="URL of a member of Vault; repeatable.")] = None,
    vault_ca: Annotated[str, typer.Option(help="Authority of its certificate, as PEM.")] = "",
    intrusive: Annotated[
        bool, typer.Option(help="Also what users may notice: a rolling update, many requests, a row of data.")
    ] = False,
    left_out: Annotated[
        str, typer.Option(help="JSON list of the components that are not installed, each name and reason.")
    ] = "[]",
    only: Annotated[list[str] | None, typer.Option(help="Only the check of this name; repeatable.")] = None,
    report: Annotated[Path, typer.Option(help="Where the report for programs goes.")] = Path("report.json"),
) -> None:
    """Use the functions of a running platform from outside and report on each."""
    missing = {entry["name"]: entry["reason"] for entry in json.loads(left_out)}
    try:
        target = Target(
            str(kubeconfig),
            version,
            host,
            address,
            image,
            authority=authority,
            servers=server or [],
            nodes=dict(one.split("=", 1) for one in node or []),
            certificate_days=certificate_days,
            known_alerts=known_alert or [],
            vaults=vault or [],
            vault_ca=vault_ca,
            namespaces=dict(one.split("=", 1) for one in namespace),
            domain=domain,
            postgres=postgres,
            database=database,
            outside=outside,
            secret=secret,
            intrusive=intrusive,
            left_out=missing,
        )
    except Failed as error:
        raise typer.BadParameter(str(error), param_hint="--kubeconfig") from error
    result = Report(cluster=cluster)
    lanes = [[check for check in lane if not only or check[0] in only] for lane in LANES]
    try:
        target.open()
        with ThreadPoolExecutor() as pool:
            for checks in pool.map(lambda lane: run_lane(lane, target), lanes):
                result.checks += checks
    finally:
        target.close()
    result.checks += [Check(name=name, status="not run", detail=why) for name, why in missing.items()]
    result.write(report)
    result.show(Console(width=150))
    if result.count("failed") or not result.count("passed"):
        raise typer.Exit(1)
