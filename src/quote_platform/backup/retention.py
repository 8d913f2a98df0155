"""What lies below a prefix, what of it is whole, what may go. Decides only; touches nothing."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

TIME = "%Y-%m-%dT%H%M%SZ"
# Written last: a backup without it was cut off or not verified.
CHECKSUM = ".sha256"
LEFT_OVER = timedelta(days=1)
NAME = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{6}Z)(\.dump|\.db|\.snap)")


@dataclass(frozen=True)
class Entry:
    """One object below a prefix, by the rest of its name."""

    name: str
    bytes: int
    modified: datetime


@dataclass(frozen=True)
class Backup:
    """One backup: the object, and whether its checksum lies beside it."""

    name: str
    time: datetime
    bytes: int
    whole: bool


@dataclass(frozen=True)
class Keep:
    """How many of the newest backups stay, and of how many days, weeks and months the newest."""

    recent: int = 1
    daily: int = 7
    weekly: int = 4
    monthly: int = 12


def name_of(time: datetime, suffix: str) -> str:
    """Return the name of a backup."""
    return f"{time.astimezone(UTC):{TIME}}{suffix}"


def time_of(name: str) -> datetime | None:
    """Return the time that a backup's name says; none if it is not a backup's name."""
    found = NAME.fullmatch(name)
    try:
        return datetime.strptime(found[1], TIME).replace(tzinfo=UTC) if found else None
    except ValueError:  # such as a 30th of February
        return None


def backups(entries: Iterable[Entry]) -> list[Backup]:
    """Return the backups among the objects, the newest first; what is named otherwise is not ours."""
    by_name = {entry.name: entry for entry in entries}
    found = [
        Backup(name, time, entry.bytes, f"{name}{CHECKSUM}" in by_name)
        for name, entry in by_name.items()
        if (time := time_of(name))
    ]
    return sorted(found, key=lambda backup: (backup.time, backup.name), reverse=True)


PERIODS: dict[str, Callable[[datetime], object]] = {
    "daily": lambda time: time.date(),
    "weekly": lambda time: time.isocalendar()[:2],
    "monthly": lambda time: (time.year, time.month),
}


def kept(times: Iterable[datetime], keep: Keep) -> set[datetime]:
    """Return the times that stay: the newest ones, and the newest of each of the last days, weeks and months.

    A period without a backup does not count, so that a long outage costs no old one.
    """
    newest_first = sorted(times, reverse=True)
    stay = set(newest_first[: max(1, keep.recent)])
    for name, period in PERIODS.items():
        last_of: dict[object, datetime] = {}
        for time in newest_first:
            last_of.setdefault(period(time), time)
        stay |= set(list(last_of.values())[: getattr(keep, name)])
    return stay


def doomed(entries: Iterable[Entry], keep: Keep, now: datetime) -> list[str]:
    """Return the names to delete, in this order: what is cut off half-way must not look whole."""
    entries = list(entries)
    every = backups(entries)
    # Each kind by itself: a snapshot is no reason to delete a dump.
    names: list[str] = []
    for suffix in sorted({backup.name.rpartition(".")[2] for backup in every}):
        whole = [backup for backup in every if backup.whole and backup.name.endswith(f".{suffix}")]
        stay = kept((backup.time for backup in whole), keep)
        names += [name for b in whole if b.time not in stay for name in (f"{b.name}{CHECKSUM}", b.name)]
    there = {backup.name for backup in every}
    left_over = {backup.name for backup in every if not backup.whole}
    left_over |= {
        entry.name
        for entry in entries
        if entry.name.endswith(CHECKSUM)
        and time_of(bare := entry.name.removesuffix(CHECKSUM))
        and bare not in there
    }
    return names + sorted(
        entry.name for entry in entries if entry.name in left_over and now - entry.modified > LEFT_OVER
    )
