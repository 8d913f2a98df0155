"""What the action plan_upgrade is given and returns."""

DOCUMENTATION = """
module: plan_upgrade
short_description: Plan what is done with the nodes of a running cluster, or refuse it with every reason
description:
  - Compares nodes with the pins, or, without a version, takes what they say is pending. Asks the API server
    which nodes are Ready, which PodDisruptionBudgets and pods would keep a node from being drained, and which
    APIs are used that the version no longer has.
  - Runs on the controller and changes nothing. In a dry run it says C(changed) where something is to be done.
options:
  kubeconfig: {type: path, required: true, description: Kubeconfig on the controller.}
  version: {type: str, default: "", description: "Version of Kubernetes, such as 1.36.3; empty leaves it."}
  packages: {type: dict, default: {}, description: Version of each package on every node.}
  images: {type: list, elements: str, default: [], description: Images of a control plane's static pods.}
  nodes:
    description: What each node has said, in the order in which they are upgraded.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {type: str, required: true, description: Name in the inventory and in the cluster.}
      control_plane: {type: bool, required: true, description: Whether it is one.}
      state:
        description:
          - Lines such as C(installed PACKAGE VERSION), C(image IMAGE), C(outdated SERVICE), C(unfinished),
            C(audit PATH USER), C(pending PHRASE), C(free MIB).
        type: list
        elements: str
        default: []
      silent: {type: str, default: "", description: Why it has said nothing.}
  free_mib: {type: int, required: true, description: MiB that must be free on a node that is upgraded.}
  batch: {type: str, required: true, description: "Workers at once, a number or a percentage such as 25%."}
author: [Quote Platform]
"""
RETURN = """
steps: {type: list, elements: str, returned: success, description: Names of the nodes, in order.}
kubeadm: {type: list, elements: str, returned: success, description: Those whose static pods are upgraded.}
lines: {type: list, elements: str, returned: success, description: The plan as a person reads it.}
unwell: {type: list, elements: str, returned: success, description: Workloads that are not well before.}
kubelets: {type: dict, returned: success, description: Name of each node -> version of its kubelet.}
"""
