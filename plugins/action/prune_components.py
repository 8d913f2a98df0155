"""Ansible's door to the part of quote_platform.component that deletes."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from quote_platform import component


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """Runs on the controller; what it changes is behind the API server."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do what the task asks for."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(component.PRUNE)
        try:
            return result | component.prune(given, self._task.check_mode)
        except component.Refused as error:
            return result | {"failed": True, "msg": str(error)}
