"""Ansible's door to quote_platform.validation: judges all input at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from quote_platform import validation


class ActionModule(ActionBase):
    """Runs on the controller."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Judge and, if anything is wrong, fail with all of it."""
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        hostvars, groups = variables["hostvars"], variables["groups"]
        wrong = validation.judge(
            validation.Input(
                project=Path(variables["role_path"]).resolve().parents[1],
                groups=groups,
                raw={host: hostvars.raw_get(host) for host in groups["all"]},
                templar=lambda known: self._templar.copy_with_new_env(available_variables=known).template,
                hostvars=hostvars,
            )
        )
        if wrong:
            text = [f"{len(wrong)} mistake{'s' * (len(wrong) > 1)}; nothing was touched.", *wrong]
            result |= {"failed": True, "msg": "\n".join(text)}
        return result
