"""Ansible's door to quote_platform.aws, which deletes."""

from __future__ import annotations

from typing import Any

from quote_platform import aws
from quote_platform.action import ControllerAction


class ActionModule(ControllerAction):
    """What it changes is an account of AWS."""

    spec = aws.DESTROY
    refused = aws.Refused

    def work(self, given: dict[str, Any], dry_run: bool) -> dict[str, Any]:
        """Do it; return what the task returns."""
        return aws.remove(given, dry_run)
