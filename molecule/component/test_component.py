"""What the internal role applied, under our field manager; what it deletes when it is no longer named."""

from collections.abc import Iterator

import pytest

from scenario import Cluster, Inventory


@pytest.fixture(scope="module", autouse=True)
def clear(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.run("delete namespace molecule-component molecule-component-more --wait=false --ignore-not-found")
    records = "configmap component-molecule component-molecule-other"
    cluster.run(f"delete {records} --namespace=kube-system --ignore-not-found")
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


def there(cluster: Cluster) -> set[str]:
    """Return the objects of both components that come and go."""
    kinds = "configmap,secret,daemonset,pod --namespace=molecule-component"
    found = cluster.get(kinds)["items"] + cluster.get("namespace,ingressclass")["items"]
    ours = ("more", "taken", "other", "molecule-component-more", "molecule-other")
    return {
        f"{item['kind']} {item['metadata']['name']}"
        for item in found
        if item["metadata"]["name"] in ours or item["metadata"].get("labels", {}).get("app") == "more"
    }


def test_what_is_no_longer_named_goes_away(cluster: Cluster, inventory: Inventory) -> None:
    inventory.converge("--extra-vars=molecule_more=true")
    cluster.run("rollout status daemonset/more --namespace=molecule-component --timeout=120s")
    made = there(cluster)
    assert {"ConfigMap more", "DaemonSet more", "ConfigMap other", "IngressClass molecule-other"} < made
    assert any(one.startswith("Pod ") for one in made)
    cluster.run(
        "patch secret taken --namespace=molecule-component --field-manager=somebody --type=merge "
        """--patch='{"data":{"theirs":"MQ=="}}'"""
    )

    changes, said = inventory.converge("--check", "--diff")
    assert set(changes.values()) != {0}
    for gone in ("ConfigMap molecule-component/more", "DaemonSet molecule-component/more"):
        assert f"--- before: {gone}" in said
    assert "--- before: IngressClass molecule-other" in said
    assert there(cluster) == made

    inventory.converge()
    assert there(cluster) == {"Secret taken", "Namespace molecule-component-more"}, (
        "and its pods went before it"
    )
    recorded = cluster.get("configmap component-molecule --namespace=kube-system")["data"]["objects"]
    assert recorded.splitlines() == [
        "v1 ConfigMap molecule-component/ours",
        "v1 Namespace molecule-component",
        "v1 Service kube-system/metrics-server",
    ]

    changes, _ = inventory.converge()
    assert set(changes.values()) == {0}
