"""What the action set_node_settings is given."""

DOCUMENTATION = """
module: set_node_settings
short_description: Set labels, annotations and taints of nodes
description:
  - Set what is named, and take away what was set here before and is no longer named. What others set stays.
  - Which are ours is recorded on the node, in the annotation C(quote-platform/node-settings).
  - Runs on the controller. Supports check mode.
options:
  kubeconfig: {type: path, required: true, description: Kubeconfig on the controller.}
  nodes:
    description: Name of a node -> its labels and annotations, as mappings, and its taints, as a list of key,
      value and effect.
    type: dict
    required: true
author: [Quote Platform]
"""
