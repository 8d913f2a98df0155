"""What the action apply_aws is given and returns."""

DOCUMENTATION = """
module: apply_aws
short_description: Make what a cluster has on AWS as it is declared
description:
  - Refuse any account but one; judge all that is declared; list what is there, by one listing of each kind;
    make the difference, independent things side by side. Nothing is deleted; what nobody declares any more
    is named.
  - Credentials are those that boto3 finds; C(AWS_ENDPOINT_URL) names another place than AWS.
  - Runs on the controller. Supports check mode, also on an empty account; differences are by fields.
options:
  account_id: {type: str, required: true, description: The account.}
  region: {type: str, required: true, description: Region.}
  cluster: {type: str, required: true, description: Name of the cluster.}
  pod_cidr: {type: str, required: true, description: Network of pods.}
  service_cidr: {type: str, required: true, description: Network of services.}
  network: {type: dict, required: true, description: What the role aws_network declares.}
  machines: {type: dict, required: true, description: What the role aws_machines declares.}
  balancers: {type: dict, required: true, description: What the role aws_load_balancers declares.}
  buckets: {type: dict, required: true, description: What the role aws_buckets declares.}
  keys: {type: dict, required: true, description: What the role aws_keys declares.}
  registry: {type: dict, required: true, description: What the role aws_registry declares.}
  database: {type: dict, required: true, description: What the role aws_database declares.}
  dns: {type: dict, required: true, description: What the role aws_dns declares.}
  budget: {type: float, default: 0, description: US dollars a month; 0 means none.}
  budget_mails: {type: list, elements: str, default: [], description: Who is told of the budget by mail.}
  assumed: {type: dict, default: {}, description: What the bill assumes.}
  inventory: {type: path, default: "", description: "Inventory, of which aws_ec2.yml is judged."}
  timeout: {type: int, default: 900, description: Seconds to wait for a single thing.}
author: [Quote Platform]
"""
RETURN = """
changes: {type: list, elements: str, returned: success, description: "What was done to what, by fields."}
chain: {type: list, elements: str, returned: success, description: What followed one another for longest.}
calls: {type: dict, returned: success, description: Calls by operation.}
objects: {type: int, returned: success, description: "Objects of AWS, as Terraform's provider counts them."}
outputs: {type: dict, returned: success, description: What the platform needs of it.}
cost: {type: list, elements: str, returned: success, description: The bill of a month.}
"""
