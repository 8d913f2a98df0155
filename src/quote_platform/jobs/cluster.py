"""Which cluster an inventory means: asked in a process of its own, since Ansible reads ansible.cfg once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from quote_platform.jobs.definition import Plan


class Cluster(BaseModel):
    """What the locks and metrics need to know of a cluster."""

    name: str
    kubeconfig: str = ""
    # Namespace of its Prometheus; empty where it has none.
    monitoring: str = ""
    # Why the name is only that of the inventory.
    unknown: str = ""


def ask(plan: Plan, variables: dict[str, Any], environment: dict[str, str]) -> Cluster:
    """Return the cluster of an inventory, or one that is named after the inventory's path."""
    given = json.dumps(plan.model_dump() | {"variables": variables})
    done = subprocess.run(
        [sys.executable, "-m", "quote_platform.jobs.cluster"],
        input=given,
        cwd=plan.project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return Cluster.model_validate_json(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        lines = done.stderr.strip().splitlines() or ["no answer"]
        return Cluster(name=plan.inventory.strip("/").replace("/", "_"), unknown=lines[-1])


def _main() -> None:
    from ansible import constants  # noqa: PLC0415 (reads ansible.cfg)
    from ansible.cli import CLI  # noqa: PLC0415
    from ansible.errors import AnsibleError  # noqa: PLC0415
    from ansible.inventory.manager import InventoryManager  # noqa: PLC0415
    from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415
    from ansible.plugins.loader import init_plugin_loader  # noqa: PLC0415
    from ansible.template import Templar  # noqa: PLC0415
    from ansible.vars.manager import VariableManager  # noqa: PLC0415

    init_plugin_loader()
    given = json.load(sys.stdin)
    project = Path(given["project"])
    folder = (project / given["playbook"]).parent
    loader = DataLoader()
    loader.set_basedir(str(folder))  # group_vars beside the playbook count
    files = [given["vault_password_file"]] if given["vault_password_file"] else []
    identities = constants.DEFAULT_VAULT_IDENTITY_LIST
    # Without a password file there is none: nobody is here to be asked.
    secrets = CLI.setup_vault_secrets(
        loader, vault_ids=identities, vault_password_files=files, auto_prompt=False
    )
    loader.set_vault_secrets(secrets)
    inventory = InventoryManager(loader=loader, sources=[given["inventory"]])
    manager = VariableManager(loader=loader, inventory=inventory)
    machines = inventory.get_hosts("control_plane") or inventory.get_hosts()
    if not machines:
        sys.exit("the inventory has no hosts")
    known = manager.get_vars(host=machines[0]) | {"playbook_dir": str(folder)}
    for file in given["variables_files"]:
        known |= loader.load_from_file(file) or {}
    known |= given["variables"]
    templar = Templar(loader=loader, variables=known)

    def value(name: str) -> str:
        try:
            return str(templar.template(known[name])) if name in known else ""
        except AnsibleError:
            return ""  # a job of this inventory will say what is wrong

    name = value("cluster_name")
    if not name:
        sys.exit("cluster_name is not set")
    monitored = value("monitoring_enabled").lower() in {"true", "yes", "1"}
    namespace = value("monitoring_namespace") or value("cluster_monitoring_namespace")
    found = Cluster(
        name=name, kubeconfig=value("cluster_kubeconfig"), monitoring=namespace if monitored else ""
    )
    print(found.model_dump_json())


if __name__ == "__main__":
    os.environ["ANSIBLE_NOCOLOR"] = "1"
    _main()
