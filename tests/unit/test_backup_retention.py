"""Retention over simulated years: what stays is what the rule says, counted another way."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from quote_platform.backup import retention
from quote_platform.backup.retention import CHECKSUM, Entry, Keep, doomed, kept, name_of, time_of

START = datetime(2024, 2, 1, 3, 15, tzinfo=UTC)
DAY = timedelta(days=1)


def rule(times: set[datetime], keep: Keep) -> set[datetime]:
    """Say of each backup by itself whether it stays: none newer in its period, few enough newer periods."""
    periods: list[tuple[int, Callable[[datetime], object]]] = [
        (keep.daily, lambda t: t.toordinal()),
        (keep.weekly, lambda t: (t.toordinal() - 1) // 7),  # day 1 of the calendar was a Monday
        (keep.monthly, lambda t: t.year * 12 + t.month),
    ]

    later: list[set[object]] = [set() for _ in periods]
    stay = set()
    for newer, time in enumerate(sorted(times, reverse=True)):
        if newer < max(1, keep.recent):
            stay.add(time)
        for (number, period), seen in zip(periods, later, strict=True):
            if period(time) not in seen and len(seen) < number:
                stay.add(time)
            seen.add(period(time))
    return stay


class Series:
    """A bucket over the years, as entries."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def store(self, time: datetime, whole: bool = True, suffix: str = ".dump") -> None:
        name = name_of(time, suffix)
        for part in (name, f"{name}{CHECKSUM}") if whole else (name,):
            self.entries[part] = Entry(part, 1, time)

    def whole(self) -> set[datetime]:
        return {b.time for b in retention.backups(self.entries.values()) if b.whole}

    def prune(self, now: datetime, keep: Keep) -> list[str]:
        names = doomed(self.entries.values(), keep, now)
        for name in names:
            del self.entries[name]
        return names


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("keep", [Keep(), Keep(5, 3, 0, 2), Keep(0, 0, 0, 0), Keep(1, 1, 10, 1)])
def test_three_years_of_daily_runs_with_gaps_and_failures(seed: int, keep: Keep) -> None:
    chance = random.Random(seed)  # noqa: S311 (a simulation)
    series, every, broken = Series(), set(), 0
    outage = chance.randrange(200, 600)
    for day in range(3 * 365):
        now = START + day * DAY + timedelta(minutes=chance.randrange(90))
        if outage <= day < outage + 70 or chance.random() < 0.08:
            continue  # neither a backup nor a cleaning
        if chance.random() < 0.15:
            broken += 1
            series.store(now, whole=False)
        else:
            every.add(now)
            series.store(now)
        if not every:
            continue
        last = max(series.whole())
        series.prune(now + timedelta(minutes=5), keep)
        # Cleaning day by day comes to the same as looking at everything that was ever made.
        if day % 7 == 0:  # the other way of counting is slow
            assert series.whole() == rule(every, keep)
        left = retention.backups(series.entries.values())
        assert last in {b.time for b in left if b.whole}
        left_over = [b for b in left if not b.whole]
        assert all(now - b.time <= DAY for b in left_over)
    assert series.whole() == rule(every, keep)
    assert broken > 50
    assert len(series.whole()) <= max(1, keep.recent) + keep.daily + keep.weekly + keep.monthly


def test_the_default_keeps_a_year() -> None:
    series = Series()
    for day in range(800):
        series.store(START + day * DAY)
        series.prune(START + day * DAY, Keep())
    times = sorted(series.whole(), reverse=True)
    assert [(times[0] - time).days for time in times[:7]] == list(range(7))
    assert len({(time.year, time.month) for time in times}) == 12
    assert 18 <= len(times) <= 23


def test_snapshots_every_six_hours_reach_two_days_back_and_then_a_year() -> None:
    series, every, keep = Series(), set[datetime](), Keep(8, 7, 4, 12)
    for number in range(400 * 4):
        now = START + number * timedelta(hours=6)
        every.add(now)
        series.store(now, suffix=".db")
        series.prune(now, keep)
        newest = sorted(series.whole(), reverse=True)[:8]
        assert newest == [now - ago * timedelta(hours=6) for ago in range(min(8, number + 1))]
    assert series.whole() == rule(every, keep)
    assert len({(time.year, time.month) for time in series.whole()}) == 12
    assert len(series.whole()) <= 8 + 7 + 4 + 12


def test_a_day_with_several_keeps_its_last() -> None:
    times = {START + timedelta(hours=6 * number) for number in range(8)}
    assert kept(times, Keep(1, 2, 0, 0)) == {START + timedelta(hours=18), START + timedelta(hours=42)}


def test_the_last_good_one_stays_whatever_comes_after() -> None:
    series = Series()
    series.store(START)
    for day in range(1, 400):
        series.store(START + day * DAY, whole=False)
        series.prune(START + day * DAY, Keep(0, 0, 0, 0))
    assert series.whole() == {START}
    assert len(series.entries) == 2 + 2  # and the broken ones of the last day


def test_only_what_is_named_like_a_backup_goes() -> None:
    foreign = [
        "README",
        "2020-01-01T000000Z.dump.gz",
        "2020-01-01T000000Z.sql",
        "2020-02-30T000000Z.dump",
        "copy-2020-01-01T000000Z.dump",
        "keep.sha256",
    ]
    entries = [Entry(name, 1, START) for name in foreign]
    assert doomed(entries, Keep(0, 0, 0, 0), START + 1000 * DAY) == []
    assert [time_of(name) for name in foreign] == [None] * len(foreign)


def test_a_checksum_goes_before_its_backup_and_one_without_goes_too() -> None:
    series = Series()
    series.store(START)
    series.store(START + DAY)
    lone = f"{name_of(START - DAY, '.dump')}{CHECKSUM}"
    series.entries[lone] = Entry(lone, 1, START - DAY)
    old = name_of(START, ".dump")
    assert series.prune(START + DAY, Keep(1, 1, 0, 0)) == [f"{old}{CHECKSUM}", old, lone]


def test_a_snapshot_is_no_reason_to_delete_a_dump() -> None:
    series = Series()
    series.store(START)
    series.store(START + timedelta(hours=1), suffix=".db")
    assert series.prune(START + DAY, Keep(1, 1, 0, 0)) == []


def test_what_is_under_way_stays() -> None:
    series = Series()
    series.store(START, whole=False)
    assert series.prune(START + DAY, Keep()) == []
    assert series.prune(START + DAY + timedelta(seconds=1), Keep()) == [name_of(START, ".dump")]
