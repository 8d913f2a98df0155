"""Ansible's door to quote_platform.component."""

from __future__ import annotations

from typing import Any

from quote_platform import component
from quote_platform.action import ControllerAction


class ActionModule(ControllerAction):
    """What it changes is behind the API server."""

    spec = component.SPEC
    refused = component.Refused

    def work(self, given: dict[str, Any], dry_run: bool) -> dict[str, Any]:
        """Do it; return what the task returns."""
        return component.run(given, dry_run)

    def message(self, given: dict[str, Any], error: Exception) -> str:
        """Return what a refusal says."""
        return f"component {given['name']}: {error}"
