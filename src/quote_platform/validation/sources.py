"""From where a run fetches what it installs: package repositories, registries, the hosts of manifests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from quote_platform.images import registry

Variables = Mapping[str, Any]


def registries(images: Iterable[str], mirror: str, known: Mapping[str, str]) -> list[str]:
    """Return the addresses at which images are asked for; `known` are the URLs of registries by name.

    Only these are mirrored.
    """
    urls = [
        mirror if mirror and name in known else known.get(name, f"https://{name}")
        for name in map(registry, images)
    ]
    return list(dict.fromkeys(map(_api, urls)))


def accounts(credentials: Mapping[str, Variables], mirror: str, known: Mapping[str, str]) -> dict[str, str]:
    """Return USER:PASSWORD of registries with an account, by the addresses that `registries` returns."""
    own = urlsplit(mirror).netloc
    return {
        _api(mirror if name == own else known.get(name, f"https://{name}")): (
            f"{account['username']}:{account['password']}"
        )
        for name, account in credentials.items()
    }


def _api(url: str) -> str:
    return f"{url.rstrip('/')}/v2/"


def manifests(wanted: Iterable[Variables], base_url: str, cache: Path) -> list[str]:
    """Return an address on each host from which manifests are fetched that the cache has not."""
    hosts: dict[str, str] = {}
    for manifest in wanted:
        digest = manifest.get("sha256") or ""
        file = cache / digest
        if digest and file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == digest:
            continue
        path = urlsplit(manifest["url"]).path
        url = f"{base_url.rstrip('/')}{path}" if base_url else manifest["url"]
        hosts.setdefault(urlsplit(url).netloc, url)
    return list(hosts.values())
