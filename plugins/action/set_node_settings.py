"""Ansible's door to quote_platform.node_settings."""

from __future__ import annotations

from typing import Any

from quote_platform import node_settings
from quote_platform.action import ControllerAction


class ActionModule(ControllerAction):
    """What it changes is behind the API server."""

    spec = node_settings.SPEC
    refused = node_settings.Refused

    def work(self, given: dict[str, Any], dry_run: bool) -> dict[str, Any]:
        """Do it; return what the task returns."""
        return node_settings.reconcile(given, dry_run)
