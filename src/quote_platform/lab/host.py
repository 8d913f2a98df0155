"""Kernel settings of this machine that nodes need, put back when the last lab is gone."""

import json
from pathlib import Path

from quote_platform import paths

# Each node runs a systemd and a kubelet that watch files; Elasticsearch-like stores map many areas.
NEEDED = {"fs/inotify/max_user_instances": 8192, "vm/max_map_count": 262144}


def _file() -> Path:
    return paths.state() / "host-settings.json"


def prepare(proc: Path = Path("/proc/sys")) -> None:
    """Raise what is too low and remember what it was."""
    before: dict[str, str] = json.loads(_file().read_text()) if _file().is_file() else {}
    for name, needed in NEEDED.items():
        current = (proc / name).read_text().strip()
        if int(current) < needed:
            before.setdefault(name, current)
            _file().parent.mkdir(parents=True, exist_ok=True)
            _file().write_text(json.dumps(before))
            (proc / name).write_text(str(needed))


def restore(proc: Path = Path("/proc/sys")) -> None:
    """Put back what was changed."""
    if _file().is_file():
        for name, value in json.loads(_file().read_text()).items():
            (proc / name).write_text(value)
        _file().unlink()
