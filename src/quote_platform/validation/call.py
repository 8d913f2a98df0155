"""How a playbook was called: with which configuration, for which hosts and which part of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Tags that Ansible knows by itself.
TAGS = ("all", "always", "tagged", "untagged")


@dataclass(frozen=True)
class Call:
    """What was said on the command line and is in effect."""

    project: Path
    # Order in which variables of groups win, the weakest first; ansible.cfg sets it.
    precedence: list[str]
    tags: list[str]
    limit: str
    # Machines that the limit leaves out.
    left_out: list[str]
    # Values that a play on the controller has, and those that it wants.
    connection: dict[str, tuple[Any, Any]]
    # Whether the inventory has no hosts.
    empty: bool = False
    # Whether it is playbooks/validate.yml, the only one that has a tag.
    validates: bool = False


def judge(called: Call) -> list[str]:
    """Return what is wrong with a call."""
    wrong = []
    if called.precedence[:2] != ["all_plugins_play", "groups_plugins_play"]:
        wrong.append(
            f"ansible.cfg: the project's own is not in effect; run in {called.project}, "
            f"or set ANSIBLE_CONFIG={called.project}/ansible.cfg"
        )
    if called.empty:
        wrong.append("the inventory has no hosts; inventories/production is an example")
    if called.limit and called.left_out:
        wrong.append(
            f"--limit {called.limit}: leaves out {', '.join(called.left_out)}; a run needs facts of all "
            "machines, and changes only those that differ: run without --limit"
        )
    wrong += [
        f"--tags {tag}: no task has this tag; allowed is static, for playbooks/validate.yml, or no --tags"
        for tag in called.tags
        if tag not in TAGS and not (called.validates and tag == "static")
    ]
    wrong += [
        f"{name}: given with -e, it applies to the controller too, which needs {wanted}; "
        "set it in the inventory"
        for name, (found, wanted) in called.connection.items()
        if found != wanted
    ]
    return wrong
