"""Ansible's door to quote_platform.validation: judges the call, and all input at once."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from quote_platform.validation import task


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """Runs on the controller and contacts nobody."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Judge and, if anything is wrong, fail with all of it."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, asked = self.validate_argument_spec(task.INPUT)
        result |= task.judge_input(asked, task_vars or {}, self._templar, self._loader)
        for line in result.pop("warnings", []):
            Display().warning(line, formatted=True)
        return result
