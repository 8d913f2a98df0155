"""Ansible's door to quote_platform.upgrade: keeps a second one away."""

from __future__ import annotations

from typing import Any

from quote_platform import upgrade
from quote_platform.action import ControllerAction


class ActionModule(ControllerAction):
    """What it changes is one Lease."""

    spec = upgrade.HOLD
    refused = upgrade.Refused

    def work(self, given: dict[str, Any], dry_run: bool) -> dict[str, Any]:
        """Do it; return what the task returns."""
        return upgrade.hold(given, dry_run)
