"""What the action validate_input is given."""

DOCUMENTATION = """
module: validate_input
short_description: Judge the call and all input, before any node is contacted
description:
  - Only for the role validate, by whose place it finds the project. Fails with every mistake at once.
  - Judges the command line, the inventory, and each host's variables by the argument specs of all roles.
options:
  judged: {type: bool, default: false, description: The input was judged in this run; judge the call only.}
  together: {type: bool, default: true, description: Judge values with one another too, not only each alone.}
  limit_allowed: {type: bool, default: false, description: The playbook is meant for C(--limit).}
author: [Quote Platform]
"""
