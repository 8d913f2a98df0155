"""Every scenario: a dry run on what it converged finds nothing to do, and says so host by host."""

import os
import re
import subprocess


def test_dry_run_after_converge_is_empty(inventory):
    playbook = f"{os.environ['MOLECULE_SCENARIO_DIRECTORY']}/converge.yml"
    command = ["ansible-playbook", *inventory.arguments, "--check", "--diff", playbook]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    recap = dict(re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", done.stdout, re.MULTILINE))
    assert recap, done.stdout[-2000:]
    assert set(recap.values()) == {"0"}, done.stdout[-8000:]
