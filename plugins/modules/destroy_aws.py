"""What the action destroy_aws is given and returns."""

DOCUMENTATION = """
module: destroy_aws
short_description: Delete everything of a cluster on AWS
description:
  - Refuse any account but one, and without the cluster's name as confirmation, saying what would go.
  - Delete what has the cluster's tag, in the order that AWS wants, repeat what AWS releases late, and ask AWS
    whether anything is left.
  - Runs on the controller. Supports check mode.
options:
  account_id: {type: str, required: true, description: The account.}
  region: {type: str, required: true, description: Region.}
  cluster: {type: str, required: true, description: Name of the cluster.}
  confirm: {type: str, default: "", description: The same name again.}
  buckets: {type: bool, default: false, description: "Whether buckets go too, and snapshots of databases."}
  key_days: {type: int, default: 30, description: "Days after which keys end, 7 to 30."}
  timeout: {type: int, default: 900, description: Seconds to wait for a single thing.}
author: [Quote Platform]
"""
RETURN = """
deleted: {type: list, elements: str, returned: success, description: What was deleted.}
calls: {type: dict, returned: success, description: Calls by operation.}
"""
