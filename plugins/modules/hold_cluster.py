"""What the action hold_cluster is given."""

DOCUMENTATION = """
module: hold_cluster
short_description: Keep others from upgrading the cluster at the same time
description:
  - A Lease in the cluster names this run of C(ansible-playbook). A run that was killed holds nothing on its
    own controller; for others its Lease ends an hour after its last sign of life. A dry run does nothing.
options:
  kubeconfig: {type: path, required: true, description: Kubeconfig on the controller.}
  held: {type: bool, required: true, description: Hold it and give a sign of life, or free it.}
author: [Quote Platform]
"""
