"""Ansible's door to quote_platform.validation.nodes: judges what all nodes have said."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from quote_platform.validation import nodes


class ActionModule(ActionBase):
    """Runs on the controller."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Judge all nodes and, if anything is wrong, fail with all of it."""
        result = super().run(tmp, task_vars)
        arguments = self._task.args
        wrong = nodes.judge_all(arguments["hosts"], (task_vars or {})["hostvars"], arguments["bounds"])
        if wrong:
            text = [f"{len(wrong)} fault{'s' * (len(wrong) > 1)}; nothing was changed.", *wrong]
            result |= {"failed": True, "msg": "\n".join(text)}
        return result
