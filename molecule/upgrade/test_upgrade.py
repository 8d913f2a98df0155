"""What an upgrade would do, what it refuses, and how a node is taken out of service and comes back."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from scenario import Cluster, Inventory, MakePod, words


@pytest.fixture
def kept(
    cluster: Cluster, namespace: str, pod: MakePod, worker_name: str, variables: dict[str, Any]
) -> Iterator[str]:
    """Return a namespace that has a pod on the worker which its PodDisruptionBudget lets not go."""
    made = pod(
        "kept",
        variables["verify_image"],
        container={"args": ["pause"]},
        nodeSelector={"kubernetes.io/hostname": worker_name},
    )
    template = {"metadata": {"labels": {"app": "kept"}}, "spec": made["spec"]}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "kept"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "kept"}}, "template": template},
    }
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "kept"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "kept"}}},
    }
    cluster.apply(namespace, deployment, budget)
    cluster.wait(f"--namespace={namespace} --for=condition=Available deployment/kept")
    yield namespace
    cluster.run(f"uncordon {worker_name}")
    cluster.run(f"annotate node {worker_name} quote-platform/maintenance-")


def node(cluster: Cluster, name: str) -> tuple[bool, str]:
    """Return whether a node takes no pods, and its mark."""
    found = cluster.get(f"node {name}")
    mark = found["metadata"].get("annotations", {}).get("quote-platform/maintenance", "")
    return bool(found["spec"].get("unschedulable")), mark


def test_a_dry_run_shows_the_plan_of_another_version(inventory: Inventory) -> None:
    version = ["-e", "kubernetes_version=1.36.9", "-e", json.dumps({"upgrade_without_snapshot": True})]
    changes, output = inventory.converge("--check", *version)
    lines = " ".join(output.split())
    master, worker = inventory.hosts("control_plane")[0], inventory.hosts("workers")[0]
    assert f"1. {master}, drained: kubelet, kubeadm, kubectl " in lines
    assert "image kube-apiserver:v1.36.9" in lines
    assert f"2. {worker}, drained: kubelet, kubeadm, kubectl " in lines
    assert sum(changes.values()) == 1, output  # the plan


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("1.36.1", "newer than 1.36.1: versions only go up"),
        ("1.35.9", "newer than 1.35.9: versions only go up"),
    ],
)
def test_a_version_that_is_older_is_refused(inventory: Inventory, version: str, said: str) -> None:
    done = inventory.play("-e", f"kubernetes_version={version}")
    assert done.returncode != 0
    assert said in words(done)
    assert "Nothing was changed." in words(done)


def test_without_a_snapshot_it_must_be_said(inventory: Inventory) -> None:
    done = inventory.play("-e", "kubernetes_version=1.36.9", "-e", json.dumps({"backups_enabled": False}))
    assert done.returncode != 0
    assert "No snapshot of etcd can be made before the upgrade" in words(done)


def test_a_budget_that_lets_no_pod_go_is_named_before_anything_is_done(
    inventory: Inventory, cluster: Cluster, kept: str, worker_name: str
) -> None:
    done = inventory.play("--check", "-e", "kubernetes_version=1.36.9")
    assert done.returncode != 0
    assert f"{worker_name} could not be drained: PodDisruptionBudget {kept}/kept lets no pod go" in words(
        done
    )
    assert node(cluster, worker_name) == (False, "")


def test_a_drain_fails_with_the_pod_that_stays_and_the_next_run_ends_it(
    inventory: Inventory, cluster: Cluster, kept: str, worker_name: str
) -> None:
    done = inventory.play(playbook="drain.yml")
    assert done.returncode != 0
    assert f"{worker_name} is not drained after 15 s; it takes no new pods." in words(done)
    assert "kept" in words(done)
    assert node(cluster, worker_name) == (True, "schedulable")
    cluster.run(f"delete poddisruptionbudget kept --namespace={kept}")
    cluster.run(f"delete deployment kept --namespace={kept}")
    inventory.converge(playbook="drain.yml")
    assert node(cluster, worker_name) == (False, "")


def test_a_node_that_somebody_has_cordoned_stays_so(
    inventory: Inventory, cluster: Cluster, worker_name: str
) -> None:
    cluster.run(f"cordon {worker_name}")
    try:
        inventory.converge(playbook="drain.yml")
        assert node(cluster, worker_name) == (True, "")
    finally:
        cluster.run(f"uncordon {worker_name}")
