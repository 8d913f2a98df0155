"""Pods reach one another, services and names; a NetworkPolicy refuses and admits."""

from typing import Any

import pytest

from scenario import Cluster, Eventually, Inventory, MakePod


@pytest.fixture(scope="module")
def image(variables: dict[str, Any]) -> str:
    return str(variables["verify_image"])


@pytest.fixture
def pair(cluster: Cluster, namespace: str, pod: MakePod, image: str) -> str:
    """Return a namespace with a server behind a service and a client."""
    server = pod("server", image, container={"args": ["netexec", "--http-port=8080"]})
    client = pod("client", image, container={"args": ["pause"]})
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "server"},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    cluster.apply(namespace, server, client, service)
    cluster.wait(f"--namespace={namespace} --for=condition=Ready pod/server pod/client", 120)
    return namespace


def connect(cluster: Cluster, namespace: str, target: str) -> None:
    cluster.execute(namespace, "client", "/agnhost", "connect", "--timeout=3s", target)


def test_the_node_is_ready(cluster: Cluster, inventory: Inventory) -> None:
    cluster.wait(f"--for=condition=Ready node/{inventory.hosts('control_plane')[0]}", 120)


def test_pod_service_and_name_are_reached_and_policies_hold(
    cluster: Cluster, pair: str, eventually: Eventually
) -> None:
    address = cluster.get(f"pod server --namespace={pair}")["status"]["podIP"]
    service = cluster.get(f"service server --namespace={pair}")["spec"]["clusterIP"]
    connect(cluster, pair, f"{address}:8080")
    eventually(lambda: connect(cluster, pair, f"{service}:80"))
    eventually(lambda: connect(cluster, pair, "server:80"), 90)

    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "server"},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]},
    }
    cluster.apply(pair, policy)

    def refused() -> None:
        with pytest.raises(AssertionError):
            connect(cluster, pair, f"{address}:8080")

    eventually(refused, 60)
    cluster.run(f"delete networkpolicy server --namespace={pair}")
    eventually(lambda: connect(cluster, pair, f"{address}:8080"), 60)


def test_a_name_outside_is_asked_of_the_network_and_not_of_the_node_itself(
    cluster: Cluster, namespace: str, pod: MakePod, image: str
) -> None:
    # 127.0.0.53, which Ubuntu's machines ask, would be the pod: CoreDNS would ask itself.
    cluster.apply(namespace, pod("outside", image, dnsPolicy="Default", container={"args": ["pause"]}))
    cluster.wait(f"--namespace={namespace} --for=condition=Ready pod/outside", 120)
    servers = cluster.execute(namespace, "outside", "cat", "/etc/resolv.conf")
    assert "nameserver" in servers
    assert "127.0.0.53" not in servers
