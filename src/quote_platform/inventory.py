"""What an inventory says, asked of Ansible in a process of its own, since it reads ansible.cfg once."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from quote_platform import paths


class Unknown(Exception):
    """An inventory cannot be read; the text says why."""


class Question(BaseModel):
    """Which variables of an inventory, and what a run of a playbook would be given beside it."""

    inventory: str
    names: list[str]
    project: str
    # Relative to the project: the group_vars beside it count.
    playbook: str = "site.yml"
    variables_files: list[str] = []
    variables: dict[str, Any] = {}
    # Empty: what ansible.cfg or the environment names. Nobody is asked for a password.
    vault_password_file: str = ""


class Answer(BaseModel):
    """The variables that are set, of the first control plane, or of the first host where there is none."""

    values: dict[str, Any]
    # Why the others, which are set as well, have no value.
    wrong: dict[str, str]


def ask(question: Question, environment: Mapping[str, str] | None = None) -> Answer:
    """Return what Ansible knows, or raise Unknown. Only plugins of the inventory connect to anybody."""
    done = subprocess.run(
        [sys.executable, "-m", "quote_platform.inventory"],
        input=question.model_dump_json(),
        cwd=question.project,
        env={
            **(os.environ if environment is None else environment),
            "ANSIBLE_CONFIG": f"{question.project}/ansible.cfg",
            "ANSIBLE_NOCOLOR": "1",
            "PWD": question.project,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return Answer.model_validate_json(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        lines = done.stderr.strip().splitlines() or ["no answer"]
        raise Unknown(lines[-1]) from None


def variables(inventory: Path, names: list[str]) -> dict[str, Any]:
    """Return those of an inventory that are set; raise Unknown if one of them has no value."""
    question = Question(inventory=str(inventory.resolve()), names=names, project=str(paths.repository()))
    answer = ask(question)
    for name, why in answer.wrong.items():
        raise Unknown(f"{name}: {why}")
    return answer.values


def _main() -> None:
    from ansible import constants, context  # noqa: PLC0415 (reads ansible.cfg)
    from ansible.cli import CLI  # noqa: PLC0415
    from ansible.errors import AnsibleError  # noqa: PLC0415
    from ansible.inventory.manager import InventoryManager  # noqa: PLC0415
    from ansible.module_utils.common.collections import ImmutableDict  # noqa: PLC0415
    from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415
    from ansible.plugins.loader import init_plugin_loader  # noqa: PLC0415
    from ansible.template import Templar  # noqa: PLC0415
    from ansible.vars.hostvars import HostVars  # noqa: PLC0415
    from ansible.vars.manager import VariableManager  # noqa: PLC0415

    init_plugin_loader()
    asked = Question.model_validate_json(sys.stdin.read())
    folder = (Path(asked.project) / asked.playbook).parent
    loader = DataLoader()
    loader.set_basedir(str(folder))  # group_vars beside the playbook count
    files = [asked.vault_password_file] if asked.vault_password_file else []
    identities = constants.DEFAULT_VAULT_IDENTITY_LIST
    # Without a password file there is none: nobody is here to be asked.
    secrets = CLI.setup_vault_secrets(
        loader, vault_ids=identities, vault_password_files=files, auto_prompt=False
    )
    loader.set_vault_secrets(secrets)
    # As on a command line: templates in them are resolved, and they win.
    extra = [*(f"@{file}" for file in asked.variables_files), json.dumps(asked.variables)]
    context.CLIARGS = ImmutableDict(extra_vars=tuple(extra))
    inventory = InventoryManager(loader=loader, sources=[asked.inventory])
    manager = VariableManager(loader=loader, inventory=inventory)
    HostVars(
        inventory=inventory, variable_manager=manager, loader=loader
    )  # for templates that ask for others
    machines = inventory.get_hosts("control_plane") or inventory.get_hosts()
    if not machines:
        sys.exit("the inventory has no hosts")
    known = manager.get_vars(host=machines[0]) | {"playbook_dir": str(folder)}
    templar = Templar(loader=loader, variables=known)
    values, wrong = {}, {}
    for name in asked.names:
        if name not in known:
            continue
        try:
            # What an inventory encrypts line by line is decrypted by being written.
            values[name] = json.loads(json.dumps(templar.template(known[name]), default=str))
        except AnsibleError as error:
            wrong[name] = str(error).splitlines()[0]
    print(Answer(values=values, wrong=wrong).model_dump_json())


if __name__ == "__main__":
    _main()
