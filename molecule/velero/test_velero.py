"""A namespace that was deleted comes back with its volume's data, its labels and who manages its fields."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scenario import Cluster, Inventory, MakePod, words

NAMESPACE = "molecule-velero"
IMAGE = "docker.io/library/busybox:1.37.0"
PROJECT = Path(__file__).resolve().parents[2]


def restore(inventory: Inventory, *arguments: str) -> tuple[int, str]:
    options = [word for argument in arguments for word in ("--extra-vars", argument)]
    done = inventory.play(*options, playbook=PROJECT / "playbooks/restore-namespace.yml")
    return done.returncode, words(done)


def may(cluster: Cluster, verb: str) -> bool:
    """Tell whether the server may do something to Deployments of the namespace."""
    attributes = {"namespace": NAMESPACE, "verb": verb, "group": "apps", "resource": "deployments"}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": "system:serviceaccount:velero:velero", "resourceAttributes": attributes},
    }
    answer = cluster.run("create --output=json --filename=-", json.dumps(review))
    return bool(json.loads(answer)["status"]["allowed"])


@pytest.fixture(scope="module")
def backup(cluster: Cluster, inventory: Inventory, pod: MakePod) -> Iterator[str]:
    """Return the name of a backup of a namespace with a volume, one of PostgreSQL's, and a Secret."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    cluster.run("apply --server-side --filename=-", json.dumps(space))
    claims = [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "labels": labels},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}},
        }
        for name, labels in (("data", {}), ("postgres-1", {"cnpg.io/cluster": "postgres"}))
    ]
    mounts = [{"name": "data", "mountPath": "/data"}, {"name": "scratch", "mountPath": "/scratch"}]
    writer = pod(
        "writer",
        IMAGE,
        "sh",
        "-c",
        "test -e /data/word || echo kept > /data/word; sleep 3600",
        volumes=[
            {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "scratch", "emptyDir": {}},
        ],
        container={
            "volumeMounts": mounts,
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        },
    )
    # As of a Deployment that spreads each version: the API server refuses what it made of this itself.
    writer["metadata"]["labels"]["version"] = "1"
    writer["spec"]["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": "writer"}},
            "matchLabelKeys": ["version"],
        }
    ]
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "word"},
        "data": {"word": "a2VwdA=="},
    }
    cluster.apply(NAMESPACE, *claims, writer, secret)
    cluster.wait(f"--namespace={NAMESPACE} --for=condition=Ready pod/writer", 120)
    inventory.converge(playbook="backup.yml")
    found = cluster.get("backups.velero.io --namespace=velero --sort-by=.metadata.creationTimestamp")["items"]
    yield found[-1]["metadata"]["name"]
    cluster.run(f"delete namespace {NAMESPACE} --wait=false")


def test_a_restore_that_was_killed_leaves_no_right(cluster: Cluster) -> None:
    """prepare.yml has left its right to write."""
    assert not may(cluster, "create")


def test_what_was_stored_is_what_is_needed(cluster: Cluster, backup: str) -> None:
    volumes = cluster.get(f"podvolumebackups.velero.io -n velero -l velero.io/backup-name={backup}")["items"]
    assert [item["spec"]["volume"] for item in volumes] == ["data"]
    assert volumes[0]["status"]["progress"]["bytesDone"] == len("kept\n")


def test_it_is_refused_where_something_would_go_wrong(inventory: Inventory, backup: str) -> None:
    name = f"restore_namespace={NAMESPACE}"
    for arguments, message in (
        ((), "restore_namespace: empty; allowed is a namespace that a backup has"),
        (("restore_namespace=missing",), "restore_namespace: no finished backup has the namespace missing."),
        ((name, "restore_backup=missing"), "restore_backup: missing is no finished backup of the namespace"),
        ((name,), "The namespace is live: what it has stays as it is"),
        ((name,), "To confirm, add -e restore_confirm="),
    ):
        status, output = restore(inventory, *arguments)
        assert status != 0
        assert message in output


def test_a_deleted_namespace_comes_back_with_its_data(
    cluster: Cluster, inventory: Inventory, variables: dict[str, Any], backup: str
) -> None:
    before = cluster.get(f"secret word --namespace={NAMESPACE} --show-managed-fields")["metadata"]
    cluster.run(f"delete namespace {NAMESPACE}")
    status, output = restore(
        inventory, f"restore_namespace={NAMESPACE}", f"restore_confirm={variables['cluster_name']}"
    )
    assert status == 0, output[-4000:]
    cluster.wait(f"--namespace={NAMESPACE} --for=condition=Ready pod/writer", 120)
    assert cluster.execute(NAMESPACE, "writer", "cat", "/data/word").strip() == "kept"
    space = cluster.get(f"namespace {NAMESPACE}")["metadata"]
    assert space["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    secret = cluster.get(f"secret word --namespace={NAMESPACE} --show-managed-fields")
    assert secret["data"] == {"word": "a2VwdA=="}
    managers = [[field["manager"] for field in one["managedFields"]] for one in (secret["metadata"], before)]
    assert managers[0] == managers[1]
    claims = cluster.get(f"persistentvolumeclaims --namespace={NAMESPACE}")["items"]
    assert [item["metadata"]["name"] for item in claims] == ["data"]
    # The right to write was given for the restore only.
    assert may(cluster, "get")
    assert not may(cluster, "create")


def test_the_key_of_the_volumes_is_nobody_elses(cluster: Cluster) -> None:
    secret = cluster.get("secret velero-repo-credentials --namespace=velero")
    assert len(secret["data"]["repository-password"]) > 50
