"""Ansible fails without an inventory that it can read: no cluster is taken by default."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no inventory: pass -i inventories/NAME"),
        (["-i", "inventories/mistyped"], "inventories/mistyped"),
        (["-i", "inventories/production", "-i", "inventories/mistyped"], "inventories/mistyped"),
    ],
)
def test_a_command_without_an_inventory_fails(arguments: list[str], message: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ANSIBLE_INVENTORY"}
    command = ["ansible-playbook", *arguments, "site.yml", "--list-hosts"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Completely failed to parse inventory source" in done.stderr
    assert message in done.stderr
