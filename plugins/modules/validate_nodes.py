"""What the action validate_nodes is given."""

DOCUMENTATION = """
module: validate_nodes
short_description: Judge what all nodes have said about themselves
description:
  - Only for the role validate, which has registered it on each of them. Fails with every fault at once.
options:
  hosts: {type: list, elements: str, required: true, description: Names of the nodes in the inventory.}
  bounds: {type: dict, required: true, description: What a node needs, named as the variables of the role.}
  timeout: {type: int, default: 5, description: Seconds for the controller to reach the hosts of manifests.}
author: [Quote Platform]
"""
