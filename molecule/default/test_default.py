"""The shared cluster: it answers, and it still lacks a pod network, which its own scenario installs."""

from scenario import Cluster, Inventory


def test_the_api_server_is_ready(cluster: Cluster) -> None:
    assert cluster.run("get --raw /readyz") == "ok"


def test_the_control_plane_is_the_only_node(cluster: Cluster, inventory: Inventory) -> None:
    assert [node["metadata"]["name"] for node in cluster.get("nodes")["items"]] == inventory.hosts(
        "control_plane"
    )
