"""Timers of jobs: exactly those that jobs.yml names, in units that systemd takes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from quote_platform.cli import app
from quote_platform.jobs import definition, schedule

ROOT = Path(__file__).resolve().parents[2]
TIMES = """
jobs:
  drift:
    schedule: {calendar: "*-*-* 03:00:00", time_zone: Europe/Berlin, random_delay: 15m}
  backup:
    schedule: {calendar: hourly, persistent: false}
"""


class Timers:
    def __init__(self, folder: Path) -> None:
        self.inventory, self.units = folder / "my $10% inventory", folder / "units"
        self.inventory.mkdir()
        (self.inventory / "jobs.yml").write_text(TIMES)

    def call(self, *arguments: str, status: int = 0) -> str:
        given = [*arguments, "-i", str(self.inventory), "--unit-directory", str(self.units)]
        found = CliRunner().invoke(app, ["job", "schedule", *given])
        assert found.exit_code == status, found.output
        return found.output

    def names(self) -> list[str]:
        return sorted(one.name.split("-", 3)[-1] for one in self.units.iterdir())

    def file(self, end: str) -> Path:
        (found,) = self.units.glob(f"*-{end}")
        return found


@pytest.fixture
def timers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Timers:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    return Timers(tmp_path)


def test_there_are_the_timers_that_are_named_and_no_others(timers: Timers) -> None:
    assert timers.call("apply").count("written") == 4
    assert timers.file("drift.timer").read_text().splitlines()[6:9] == [
        "OnCalendar=*-*-* 03:00:00 Europe/Berlin",
        "RandomizedDelaySec=900",
        "Persistent=true",
    ]
    assert "Persistent=false" in timers.file("backup.timer").read_text()
    assert timers.call("apply").count("unchanged") == 4
    foreign = timers.units / "quote-platform-other.timer"
    foreign.write_text("[Timer]\nOnCalendar=daily\n")
    (timers.inventory / "jobs.yml").write_text(TIMES.replace("hourly", "daily").split("  backup")[0])
    said = timers.call("apply")
    assert said.count("removed") == 2
    assert sorted(one.name for one in timers.units.glob("*drift*")) == [
        timers.file("drift.service").name,
        timers.file("drift.timer").name,
    ]
    assert [one.job for one in schedule.timers(timers.units)] == ["drift"]
    assert '"calendar": "*-*-* 03:00:00 Europe/Berlin"' in timers.call("list", "--json")
    timers.call("remove")
    assert list(timers.units.iterdir()) == [foreign]


def test_what_another_has_written_is_not_replaced(timers: Timers) -> None:
    timers.units.mkdir()
    jobs = definition.load(ROOT, timers.inventory)
    name = next(iter(schedule.units(ROOT, timers.inventory, jobs)))
    (timers.units / name).write_text("[Service]\n")
    assert f"{timers.units / name}: not written by this command; move it away" in timers.call(
        "apply", status=2
    )
    assert [one.name for one in timers.units.iterdir()] == [name]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_a_calendar_expression_that_systemd_does_not_know_is_refused(timers: Timers) -> None:
    (timers.inventory / "jobs.yml").write_text("jobs: {drift: {schedule: {calendar: every night}}}\n")
    said = timers.call("apply", status=2)
    assert "jobs.drift.schedule.calendar: Failed to parse calendar specification 'every night'" in said
    assert not timers.units.exists()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_systemd_takes_the_units(timers: Timers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The program of the unit must be there to be taken.
    program = tmp_path / "bin" / "python"
    program.parent.mkdir()
    for name in ("python", "quote-platform"):
        (program.parent / name).write_text("#!/bin/sh\n")
        (program.parent / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    timers.call("apply")
    for unit in ("drift.timer", "backup.timer"):
        done = subprocess.run(
            ["systemd-analyze", "verify", "--recursive-errors=no", timers.file(unit)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    # The inventory reaches the program as it is: neither specifier nor variable.
    line = next(one for one in timers.file("drift.service").read_text().splitlines() if "ExecStart" in one)
    assert line.endswith(f'job run drift -i "{timers.inventory}"'.replace("$", "$$").replace("%", "%%"))
