"""Which cluster an inventory means."""

from typing import Any

from pydantic import BaseModel

from quote_platform import bastion, inventory
from quote_platform.jobs.definition import Plan

NAMES = [
    *("cluster_name", "cluster_kubeconfig"),
    *("monitoring_enabled", "monitoring_namespace", "cluster_monitoring_namespace"),
    *bastion.NAMES,
]


class Cluster(BaseModel):
    """What the locks and metrics need to know of a cluster."""

    name: str
    kubeconfig: str = ""
    # Namespace of its Prometheus; empty where it has none.
    monitoring: str = ""
    # By which bastion it is reached, if by one, or past which proxy.
    way: bastion.Way | None = None
    # Why the name is only that of the inventory.
    unknown: str = ""


def ask(plan: Plan, variables: dict[str, Any], environment: dict[str, str]) -> Cluster:
    """Return the cluster of an inventory, or one that is named after the inventory's path."""
    question = inventory.Question(
        inventory=plan.inventory,
        names=NAMES,
        project=plan.project,
        playbook=plan.playbook,
        variables_files=plan.variables_files,
        variables=variables,
        vault_password_file=plan.vault_password_file,
    )
    try:
        # What has no value, a job of this inventory will say.
        values = inventory.ask(question, environment).values
        known = {name: str(value) for name, value in values.items()}
        if not known.get("cluster_name"):
            raise inventory.Unknown("cluster_name is not set")
    except inventory.Unknown as error:
        return Cluster(name=plan.inventory.strip("/").replace("/", "_"), unknown=str(error))
    monitored = known.get("monitoring_enabled", "").lower() in {"true", "yes", "1"}
    namespace = known.get("monitoring_namespace") or known.get("cluster_monitoring_namespace", "")
    return Cluster(
        name=known["cluster_name"],
        kubeconfig=known.get("cluster_kubeconfig", ""),
        monitoring=namespace if monitored else "",
        way=bastion.way(values),
    )
