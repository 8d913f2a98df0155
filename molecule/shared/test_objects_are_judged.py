"""Roles whose image cannot be had: the API server accepts every object, and would refuse a wrong one."""

import json
import os
import re
from collections.abc import Iterator

import pytest

from scenario import Cluster, Inventory, words

ROLE = os.environ["MOLECULE_SCENARIO_NAME"]
KINDS = {
    "grafana": ("Deployment", "ConfigMap", "Ingress", "NetworkPolicy", "Secret"),
    "ingress_nginx": ("DaemonSet", "IngressClass", "ServiceAccount"),
}[ROLE]


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Iterator[str]:
    """Return the role's namespace: where it is not there, the server answers 404 and judges nothing."""
    name = ROLE.replace("_", "-")
    cluster.run(f"create namespace {name}")
    yield name
    cluster.run(f"delete namespace {name}")


def test_every_object_is_accepted(inventory: Inventory, space: str) -> None:
    _, output = inventory.converge("--check", "--diff")
    assert re.search(r"changed=[1-9]", output), "nothing was sent to the API server"
    for kind in KINDS:
        assert f"after: {kind} " in output
    # A default of the server: it has judged the object, not answered that there is no such namespace.
    assert "revisionHistoryLimit: 10" in output


def test_a_wrong_object_is_refused(inventory: Inventory, space: str) -> None:
    wrong = {f"{ROLE}_resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}
    done = inventory.play("--check", "--diff", "--extra-vars", json.dumps(wrong))
    assert done.returncode != 0
    assert "must be less than or equal to memory limit" in words(done)


def test_nothing_of_it_is_kept(cluster: Cluster, space: str) -> None:
    kinds = "daemonsets,deployments,services,secrets,networkpolicies,roles"
    assert not cluster.get(f"{kinds} --namespace={space}")["items"]
