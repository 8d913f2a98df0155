"""The report: what passed, what failed, what was not run and why."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field
from rich.console import Console
from rich.markup import escape
from rich.table import Table

Status = Literal["passed", "failed", "not run"]
# Checks that are about a moment, by their names.
BACKUPS = ("base backup", "dump", "etcd snapshot", "namespace backup")
CERTIFICATES = "certificates"
STYLE: dict[Status, str] = {"passed": "green", "failed": "bold red", "not run": "yellow"}


class Check(BaseModel):
    """What one check came to."""

    name: str
    status: Status
    detail: str = ""
    # When the newest backup was made, or the first certificate ends.
    moment: datetime | None = None
    next_command: str = ""
    seconds: float = 0


class Report(BaseModel):
    """All checks of one run."""

    version: int = 1
    cluster: str
    started: datetime = Field(default_factory=lambda: datetime.now(UTC))
    checks: list[Check] = []

    def count(self, status: Status) -> int:
        """Return how many checks have a status."""
        return sum(check.status == status for check in self.checks)

    def write(self, path: Path) -> None:
        """Write the report for programs."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=2) + "\n")

    def show(self, console: Console) -> None:
        """Print the report for people."""
        table = Table("check", "result", "s", "detail", title=f"{self.cluster}: what was used from outside")
        for check in self.checks:
            detail = escape(check.detail)
            if check.next_command:
                detail += f"\nnext: {escape(check.next_command)}"
            table.add_row(
                check.name, f"[{STYLE[check.status]}]{check.status}", f"{check.seconds:.1f}", detail
            )
        console.print(table)
        console.print(
            f"{self.count('passed')} passed, {self.count('failed')} failed, {self.count('not run')} not run"
        )
