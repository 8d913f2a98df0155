"""What the commands do: make a backup and read it back, fetch or restore one, clear old ones."""

import contextlib
import hashlib
import re
import subprocess
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from quote_platform.backup import retention
from quote_platform.backup.retention import CHECKSUM, Backup, Keep
from quote_platform.backup.store import PART, BackupError, Store
from quote_platform.backup.vault import Vault, whole

# Reads a backup to its end, refuses one that is not what it should be, returns its checksum.
Judge = Callable[[Store, str], str]


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def blocks(file: IO[bytes]) -> Generator[bytes]:
    """Yield a file in parts of an upload."""
    while block := file.read(PART):
        yield block


# --- make ---------------------------------------------------------------------------------------------


def dump(store: Store, prefix: str) -> tuple[Backup, str]:
    """Store a dump of the database that libpq's environment names."""

    def stream() -> Generator[bytes]:
        with running(["pg_dump", "--format=custom", "--no-password"], stdout=subprocess.PIPE) as process:
            assert process.stdout  # noqa: S101 (for the type)
            yield from blocks(process.stdout)
            if process.wait() != 0:
                raise BackupError(
                    f"pg_dump ended with {process.returncode}; nothing was stored in {store.where}: "
                    "correct what it says above, then run again"
                )

    return keep(store, prefix, ".dump", stream(), restorable)


def file(store: Store, path: Path, prefix: str) -> tuple[Backup, str]:
    """Store a file, such as a snapshot of etcd."""
    with path.open("rb") as opened:
        return keep(store, prefix, ".db", blocks(opened), readable)


def vault(store: Store, prefix: str, source: Vault, role: str, token: Path) -> tuple[Backup, str]:
    """Store a snapshot of Vault, as the ServiceAccount whose token this is."""
    source.login(role, token)
    return keep(store, prefix, ".snap", source.snapshot(), lambda s, key: readable(s, key, whole))


def keep(
    store: Store, prefix: str, suffix: str, stream: Generator[bytes], judge: Judge
) -> tuple[Backup, str]:
    """Store a stream, read it back, and only then write the checksum that makes it a backup."""
    time = now().replace(microsecond=0)
    name = retention.name_of(time, suffix)
    key = f"{prefix}/{name}"
    with contextlib.closing(stream):
        size, checksum = store.upload(key, stream)
    try:
        verify(store, key, checksum, judge)
    except BackupError:
        with contextlib.suppress(BackupError):  # without its checksum it is none, and `prune` clears it
            store.delete(key)
        raise
    store.write(f"{key}{CHECKSUM}", f"{checksum}  {name}\n".encode())
    return Backup(name, time, size, True), checksum


def verify(store: Store, key: str, checksum: str, judge: Judge) -> None:
    """Refuse what reads back as something else, or is not what it should be."""
    found = judge(store, key)
    if found != checksum:
        raise BackupError(
            f"{key} in {store.where} reads back with another checksum ({found}, written was {checksum}), "
            "and is no backup: check the store, then run again"
        )


def restorable(store: Store, key: str) -> str:
    """Refuse what is no archive of pg_dump; return the checksum."""
    status, found = pour(store, key, ["pg_restore", "--list"])
    if status != 0:
        raise BackupError(
            f"{key} in {store.where} cannot be read by pg_restore ({status}), and is no backup: "
            "look at what pg_restore says above, then run again"
        )
    return found


def readable(store: Store, key: str, judge: Callable[[Iterable[bytes], str], None] | None = None) -> str:
    """Return the checksum of an object; somebody may judge its content meanwhile."""
    sha = hashlib.sha256()

    def content() -> Iterator[bytes]:
        for block in store.read(key):
            sha.update(block)
            yield block

    reading = content()
    if judge:
        judge(reading, f"{key} in {store.where}")
    for _ in reading:
        pass
    return sha.hexdigest()


def pour(store: Store, key: str, command: list[str]) -> tuple[int, str]:
    """Read an object into a command; return the command's status, and the checksum of what was read."""
    sha = hashlib.sha256()
    with running(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin  # noqa: S101 (for the type)
        listening = True
        for block in store.read(key):
            sha.update(block)
            try:
                if listening:
                    process.stdin.write(block)
            except BrokenPipeError:  # it has seen enough, or has failed; the rest is for the checksum
                listening = False
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        return process.wait(), sha.hexdigest()


@contextlib.contextmanager
def running(command: list[str], **options: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command beside us; it does not outlive the block. What it complains about goes to our log."""
    try:
        process = subprocess.Popen(command, **options)  # type: ignore[call-overload]
    except OSError as error:
        raise BackupError(
            f"{command[0]} does not start: {error}: install the client of PostgreSQL"
        ) from error
    try:
        yield process
    finally:
        process.kill()  # does nothing to one that has ended
        with contextlib.suppress(BrokenPipeError):
            process.communicate()


# --- read ---------------------------------------------------------------------------------------------


def newest(store: Store, prefix: str) -> Backup | None:
    """Return the newest backup that is whole."""
    whole = [backup for backup in retention.backups(store.entries(prefix)) if backup.whole]
    return whole[0] if whole else None


def choose(store: Store, prefix: str, name: str) -> Backup:
    """Return a backup by its name, or the latest; only whole ones."""
    if name == "latest":
        if found := newest(store, prefix):
            return found
        raise BackupError(f"{prefix} in {store.where} has no whole backup: see `list {prefix}`")
    for backup in retention.backups(store.entries(prefix)):
        if backup.name == name and backup.whole:
            return backup
        if backup.name == name:
            raise BackupError(
                f"{prefix}/{name} in {store.where} is not whole: choose another of `list {prefix}`"
            )
    raise BackupError(f"{prefix}/{name} is not in {store.where}: choose one that `list {prefix}` shows")


def checksum_of(store: Store, key: str) -> str:
    """Return the checksum that was written with a backup."""
    text = b"".join(store.read(f"{key}{CHECKSUM}")).decode(errors="replace")
    found = re.match(r"([0-9a-f]{64})  ", text)
    if not found:
        raise BackupError(f"{key}{CHECKSUM} in {store.where} holds no checksum: choose another backup")
    return found[1]


def fetch(store: Store, prefix: str, name: str, target: Path) -> tuple[Backup, str]:
    """Write a backup to a file, readable by its owner only, if it is what was stored."""
    backup = choose(store, prefix, name)
    key = f"{prefix}/{backup.name}"
    wanted, sha = checksum_of(store, key), hashlib.sha256()
    part = target.with_name(f".{target.name}.part")
    try:
        part.unlink(missing_ok=True)
        part.touch(mode=0o600)
        with part.open("wb") as opened:
            for block in store.read(key):
                sha.update(block)
                opened.write(block)
        if sha.hexdigest() != wanted:
            raise BackupError(
                f"{key} in {store.where} has the checksum {sha.hexdigest()}, stored was {wanted}: refused; "
                f"choose another of `list {prefix}`"
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return backup, wanted


def restore(store: Store, prefix: str, name: str) -> tuple[Backup, str]:
    """Restore a dump, if it is what was stored, into the empty database that libpq's environment names."""
    backup = choose(store, prefix, name)
    key = f"{prefix}/{backup.name}"
    wanted = checksum_of(store, key)
    verify(store, key, wanted, restorable)
    # All of it belongs to who restores it, or none of it is there. The environment says which database.
    command = ["pg_restore", "--dbname=", "--no-password", "--no-owner", "--single-transaction"]
    status, found = pour(store, key, command)
    if status != 0 or found != wanted:
        raise BackupError(
            f"{key} in {store.where} could not be restored ({status}): look at what pg_restore says above"
        )
    return backup, wanted


def check(store: Store, prefix: str, max_age: int) -> tuple[Backup, str, int]:
    """Return the newest whole backup, its checksum and its age in seconds; refuse one that is too old."""
    found = newest(store, prefix)
    look = "look at the log of the last job that should have made one"
    if found is None:
        raise BackupError(f"{prefix} in {store.where} has no whole backup at all: {look}")
    age = int((now() - found.time).total_seconds())
    if age > max_age:
        raise BackupError(
            f"the newest whole backup of {prefix} in {store.where} is {age} s old, {max_age} s are allowed: "
            f"{look}"
        )
    return found, checksum_of(store, f"{prefix}/{found.name}"), age


# --- clear --------------------------------------------------------------------------------------------


def prune(store: Store, prefix: str, numbers: Keep) -> tuple[list[str], int]:
    """Delete what retention does not keep; return the names, and how many whole backups are left."""
    time = now()
    entries = store.entries(prefix)
    names = retention.doomed(entries, numbers, time)
    for name in names:
        store.delete(f"{prefix}/{name}")
    for entry, upload in store.uploads(prefix):
        if retention.time_of(entry.name) and time - entry.modified > retention.LEFT_OVER:
            store.abort(f"{prefix}/{entry.name}", upload)
            names.append(entry.name)
    left = [b for b in retention.backups(entries) if b.whole and b.name not in names]
    return names, len(left)
