"""Digests of what is or holds a password, by which it is compared and not told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from pathlib import Path
from typing import Any

from quote_platform import paths

ROUNDS = 4096  # PostgreSQL's own


def keyed(value: Any, key_file: str) -> str:
    """Return the HMAC-SHA256 of any value, in hexadecimal, by the key in a file that is made when missing.

    Passwords cannot be tried against it without that file.
    """
    text = json.dumps(value, sort_keys=True, default=str)
    key = paths.secret(Path(key_file), secrets.token_hex(32))
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


def verifier(password: str) -> str:
    """Return what PostgreSQL keeps of a password (SCRAM), always the same for the same one."""
    salt = hashlib.sha256(f"salt of {password}".encode()).digest()[:16]
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    parts = [
        base64.b64encode(part).decode()
        for part in (salt, stored, hmac.digest(salted, b"Server Key", "sha256"))
    ]
    return f"SCRAM-SHA-256${ROUNDS}:{parts[0]}${parts[1]}:{parts[2]}"
