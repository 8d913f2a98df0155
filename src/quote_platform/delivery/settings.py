"""How an inventory reaches registries and manifests: the variables that nodes are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quote_platform import paths
from quote_platform.delivery import DeliveryError
from quote_platform.delivery.registry import ACCOUNTS, Access, accounts

FOLDERS = ("group_vars/all", "group_vars/platform")


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
    known = _variables(inventory) if inventory else {}
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


def _variables(inventory: Path) -> Mapping[str, Any]:
    """Return what an inventory says for all its machines; no host is asked for."""
    # Ansible takes half a second to load.
    from ansible.errors import AnsibleError  # noqa: PLC0415
    from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415
    from ansible.template import Templar  # noqa: PLC0415

    from quote_platform import validation  # noqa: PLC0415

    if not inventory.is_dir():
        raise DeliveryError(f"--inventory {inventory}: no such folder")
    values: dict[str, Any] = {}
    loader = DataLoader()
    wanted = (
        "image_registry_base_url",
        "image_registry_credentials",
        "manifest_base_url",
        "cluster_authorities",
    )
    try:
        folders = [paths.repository() / "group_vars/all", *(inventory / folder for folder in FOLDERS)]
        for folder in folders:
            for file in sorted(folder.glob("*.yml")):
                values |= loader.load_from_file(str(file), trusted_as_template=True) or {}
        template = Templar(loader, variables=values).template
        return {name: validation.plain(template(values[name])) for name in wanted if name in values}
    except AnsibleError as error:
        raise DeliveryError(f"--inventory {inventory}: {error}") from error
