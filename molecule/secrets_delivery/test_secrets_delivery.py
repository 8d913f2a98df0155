"""A secret follows its source in AWS into the cluster; the API server judges the objects of the driver."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from scenario import Cluster, Eventually, Inventory

SPACE, NAME = "molecule-secrets", "quote-app-database"
PORT = 5566


@pytest.fixture(scope="module")
def aws() -> Iterator[Any]:
    """Return Secrets Manager of an AWS that pods reach at their nodes' gateway."""
    server = ThreadedMotoServer("0.0.0.0", PORT, verbose=False)  # noqa: S104
    server.start()
    keys = {"aws_access_key_id": "testing-access-key", "aws_secret_access_key": "testing-secret-key"}
    yield boto3.client(
        "secretsmanager", endpoint_url=f"http://127.0.0.1:{PORT}", region_name="us-east-1", **keys
    )
    server.stop()


def delivered(cluster: Cluster) -> dict[str, str]:
    data = cluster.get(f"secret --namespace={SPACE} {NAME}")["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def test_a_secret_is_delivered_and_follows_its_source(
    cluster: Cluster, aws: Any, variables: dict[str, Any], eventually: Eventually
) -> None:
    account = {"username": "quotes", "password": "first-password"}
    name = f"{variables['cluster_name']}/quote-app/database"
    aws.create_secret(Name=name, SecretString=json.dumps(account))
    cluster.run(f"annotate externalsecret --namespace={SPACE} {NAME} force-sync=1 --overwrite")
    cluster.wait(f"externalsecret --namespace={SPACE} {NAME} --for=condition=Ready")
    assert delivered(cluster) == account
    account["password"] = "second-password"  # noqa: S105
    aws.put_secret_value(SecretId=name, SecretString=json.dumps(account))
    cluster.run(f"annotate externalsecret --namespace={SPACE} {NAME} force-sync=2 --overwrite")

    def followed() -> None:
        assert delivered(cluster) == account

    eventually(followed)
    # What was delivered stays when its source is gone.
    aws.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
    cluster.run(f"annotate externalsecret --namespace={SPACE} {NAME} force-sync=3 --overwrite")
    cluster.wait(f"externalsecret --namespace={SPACE} {NAME} --for=condition=Ready=false")
    assert delivered(cluster) == account


@pytest.mark.parametrize(
    ("verb", "what", "space", "allowed"),
    [
        ("update", "secrets", SPACE, True),
        ("get", "secrets", "kube-system", False),
        ("list", "secrets", "", False),
        ("create", "serviceaccounts/token", "kube-system", False),
    ],
)
def test_the_operator_may_no_more_than_it_needs(
    cluster: Cluster, verb: str, what: str, space: str, allowed: bool
) -> None:
    resource, _, below = what.partition("/")
    attributes = {"namespace": space, "verb": verb, "resource": resource, "subresource": below}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": "system:serviceaccount:secrets-delivery:external-secrets",
            "resourceAttributes": attributes,
        },
    }
    answer = json.loads(cluster.run("create --output=json --filename=-", json.dumps(review)))
    assert answer["status"]["allowed"] is allowed


def test_objects_of_the_driver_are_accepted(inventory: Inventory, cluster: Cluster) -> None:
    _, output = inventory.converge("--diff", playbook="csi.yml")
    for what in (
        "DaemonSet kube-system/csi-secrets-store",
        "DaemonSet kube-system/vault-csi-provider",
        "CSIDriver secrets-store.csi.k8s.io",
        f"SecretProviderClass {SPACE}/{NAME}",
    ):
        assert f"after: {what}" in output, what
    assert not cluster.get(f"secretproviderclasses --namespace={SPACE}")["items"]
