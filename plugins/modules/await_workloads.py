"""What the action await_workloads is given."""

DOCUMENTATION = """
module: await_workloads
short_description: Wait until all workloads of the cluster have their pods ready
description:
  - Deployments, StatefulSets, DaemonSets, and the clusters of PostgreSQL.
  - Runs on the controller. A dry run does not wait.
options:
  kubeconfig: {type: path, required: true, description: Kubeconfig on the controller.}
  known:
    description: Workloads that are not waited for, as M(plan_upgrade) returns them.
    type: list
    elements: str
    default: []
  restarted:
    description: Name of a node -> the second of the epoch in which it was restarted. What ran there before
      must have started anew.
    type: dict
    default: {}
  timeout: {type: int, default: 600, description: Seconds until it fails and names what is not well.}
author: [Quote Platform]
"""
