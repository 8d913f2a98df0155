"""Right input passes on live nodes; wrong input is refused with its cause, and no node is touched."""

import os
import re
import subprocess

import pytest


def validate(inventory, **variables):
    playbook = f"{os.environ['MOLECULE_SCENARIO_DIRECTORY']}/converge.yml"
    extra = [f"--extra-vars={name}={value}" for name, value in variables.items()]
    command = ["ansible-playbook", *inventory.arguments, *extra, playbook]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_live_nodes_pass_and_nothing_is_changed(inventory):
    done = validate(inventory)
    assert done.returncode == 0, done.stdout[-6000:]
    assert set(re.findall(r"changed=(\d+)", done.stdout)) == {"0"}, done.stdout[-6000:]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cluster_pod_cidr", "10.96.0.0/12", "overlaps cluster_service_cidr"),
        ("manifest_base_url", "mirror.example.com", "is not a URL"),
        ("backups_enabled", "false", "is text; allowed is true or false"),
    ],
)
def test_wrong_input_is_refused(inventory, name, value, message):
    done = validate(inventory, **{name: value})
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
