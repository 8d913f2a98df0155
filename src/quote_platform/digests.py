"""Digests of what holds a password, which tell whether it has changed and not what it is."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path
from typing import Any


def keyed(value: Any, key_file: str) -> str:
    """Return the HMAC-SHA256 of any value, in hexadecimal, by the key in a file that is made when missing.

    Passwords cannot be tried against it without that file.
    """
    text = json.dumps(value, sort_keys=True, default=str)
    return hmac.new(_key(Path(key_file)).encode(), text.encode(), hashlib.sha256).hexdigest()


def _key(file: Path) -> str:
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = file.with_name(f".{file.name}.{os.getpid()}")
        own.touch(mode=0o600)
        own.write_text(f"{secrets.token_hex(32)}\n")
        # Whole, or not there; that of another run stays.
        with contextlib.suppress(FileExistsError):
            file.hardlink_to(own)
        own.unlink()
    return file.read_text().strip()
