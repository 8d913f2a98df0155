"""The worker is a Ready node of the cluster, at its version, and runs pods."""

import json
from typing import Any

from testinfra.host import Host

from scenario import Cluster, Eventually, Inventory, MakePod


def test_the_node_is_ready_at_the_pinned_version(
    cluster: Cluster, inventory: Inventory, variables: dict[str, Any]
) -> None:
    name = inventory.hosts("workers")[0]
    cluster.wait(f"--for=condition=Ready node/{name}", 120)
    assert (
        cluster.get(f"node {name}")["status"]["nodeInfo"]["kubeletVersion"]
        == f"v{variables['kubernetes_version']}"
    )


def test_it_runs_a_pod_whose_logs_can_be_read(
    cluster: Cluster, inventory: Inventory, namespace: str, pod: MakePod, eventually: Eventually
) -> None:
    name = inventory.hosts("workers")[0]
    spec = pod(
        "hello", "docker.io/library/busybox:1.37.0", "sh", "-c", "echo hello; sleep 600", nodeName=name
    )
    cluster.run(f"apply --namespace={namespace} --filename=-", json.dumps(spec))
    cluster.wait(f"--namespace={namespace} --for=condition=Ready pod/hello", 120)

    def read() -> None:
        assert cluster.run(f"--namespace={namespace} logs hello").strip() == "hello"

    # A node is Ready before its serving certificate is approved, which is looked at every half minute.
    eventually(read, 60)


def test_no_join_token_lies_about(worker: Host) -> None:
    assert worker.run("grep -rlsE '[a-z0-9]{6}\\.[a-z0-9]{16}' /etc/kubernetes /root /tmp").stdout == ""


def test_a_changed_setting_of_the_cluster_arrives(cluster: Cluster, inventory: Inventory) -> None:
    """A control plane keeps the settings of all kubelets in a ConfigMap, which the node has to follow."""
    name = inventory.hosts("workers")[0]

    def keep(kept: str) -> None:
        patch = json.dumps({"data": {"kubelet": kept}})
        command = "patch configmap kubelet-config --namespace=kube-system --type=merge"
        cluster.run(f"{command} --patch-file=/dev/stdin", patch)

    def maximum() -> int:
        configuration = json.loads(cluster.run(f"get --raw /api/v1/nodes/{name}/proxy/configz"))
        return int(configuration["kubeletconfig"]["maxPods"])

    before = maximum()
    kept = cluster.get("configmap kubelet-config --namespace=kube-system")["data"]["kubelet"]
    assert "maxPods" not in kept
    keep(f"{kept}maxPods: 97\n")
    try:
        changes, output = inventory.converge("--check", "--diff")
        assert changes[name] > 0
        assert "+maxPods: 97" in output
        assert maximum() == before
        inventory.converge()
        assert maximum() == 97
        changes, output = inventory.converge("--diff")
        assert changes[name] == 0, output[-6000:]
    finally:
        keep(kept)
        inventory.converge()
    assert maximum() == before
