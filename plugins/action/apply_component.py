"""Ansible's door to quote_platform.component."""

from __future__ import annotations

import json
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
        _, given = self.validate_argument_spec(component.SPEC)
        given = json.loads(json.dumps(given))  # YAML cannot write Ansible's own kinds of values
        try:
            return result | component.run(given, self._task.check_mode)
        except component.Refused as error:
            return result | {"failed": True, "msg": f"component {given['name']}: {error}"}
