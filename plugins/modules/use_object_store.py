"""Ansible's door to quote_platform.object_store; it runs with the controller's Python."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule

from quote_platform import object_store

DOCUMENTATION = """
module: use_object_store
short_description: Judge accounts and buckets of an S3 object store by using them
description:
  - Put an object into each account's bucket, read it and delete it; or list a folder of one.
options:
  endpoint: {type: str, default: "", description: URL; empty means AWS.}
  region: {type: str, required: true, description: Region of the buckets.}
  ca: {type: str, default: "", description: Authority of the endpoint as PEM; empty means the system's.}
  accounts: {type: dict, required: true, description: "By purpose, each with bucket and access_key."}
  secret_keys: {type: dict, required: true, description: By purpose.}
  create: {type: bool, default: false, description: Create a missing bucket.}
  folder: {type: str, default: "", description: Only list what lies right below this folder; ends in a slash.}
  timeout: {type: int, default: 60, description: Seconds to wait for an endpoint that does not answer yet.}
author: [Quote Platform]
"""
RETURN = """
created: {type: list, elements: str, returned: always, description: Buckets that were missing.}
folders: {type: list, elements: str, returned: always, description: Folders right below O(folder), sorted.}
objects: {type: list, elements: str, returned: always, description: Objects right below O(folder), sorted.}
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=object_store.SPEC, supports_check_mode=True)
    try:
        module.exit_json(**object_store.run(module.params, module.check_mode))
    except object_store.Refused as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
