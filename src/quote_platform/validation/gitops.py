"""Who applies the application: one owner, and a repository that Flux can read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from quote_platform.validation.hosts import is_example

Variables = Mapping[str, Any]

ADDRESS = "allowed is https://HOST/PATH, or ssh://USER@HOST/PATH"
FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


def judge(given: Variables) -> list[str]:
    """Return what would make two owners, or a delivery that cannot work."""
    flux = given.get("delivery") == "flux"
    wrong = []
    applied = given.get("quote_app_applied")
    if flux and applied:
        wrong.append(
            "quote_app_applied: true would make two owners of quote-app's objects, since delivery is flux; "
            "allowed is false, or delivery: playbook"
        )
    if not flux and applied is False:
        wrong.append(
            "quote_app_applied: false would leave quote-app to nobody, since delivery is playbook; "
            "allowed is true, or delivery: flux"
        )
    return wrong + (_repository(given) if flux else [])


def _repository(given: Variables) -> list[str]:
    wrong = []
    address = str(given.get("flux_repository") or "")
    parts = urlsplit(address)
    if parts.scheme not in {"https", "ssh"} or not parts.hostname or not parts.path.strip("/"):
        wrong.append(f"flux_repository: {address!r} is not a repository; {ADDRESS}")
        return wrong
    if is_example(parts.hostname):
        wrong.append(f"flux_repository: {address!r} is of the documentation's examples; write your own")
    if parts.password:
        wrong.append("flux_repository: it has a password; allowed is flux_password")
    key, hosts = given.get("flux_ssh_key"), given.get("flux_ssh_known_hosts")
    if parts.scheme == "ssh" and not (key and hosts):
        lacking = "flux_ssh_key" if not key else "flux_ssh_known_hosts"
        wrong.append(
            f"{lacking}: empty, and flux_repository is reached over SSH; allowed is a deploy key, "
            "and what ssh-keyscan says of the server"
        )
    if parts.scheme == "https" and bool(given.get("flux_username")) != bool(given.get("flux_password")):
        lacking = "flux_password" if given.get("flux_username") else "flux_username"
        wrong.append(f"{lacking}: empty, and the other one is set; allowed are both, or none")
    for name in ("flux_path", "flux_image_file"):
        value = str(given.get(name) or "")
        if (value or name == "flux_path") and not FOLDER.fullmatch(value):
            wrong.append(
                f"{name}: {value!r} is not a path in the repository; allowed is one such as production"
            )
    for name, least in (("flux_interval", 5), ("flux_rollout_timeout", 30), ("flux_history", 2)):
        if int(given.get(name) or 0) < least:
            wrong.append(f"{name}: {given.get(name)}; allowed is {least} or more")
    return wrong
