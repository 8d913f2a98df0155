"""Ansible's door to the part of quote_platform.component that deletes."""

from __future__ import annotations

from typing import Any

from quote_platform import component
from quote_platform.action import ControllerAction


class ActionModule(ControllerAction):
    """What it changes is behind the API server."""

    spec = component.PRUNE
    refused = component.Refused

    def work(self, given: dict[str, Any], dry_run: bool) -> dict[str, Any]:
        """Do it; return what the task returns."""
        return component.prune(given, dry_run)
