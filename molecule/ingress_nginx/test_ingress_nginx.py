"""The API server accepts every object of ingress-nginx, and would refuse a wrong one."""

import os
import re
import subprocess

import pytest


@pytest.fixture(scope="module")
def space(cluster):
    """Where it is not there, the server answers 404 to each object in it, and judges none."""
    cluster.run("create namespace ingress-nginx")
    yield "ingress-nginx"
    cluster.run("delete namespace ingress-nginx")


def dry_run(inventory, *arguments):
    playbook = f"{os.environ['MOLECULE_SCENARIO_DIRECTORY']}/converge.yml"
    command = ["ansible-playbook", *inventory.arguments, "--check", "--diff", *arguments, playbook]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_object_is_accepted(inventory, space):
    done = dry_run(inventory)
    assert done.returncode == 0, done.stdout[-6000:]
    assert re.search(r"changed=[1-9]", done.stdout), "nothing was sent to the API server"
    for kind in ("DaemonSet", "IngressClass", "ServiceAccount"):
        assert f"after: {kind} " in done.stdout
    # A default of the server: it has judged the object, not answered that there is no such namespace.
    assert "revisionHistoryLimit: 10" in done.stdout


def test_a_wrong_object_is_refused(inventory, space):
    wrong = '{"ingress_nginx_resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}'
    done = dry_run(inventory, "--extra-vars", wrong)
    assert done.returncode != 0
    assert "must be less than or equal to memory limit" in " ".join((done.stdout + done.stderr).split())


def test_nothing_of_it_is_kept(cluster, space):
    kinds = "daemonsets,deployments,services,secrets,networkpolicies,roles"
    assert not cluster.get(f"{kinds} --namespace={space}")["items"]
