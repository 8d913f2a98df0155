"""`kubectl top` has figures, fetched over verified TLS."""

import json

from scenario import Cluster, Eventually


def test_every_node_has_figures(cluster: Cluster, eventually: Eventually) -> None:
    def figures() -> None:
        metrics = json.loads(cluster.run("get --raw /apis/metrics.k8s.io/v1beta1/nodes"))
        known = {item["metadata"]["name"] for item in metrics["items"] if item["usage"]["memory"] != "0"}
        assert known == {node["metadata"]["name"] for node in cluster.get("nodes")["items"]}

    eventually(figures, 120)
    assert "MEMORY" in cluster.run("top nodes")


def test_kubelets_are_verified(cluster: Cluster) -> None:
    arguments = cluster.get("deployment metrics-server --namespace=kube-system")["spec"]["template"]["spec"]
    assert "--kubelet-insecure-tls" not in arguments["containers"][0]["args"]
