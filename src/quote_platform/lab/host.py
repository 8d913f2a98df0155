"""Kernel settings of this machine that nodes need, put back when the last lab is gone."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quote_platform import paths

# Each node runs a systemd and a kubelet that watch files; Elasticsearch-like stores map many areas.
# The rest is what kubelet sets on a machine: nodes share this kernel, and nobody would put it back.
NEEDED = {
    "fs/inotify/max_user_instances": 8192,
    "fs/inotify/max_user_watches": 524288,
    "vm/max_map_count": 262144,
    "vm/overcommit_memory": 1,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
}


def lock_file(name: str) -> Path:
    """Return the file of a lock."""
    folder = paths.state() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold a lock that dies with the process."""
    with lock_file(name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
