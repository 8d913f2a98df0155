"""HTTP from outside the cluster reaches a service through an Ingress."""

import ssl
import urllib.request
from typing import Any

from scenario import Cluster, Eventually, Inventory, MakePod


def test_an_ingress_of_class_public_answers(
    cluster: Cluster,
    inventory: Inventory,
    namespace: str,
    pod: MakePod,
    variables: dict[str, Any],
    eventually: Eventually,
) -> None:
    server = pod("web", variables["verify_image"], container={"args": ["netexec", "--http-port=8080"]})
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "web"},
        "spec": {
            "ingressClassName": "public",
            "rules": [
                {
                    "host": "molecule.example.com",
                    "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
                }
            ],
        },
    }
    cluster.apply(namespace, server, service, ingress)
    cluster.wait(f"--namespace={namespace} --for=condition=Ready pod/web", 120)
    address = inventory.variables(inventory.hosts("workers")[0])["ansible_host"]

    def answers() -> None:
        request = urllib.request.Request(
            f"https://{address}/echo?msg=through", headers={"Host": "molecule.example.com"}
        )
        # HTTP is sent to HTTPS, whose certificate nobody has signed here.
        unverified = ssl._create_unverified_context()  # noqa: S323
        try:
            with urllib.request.urlopen(request, timeout=5, context=unverified) as answer:  # noqa: S310
                body = answer.read().decode()
        except OSError as error:
            raise AssertionError(str(error)) from error
        assert body == "through"

    eventually(answers, 90)


def test_public_is_the_default_class(cluster: Cluster) -> None:
    annotations = cluster.get("ingressclass public")["metadata"]["annotations"]
    assert annotations["ingressclass.kubernetes.io/is-default-class"] == "true"
