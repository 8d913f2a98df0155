"""What is named is set, what is no longer named goes away, and what others set stays."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from scenario import Cluster, Inventory, words

RECORD = "quote-platform/node-settings"
Object = dict[str, Any]


@pytest.fixture
def others(cluster: Cluster, worker_name: str) -> Iterator[None]:
    """Let somebody else set a label and a taint."""
    cluster.run(f"label node {worker_name} example.com/theirs=yes")
    cluster.run(f"taint node {worker_name} example.com/theirs=yes:PreferNoSchedule")
    yield
    cluster.run(f"label node {worker_name} example.com/theirs-")
    cluster.run(f"taint node {worker_name} example.com/theirs-")


def settings(cluster: Cluster, name: str) -> tuple[Object, Object, Object]:
    """Return labels, annotations and taints of a node."""
    node = cluster.get(f"node {name}")
    taints = {f"{one['key']}:{one['effect']}": one.get("value", "") for one in node["spec"].get("taints", [])}
    return node["metadata"]["labels"], node["metadata"]["annotations"], taints


def wanted(**parts: Any) -> tuple[str, str]:
    """Return the options that want something else of the worker."""
    return "--extra-vars", json.dumps({"settings": parts})


def test_what_is_named_is_there(cluster: Cluster, worker_name: str) -> None:
    labels, annotations, taints = settings(cluster, worker_name)
    assert labels["example.com/disk"] == "ssd"
    assert annotations["example.com/rack"] == "3, left"
    assert taints["example.com/batch:PreferNoSchedule"] == "true"


def test_what_is_no_longer_named_goes_and_what_others_set_stays(
    inventory: Inventory, cluster: Cluster, worker_name: str, others: None
) -> None:
    before = settings(cluster, worker_name)
    less = wanted(labels={"example.com/disk": "nvme"}, taints=[])
    changes, output = inventory.converge("--check", "--diff", *less)
    assert sum(changes.values()) == 1
    assert f"+++ after: Node {worker_name}" in output
    assert "+  example.com/disk: nvme" in output
    assert "-  example.com/rack: 3, left" in output
    assert settings(cluster, worker_name) == before

    inventory.converge(*less)
    labels, annotations, taints = settings(cluster, worker_name)
    assert labels == before[0] | {"example.com/disk": "nvme"}
    assert set(annotations) == set(before[1]) - {"example.com/rack"}
    assert set(taints) == set(before[2]) - {"example.com/batch:PreferNoSchedule"}
    inventory.unchanged(*less)

    inventory.converge(*wanted())
    labels, annotations, taints = settings(cluster, worker_name)
    assert "example.com/disk" not in labels
    assert RECORD not in annotations
    assert labels["example.com/theirs"] == "yes"
    assert taints["example.com/theirs:PreferNoSchedule"] == "yes"
    inventory.converge()
    assert settings(cluster, worker_name)[0] == before[0]


def test_what_was_changed_by_hand_is_named_and_set_again(
    inventory: Inventory, cluster: Cluster, worker_name: str
) -> None:
    cluster.run(f"label node {worker_name} example.com/disk-")
    cluster.run(f"taint node {worker_name} example.com/batch-")
    changes, output = inventory.converge("--check", "--diff")
    assert sum(changes.values()) == 1
    assert "+  example.com/disk: ssd" in output
    assert "+- effect: PreferNoSchedule" in output
    inventory.converge()
    assert settings(cluster, worker_name)[0]["example.com/disk"] == "ssd"
    inventory.unchanged()


def test_a_node_that_is_none_is_refused(inventory: Inventory) -> None:
    done = inventory.play("--extra-vars", json.dumps({"node": "nobody"}))
    assert done.returncode != 0
    assert "no nodes of the cluster: nobody" in words(done)
