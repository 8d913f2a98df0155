"""Ansible's door to quote_platform.certificates; it runs with the controller's Python."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule

from quote_platform import certificates

DOCUMENTATION = """
module: issue_certificate
short_description: Issue a certificate on the controller and renew it before it ends
description:
  - Key and certificate lie on the controller, as does the authority that signs.
options:
  path: {type: path, required: true, description: File of the certificate without .crt; the key lies in .key.}
  authority: {type: path, default: "", description: Its authority; made when missing. Empty means itself.}
  common_name: {type: str, required: true, description: Name of the holder.}
  names: {type: list, elements: str, default: [], description: DNS names and IP addresses of the holder.}
  days: {type: int, default: 397, description: Days until it ends.}
  renew_days: {type: int, default: 60, description: It is renewed when fewer days are left.}
  is_authority:
    type: bool
    default: false
    description: Whether it signs others. Renewed, it keeps name and key; whoever trusts one trusts the other.
  adopt_certificate: {type: str, default: "", description: "Authority, as PEM, taken over if there is none."}
  adopt_key: {type: str, default: "", description: "Its key, as PEM."}
notes:
  - By C(community.crypto) the same is nine tasks, with an authority of its own. It took 4.8 s at first and
    4.4 s without a change, against 0.8 s and 1.4 s (C(bench/modules.py), 2 cores with much other work,
    2026-11-30).
author: [Quote Platform]
"""
RETURN = """
reason: {type: str, returned: always, description: Why it was issued; empty where it was not.}
"""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=certificates.SPEC, supports_check_mode=True)
    module.exit_json(**certificates.run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
