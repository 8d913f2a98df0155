"""What the action prune_components is given and returns."""

DOCUMENTATION = """
module: prune_components
short_description: Delete whole components from the API server
description:
  - Delete what M(apply_component) has recorded of components that are not chosen any more, and the record.
  - What holds data, and what others use, stays; see M(apply_component).
  - Runs on the controller. Supports check mode.
options:
  names: {type: list, elements: str, required: true, description: Names of the components, in order.}
  kubeconfig: {type: path, required: true, description: Kubeconfig on the controller.}
  timeout: {type: int, default: 120, description: Seconds to wait until they are gone.}
author: [Quote Platform]
"""
RETURN = """
deleted: {type: list, elements: str, returned: success, description: "Each with API version, kind and name."}
changes: {type: list, elements: str, returned: success, description: What was done to which object.}
"""
