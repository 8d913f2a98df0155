"""Ansible's door to quote_platform.log_archive."""
# An action: keys stay in this process, and a long search says how far it is.

from __future__ import annotations

from typing import Any

from quote_platform import log_archive
from quote_platform.action import ControllerAction
from quote_platform.object_store import Refused


class ActionModule(ControllerAction):
    """What it writes is a file on the controller."""

    spec = log_archive.SPEC
    refused = Refused

    def work(self, given: dict[str, Any], dry_run: bool) -> dict[str, Any]:
        """Do it; return what the task returns."""
        return log_archive.run(given, dry_run, self._display.display)
