"""What the mirror could not get, by name and with the reason."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from quote_platform.mirror import storage


@dataclass(frozen=True)
class Unavailable:
    """A component that cannot be installed from this mirror."""

    name: str
    reason: str


def _file() -> Path:
    return storage.root() / "unavailable.json"


def unavailable() -> list[Unavailable]:
    """Return what the last fill could not get."""
    if not _file().is_file():
        return []
    return [Unavailable(**entry) for entry in json.loads(_file().read_text())]


def record(entries: list[Unavailable]) -> None:
    """Keep what could not be had, for the lab's inventory and the final report."""
    storage.write_json(_file(), [asdict(entry) for entry in entries])
