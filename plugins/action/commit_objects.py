"""Ansible's door to quote_platform.history."""

from __future__ import annotations

from typing import Any

from quote_platform import history, secrets
from quote_platform.action import ControllerAction
from quote_platform.validation import plain


class ActionModule(ControllerAction):
    """What it changes is a Git repository, and what that is pushed to."""

    spec = history.SPEC
    refused = history.Refused

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do what the task asks for, with what must not be in it."""
        self.secrets = secrets.values(task_vars or {}, lambda value: plain(self._templar.template(value)))
        return super().run(tmp, task_vars)

    def work(self, given: dict[str, Any], dry_run: bool) -> dict[str, Any]:
        """Do it; return what the task returns."""
        return history.run(given, self.secrets, dry_run)
