"""What the action use_vault is given and returns."""

DOCUMENTATION = """
module: use_vault
short_description: Initialise and unseal a Vault, bring its resources to a state, restore a snapshot
description:
  - Use Vault's API from the controller. Each call makes sure that it is initialised and unsealed.
  - For resources, a root token is made of the kept keys and revoked at the end.
  - Supports check mode, and shows differences without secrets.
options:
  address: {type: str, required: true, description: URL of Vault.}
  ca: {type: str, default: "", description: Authority of its certificate as PEM; empty means the system's.}
  keys_file: {type: path, required: true, description: File of its keys, encrypted by ansible-vault.}
  password_file: {type: path, required: true, description: File of the password for it; made when missing.}
  initialize: {type: bool, default: false, description: Initialise one that is empty; else it joins.}
  shares: {type: int, default: 5, description: Number of keys.}
  threshold: {type: int, default: 3, description: Number of keys that it takes.}
  snapshot: {type: path, default: "", description: Snapshot that takes the place of an empty Vault's content.}
  resources:
    description: What it has to have, in this order.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {type: str, required: true, description: Path in Vault's API.}
      data: {type: dict, default: {}, description: What is there; compared, so written only where it differs.}
      once: {type: dict, default: {}, description: Added when it is created, and never compared.}
      secret: {type: dict, default: {}, description: Added when it is written, neither compared nor shown.}
      after: {type: list, elements: str, default: [], description: Paths that are called once it is created.}
      hidden: {type: bool, default: false, description: Show only that its data differs.}
      call: {type: bool, default: false, description: Call it each time, without looking what is there.}
  read: {type: list, elements: str, default: [], description: Paths to read.}
  timeout: {type: int, default: 120, description: Seconds to wait for what comes up.}
notes:
  - C(community.hashi_vault) neither initialises nor unseals, restores no snapshot, and its C(vault_write)
    cannot tell whether anything would change.
author: [Quote Platform]
"""
RETURN = """
changes: {type: list, elements: str, returned: success, description: What was done.}
found: {type: dict, returned: success, description: What is at each path of O(read); null for nothing.}
"""
