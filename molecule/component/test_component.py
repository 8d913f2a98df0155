"""What the internal role applied: the patched manifest and our object, under our field manager."""

from collections.abc import Iterator

import pytest

from scenario import Cluster


@pytest.fixture(scope="module", autouse=True)
def clear(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.run("delete namespace molecule-component --wait=false")
    cluster.run("delete service metrics-server --namespace=kube-system")


def test_the_object_lies_in_the_components_namespace(cluster: Cluster) -> None:
    assert cluster.get("configmap ours --namespace=molecule-component")["data"] == {"word": "kept"}


def test_the_manifest_is_patched_by_the_name_of_the_port(cluster: Cluster) -> None:
    ports = cluster.get("service metrics-server --namespace=kube-system")["spec"]["ports"]
    assert [(port["name"], port["port"]) for port in ports] == [("https", 8443)]


def test_our_field_manager_owns_it(cluster: Cluster) -> None:
    shown = cluster.run(
        "get configmap ours --namespace=molecule-component --show-managed-fields --output=yaml"
    )
    assert "manager: quote-platform" in shown
    assert "operation: Apply" in shown
