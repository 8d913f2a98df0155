"""Ansible's door to quote_platform.upgrade: waits until what runs is well."""

from __future__ import annotations

from typing import Any

from quote_platform import upgrade
from quote_platform.action import ControllerAction


class ActionModule(ControllerAction):
    """It changes nothing."""

    spec = upgrade.WAIT
    refused = upgrade.Refused

    def work(self, given: dict[str, Any], dry_run: bool) -> dict[str, Any]:
        """Do it; return what the task returns."""
        return upgrade.wait(given, dry_run)
