"""Ansible's door to quote_platform.validation.sources: asks a machine what it reaches of what it needs."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from quote_platform.validation import task


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """Adds what the machine fetches from, and where it keeps data and listens."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module on the machine."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        given = self._task.args
        arguments = given | task.machine_arguments(task_vars or {}, self._templar)
        arguments["urls"] = [*given.get("urls", []), *arguments["urls"]]
        result |= self._execute_module(module_args=arguments, task_vars=task_vars)
        return result
