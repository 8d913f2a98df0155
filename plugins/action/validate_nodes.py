"""Ansible's door to quote_platform.validation.nodes: judges what all nodes have said."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from quote_platform.validation import task


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible has no types
    """Runs on the controller, and asks whether that reaches what it fetches."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Judge all nodes and, if anything is wrong, fail with all of it."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, asked = self.validate_argument_spec(task.NODES)
        variables = task_vars or {}
        urls = task.controller_urls(variables, self._templar)
        probe = {}
        if urls:
            arguments = {"urls": urls, "timeout": asked["timeout"]}
            probe = self._execute_module("probe_node", arguments, task_vars=task_vars)
        return result | task.judge_nodes(asked, variables, self._templar, probe.get("away", {}))
