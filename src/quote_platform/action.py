"""What actions on the controller have in common, whose work is done by a function of this package."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from ansible.plugins.action import ActionBase

from quote_platform.kubeconfig import Unusable


class ControllerAction(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """Runs on the controller; what it changes is behind an API."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    # The arguments that the task takes, and what says that it cannot be done.
    spec: ClassVar[dict[str, Any]]
    refused: ClassVar[type[Exception]]

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do what the task asks for."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(self.spec)
        given = json.loads(json.dumps(given))  # YAML cannot write Ansible's own kinds of values
        try:
            return result | self.work(given, self._task.check_mode)
        except (self.refused, Unusable) as error:
            return result | {"failed": True, "msg": self.message(given, error)}

    def work(self, given: dict[str, Any], dry_run: bool) -> dict[str, Any]:
        """Do it; return what the task returns."""
        raise NotImplementedError

    def message(self, given: dict[str, Any], error: Exception) -> str:
        """Return what a refusal says."""
        return str(error)
