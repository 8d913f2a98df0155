"""How an inventory reaches registries and manifests: the variables that nodes are given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quote_platform import inventory as inventories
from quote_platform import paths
from quote_platform.delivery import DeliveryError
from quote_platform.delivery.registry import ACCOUNTS, Access, accounts

NAMES = ["image_registry_base_url", "image_registry_credentials", "manifest_base_url", "cluster_authorities"]


@dataclass(frozen=True)
class Settings:
    """Where images and manifests are looked for."""

    access: Access
    manifest_base_url: str = ""


def versions_file() -> Path:
    """Return the file of pins."""
    return paths.repository() / "group_vars" / "all" / "versions.yml"


def settings(
    inventory: Path | None = None, mirror: str = "", manifests: str = "", authority: Path | None = None
) -> Settings:
    """Return those of an inventory, those that are given in their place, and the accounts of this machine."""
    known: dict[str, Any] = {}
    if inventory:
        try:
            known = inventories.variables(inventory, NAMES)
        except inventories.Unknown as error:
            raise DeliveryError(f"--inventory {inventory}: {error}") from error
    authorities = str(known.get("cluster_authorities") or "")
    if authority:
        try:
            authorities = authority.read_text()
        except (OSError, ValueError) as error:
            raise DeliveryError(f"--authority {authority}: cannot be read: {error}") from error
    logins = accounts()
    for name, account in (known.get("image_registry_credentials") or {}).items():
        logins[ACCOUNTS.get(name, name)] = (str(account["username"]), str(account["password"]))
    access = Access(mirror or str(known.get("image_registry_base_url") or ""), authorities, logins)
    return Settings(access, manifests or str(known.get("manifest_base_url") or ""))
