"""Digests of what holds a password, which tell whether it has changed and not what it is."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from pathlib import Path
from typing import Any

from quote_platform import paths


def keyed(value: Any, key_file: str) -> str:
    """Return the HMAC-SHA256 of any value, in hexadecimal, by the key in a file that is made when missing.

    Passwords cannot be tried against it without that file.
    """
    text = json.dumps(value, sort_keys=True, default=str)
    key = paths.secret(Path(key_file), secrets.token_hex(32))
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()
