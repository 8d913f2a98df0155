"""The API server accepts every object of Grafana, and would refuse a wrong one."""

import os
import re
import subprocess


def dry_run(inventory, *arguments):
    playbook = f"{os.environ['MOLECULE_SCENARIO_DIRECTORY']}/converge.yml"
    command = ["ansible-playbook", *inventory.arguments, "--check", "--diff", *arguments, playbook]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_object_is_accepted(inventory):
    done = dry_run(inventory)
    assert done.returncode == 0, done.stdout[-6000:]
    assert re.search(r"changed=[1-9]", done.stdout), "nothing was sent to the API server"
    for kind in ("Deployment", "ConfigMap", "Ingress", "NetworkPolicy", "Secret"):
        assert kind in done.stdout


def test_a_wrong_object_is_refused(inventory):
    wrong = '{"grafana_resources": {"requests": {"memory": "much"}}}'
    done = dry_run(inventory, "--extra-vars", wrong)
    assert done.returncode != 0
    assert "quantities must match" in " ".join((done.stdout + done.stderr).split())


def test_nothing_of_it_is_kept(cluster):
    names = [item["metadata"]["name"] for item in cluster.get("namespaces")["items"]]
    assert "grafana" not in names
