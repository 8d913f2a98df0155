"""Ansible's door to quote_platform.validation: judges the call, and all input at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

from quote_platform import validation
from quote_platform.validation import call, hosts


class ActionModule(ActionBase):
    """Runs on the controller."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Judge and, if anything is wrong, fail with all of it."""
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        project = Path(variables["role_path"]).resolve().parents[1]
        wrong = self._call(project, variables)
        if not wrong and not self._task.args.get("judged"):
            wrong = self._input(project, variables)
        if wrong:
            text = [f"{len(wrong)} mistake{'s' * (len(wrong) > 1)}; nothing was touched.", *wrong]
            result |= {"failed": True, "msg": "\n".join(text)}
        return result

    def _call(self, project: Path, variables: dict[str, Any]) -> list[str]:
        wanted = {
            "ansible_python_interpreter": variables["ansible_playbook_python"],
            "ansible_connection": "local",
            "ansible_become": False,
        }
        reached = set(variables["ansible_play_hosts_all"])
        return call.judge(
            call.Call(
                project=project,
                precedence=constants.VARIABLE_PRECEDENCE,
                tags=variables["ansible_run_tags"],
                limit="" if self._task.args.get("limit_allowed") else variables.get("ansible_limit") or "",
                left_out=[host for host in hosts.machines(variables["groups"]) if host not in reached],
                connection={name: (self._templar.template(variables[name]), wanted[name]) for name in wanted},
                validates=self._task.args.get("together", True),
                empty=not variables["groups"]["all"],
            )
        )

    def _input(self, project: Path, variables: dict[str, Any]) -> list[str]:
        hostvars, groups = variables["hostvars"], variables["groups"]
        return validation.judge(
            validation.Input(
                project=project,
                groups=groups,
                raw={host: hostvars.raw_get(host) for host in groups["all"]},
                templar=lambda known: self._templar.copy_with_new_env(available_variables=known).template,
                extra=frozenset(load_extra_vars(self._loader)),
                hostvars=hostvars,
            ),
            together=self._task.args.get("together", True),
        )
