"""Where the mirror keeps what it serves, and how it locks it."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quote_platform import paths


class MirrorError(Exception):
    """Something the mirror refuses or cannot do; the text names it and says what to do."""


class RefusedError(MirrorError):
    """Content that is not what was pinned or signed; another provider does not make up for it."""


def root() -> Path:
    """Return the folder with www/ (apt, manifests) and registry/ (images)."""
    return paths.cache() / "mirror"


def write_json(path: Path, data: Any) -> None:
    """Write a file that is either the old or the new one, whenever the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n")
    part.replace(path)


@contextmanager
def lock() -> Iterator[None]:
    """Let one process at a time change the mirror."""
    root().mkdir(parents=True, exist_ok=True)
    with (root() / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
