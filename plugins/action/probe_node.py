"""Ansible's door to quote_platform.validation.sources: asks a machine what it reaches of what it needs."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from quote_platform.validation import task


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """Adds to the module's addresses those of the machine's packages and images."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module on the machine."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        urls = [*self._task.args.get("urls", []), *task.machine_urls(task_vars or {}, self._templar)]
        arguments = {**self._task.args, "urls": urls}
        result |= self._execute_module(module_args=arguments, task_vars=task_vars)
        return result
