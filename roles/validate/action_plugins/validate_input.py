"""Ansible's door to quote_platform.validation: judges the call, and all input at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

from quote_platform import validation
from quote_platform.validation import command, hosts


class ActionModule(ActionBase):
    """Runs on the controller."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Judge and, if anything is wrong, fail with all of it."""
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        hostvars, groups = variables["hostvars"], variables["groups"]
        project = Path(variables["role_path"]).resolve().parents[1]
        wanted = {
            "ansible_python_interpreter": variables["ansible_playbook_python"],
            "ansible_connection": "local",
            "ansible_become": False,
        }
        called = command.Command(
            project=project,
            precedence=constants.VARIABLE_PRECEDENCE,
            tags=variables["ansible_run_tags"],
            limit=variables.get("ansible_limit") or "",
            left_out=sorted(set(hosts.machines(groups)) - set(variables["ansible_play_hosts_all"])),
            connection={name: (self._templar.template(variables[name]), wanted[name]) for name in wanted},
        )
        given = validation.Input(
            project=project,
            groups=groups,
            raw={host: hostvars.raw_get(host) for host in groups["all"]},
            templar=lambda known: self._templar.copy_with_new_env(available_variables=known).template,
            extra=frozenset(load_extra_vars(self._loader)),
            hostvars=hostvars,
        )
        only_command = self._task.args.get("only_command", False)
        wrong = command.judge(called) or ([] if only_command else validation.judge(given))
        if wrong:
            text = [f"{len(wrong)} mistake{'s' * (len(wrong) > 1)}; nothing was touched.", *wrong]
            result |= {"failed": True, "msg": "\n".join(text)}
        return result
