"""Ansible's door to quote_platform.upgrade: plans one."""

from __future__ import annotations

from typing import Any

from quote_platform import upgrade
from quote_platform.action import ControllerAction


class ActionModule(ControllerAction):
    """It changes nothing."""

    spec = upgrade.PLAN
    refused = upgrade.Refused

    def work(self, given: dict[str, Any], dry_run: bool) -> dict[str, Any]:
        """Do it; return what the task returns."""
        return upgrade.plan(given, dry_run)
