"""Commands of `python3 -m quote_platform.backup`.

Settings come from the environment: S3_ENDPOINT (empty: AWS), S3_REGION, S3_BUCKET, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_CA_BUNDLE; `dump` and `restore` read libpq's (PGHOST, PGDATABASE …) as well,
`vault` VAULT_ADDR and VAULT_CACERT.
"""

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from quote_platform.backup import jobs, retention
from quote_platform.backup.store import BackupError, Store
from quote_platform.backup.vault import Vault

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


def one_prefix(value: str) -> str:
    """Return a prefix without slashes around it; an empty one would mean the whole bucket."""
    if not (prefix := value.strip("/")):
        raise typer.BadParameter("must not be empty")
    return prefix


Prefix = Annotated[
    str,
    typer.Argument(
        callback=one_prefix, help="Where this series of backups lies in the bucket, such as etcd/quote."
    ),
]

Name = Annotated[str, typer.Option(help="Name as `list` shows it, or latest.")]


@app.callback()
def main() -> None:
    """Back up to an object store, keep what is worth keeping, get it back."""
    # Ends as an error does, so that an upload is aborted and nothing half remains.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def opened(bucket: str = "") -> Store:
    """Return the store; tests put theirs in its place."""
    return Store.from_environment(bucket)


@contextmanager
def logged(what: str) -> Iterator[dict[str, Any]]:
    """Print one line of JSON when a command has finished, or a sentence when it could not."""
    started = time.monotonic()
    line: dict[str, Any] = {"what": what, "name": "", "bytes": 0, "sha256": ""}
    try:
        yield line
    except (BackupError, OSError) as error:
        typer.echo(f"{what}: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(json.dumps(line | {"seconds": round(time.monotonic() - started, 1)}))


@app.command()
def dump(prefix: Prefix) -> None:
    """Store a dump of the database that PGDATABASE names, and read it back."""
    with logged("dump") as line:
        line.update(described(prefix, *jobs.dump(opened(), prefix)))


@app.command()
def file(path: Annotated[Path, typer.Argument(help="File to store.")], prefix: Prefix) -> None:
    """Store a file, such as a snapshot of etcd, and read it back."""
    with logged("file") as line:
        line.update(described(prefix, *jobs.file(opened(), path, prefix)))


@app.command()
def vault(
    prefix: Prefix,
    role: Annotated[str, typer.Option(help="Role of the auth method kubernetes.")] = "snapshot",
    token: Annotated[Path, typer.Option(help="Token of the ServiceAccount that may take it.")] = Path(
        "/var/run/secrets/vault/token"
    ),
) -> None:
    """Store a snapshot of Vault, and read it back."""
    with logged("vault") as line:
        line.update(described(prefix, *jobs.vault(opened(), prefix, Vault.from_environment(), role, token)))


def described(prefix: str, backup: retention.Backup, checksum: str) -> dict[str, Any]:
    """Return what the log says of a backup."""
    return {"name": f"{prefix}/{backup.name}", "bytes": backup.bytes, "sha256": checksum}


@app.command()
def prune(
    prefix: Prefix,
    recent: Annotated[int, typer.Option(min=1, help="How many of the newest backups stay.")] = 1,
    daily: Annotated[int, typer.Option(min=0, help="Days of which the newest backup stays.")] = 7,
    weekly: Annotated[int, typer.Option(min=0, help="Weeks of which the newest backup stays.")] = 4,
    monthly: Annotated[int, typer.Option(min=0, help="Months of which the newest backup stays.")] = 12,
) -> None:
    """Delete old backups and what broken-off ones left; the newest whole one always stays."""
    with logged("prune") as line:
        deleted, left = jobs.prune(opened(), prefix, retention.Keep(recent, daily, weekly, monthly))
        line.update(name=prefix, deleted=deleted, kept=left)


@app.command(name="list")
def show(
    prefix: Prefix, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Show the backups, the newest first."""
    try:
        found = retention.backups(opened().entries(prefix))
    except BackupError as error:
        typer.echo(f"list: {error}", err=True)
        raise typer.Exit(1) from error
    if as_json:
        rows = [
            {"name": one.name, "time": one.time.isoformat(), "bytes": one.bytes, "whole": one.whole}
            for one in found
        ]
        typer.echo(json.dumps(rows))
        return
    for one in found:
        typer.echo(f"{one.name:<24}{one.bytes:>16}  {'whole' if one.whole else 'not whole'}")


@app.command()
def fetch(
    prefix: Prefix,
    target: Annotated[
        Path, typer.Argument(metavar="FILE", help="File to write; one that is there is replaced.")
    ],
    name: Name = "latest",
) -> None:
    """Get a backup, if it is what was stored."""
    with logged("fetch") as line:
        line.update(described(prefix, *jobs.fetch(opened(), prefix, name, target)))


@app.command()
def restore(prefix: Prefix, name: Name = "latest") -> None:
    """Restore a dump into the empty database that PGDATABASE names, whole or not at all."""
    with logged("restore") as line:
        line.update(described(prefix, *jobs.restore(opened(), prefix, name)))


@app.command()
def check(
    prefix: Prefix,
    max_age: Annotated[int, typer.Option(min=1, help="Seconds that the newest whole backup may be old.")],
) -> None:
    """End with 1 when the newest whole backup is too old; for alerts."""
    with logged("check") as line:
        backup, checksum, age = jobs.check(opened(), prefix, max_age)
        line.update(described(prefix, backup, checksum), age=age)


@app.command()
def lifecycle(
    bucket: Annotated[str, typer.Argument(help="Bucket.")],
    prefix: Prefix,
    days: Annotated[int, typer.Option(min=1, help="Age at which objects are moved.")] = 30,
) -> None:
    """Have AWS move backups to GLACIER; rules of others stay."""
    with logged("lifecycle") as line:
        changed = opened(bucket).archive(prefix, days)
        line.update(name=f"{bucket}/{prefix}", changed=changed)
