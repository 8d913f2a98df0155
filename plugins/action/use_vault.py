"""Ansible's door to quote_platform.vault."""
# An action: keys and tokens stay in this process, and are in no file of a module's.

from __future__ import annotations

from typing import Any

from quote_platform import vault
from quote_platform.action import ControllerAction


class ActionModule(ControllerAction):
    """What it changes is behind Vault's API."""

    spec = vault.SPEC
    refused = vault.Refused

    def work(self, given: dict[str, Any], dry_run: bool) -> dict[str, Any]:
        """Do it; return what the task returns."""
        return vault.run(given, dry_run)
