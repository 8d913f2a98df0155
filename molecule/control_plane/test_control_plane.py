"""The control plane answers, keeps secrets, audits, and has signed its kubelet's certificate."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from quote_platform.verify.certificates import shown
from scenario import Cluster, Eventually, Inventory, MakePod

SECRET = "never-in-clear-on-disk"  # noqa: S105
ROLE = "node-role.kubernetes.io/control-plane"


def test_the_api_server_is_ready_at_the_pinned_version(cluster: Cluster, variables: dict[str, Any]) -> None:
    assert cluster.run("get --raw /readyz") == "ok"
    assert f'"gitVersion": "v{variables["kubernetes_version"]}"' in cluster.run("get --raw /version")


def test_the_kubeconfig_was_fetched_for_its_owner_only() -> None:
    kubeconfig = Path(__file__).resolve().parents[2] / "secrets" / "mol-node" / "kubeconfig"
    assert stat.S_IMODE(kubeconfig.stat().st_mode) == 0o600


def test_secrets_are_encrypted_at_rest(host: Host, cluster: Cluster) -> None:
    cluster.run(f"create secret generic molecule --from-literal=word={SECRET}")
    cluster.run("create configmap molecule --from-literal=word=found-in-clear-on-disk")
    host.check_output("sync")
    # That the ConfigMap is found shows that the search would find the secret.
    assert host.run("grep -rqa found-in-clear-on-disk /var/lib/etcd").rc == 0
    assert host.run(f"grep -rqa {SECRET} /var/lib/etcd").rc == 1
    cluster.run("delete secret,configmap molecule")


def test_requests_are_audited_without_the_content_of_secrets(host: Host, cluster: Cluster) -> None:
    logs = host.check_output("find /var/log/kubernetes -name '*audit*.log' -size +0").split()
    assert logs
    assert host.run(f'grep -q \'"resource":"secrets"\' {logs[0]}').rc == 0
    assert host.run(f"grep -q {SECRET} {logs[0]}").rc == 1


def test_the_kubelets_serving_certificate_is_approved(cluster: Cluster, eventually: Eventually) -> None:
    def signed() -> None:
        requests = cluster.get("certificatesigningrequests")["items"]
        serving = [r for r in requests if r["spec"]["signerName"] == "kubernetes.io/kubelet-serving"]
        assert serving
        assert all(r.get("status", {}).get("certificate") for r in serving)

    eventually(signed, 60)


def test_privileged_pods_are_refused_by_default(cluster: Cluster, namespace: str, pod: MakePod) -> None:
    spec = pod("bad", "docker.io/library/busybox:1.37.0", container={"securityContext": {"privileged": True}})
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        cluster.apply(namespace, spec, dry_run=True)


def test_the_read_only_port_of_the_kubelet_is_closed(host: Host) -> None:
    assert not host.socket("tcp://0.0.0.0:10255").is_listening


def test_reads_of_secrets_by_nodes_are_audited(host: Host, cluster: Cluster) -> None:
    """The kubelet reads the Secrets of its pods; here, one asks as the kubelet."""
    kubelet = "kubectl --kubeconfig /etc/kubernetes/kubelet.conf"
    host.run(f"{kubelet} get secret molecule-audit --namespace kube-system")
    log = host.check_output("grep -h molecule-audit /var/log/kubernetes/*audit*.log | tail -1")
    assert json.loads(log)["level"] == "Metadata"
    assert json.loads(log)["user"]["username"].startswith("system:node:")


def test_the_api_server_stops_though_it_is_watched(host: Host, cluster: Cluster) -> None:
    took = host.check_output("""
        kubectl --kubeconfig /etc/kubernetes/admin.conf get events --all-namespaces --watch >/dev/null 2>&1 &
        watch=$! server=$(pgrep -x kube-apiserver) && sleep 3 && kill "$server" && since=$(date +%s)
        while kill -0 "$server" 2>/dev/null; do sleep 0.2; done
        echo $(($(date +%s) - since)); kill "$watch" 2>/dev/null
        until curl --silent --insecure https://127.0.0.1:6443/readyz | grep -qx ok; do sleep 1; done
    """)
    assert int(took) < 20  # it waits for a minute, if watches do not end
    assert cluster.run("get --raw /readyz") == "ok"


def test_a_changed_setting_arrives_and_is_the_same_afterwards(
    host: Host,
    inventory: Inventory,
    variables: dict[str, Any],
    cluster: Cluster,
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    name = inventory.hosts("control_plane")[0]
    tag = variables["control_plane_etcd_image_tag"]
    etcd = f"{variables['control_plane_image_repository']}/etcd:{tag}"
    # Another tag of the same image, which no registry has.
    host.check_output(f"ctr --namespace k8s.io images tag --force {etcd} {etcd}-molecule")
    changed = {
        "control_plane_kubelet_extra": variables["control_plane_kubelet_extra"] | {"maxPods": 97},
        "control_plane_kube_proxy_extra": variables["control_plane_kube_proxy_extra"]
        | {"nftables": {"syncPeriod": "47s"}},
        "control_plane_etcd_image_tag": f"{tag}-molecule",
        "control_plane_certificate_sans": ["molecule.example.com"],
        "control_plane_schedulable": True,
    }
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    options = ("--extra-vars", f"@{tmp_path}/changed.json")

    def running() -> dict[str, Any]:
        kubelet = json.loads(cluster.run(f"get --raw /api/v1/nodes/{name}/proxy/configz"))["kubeletconfig"]
        proxy = host.check_output("curl --silent --fail http://127.0.0.1:10249/configz")
        pods = cluster.get("pods --namespace=kube-system --selector=component=etcd")["items"]
        return {
            "kubelet": kubelet["maxPods"],
            "kube-proxy": "47s" in proxy,
            "etcd": pods[0]["spec"]["containers"][0]["image"],
            "certificate": b"molecule.example.com"
            in shown(variables["ansible_host"], 6443).tbs_certificate_bytes,
            # Only ours: without a pod network, the controller of nodes adds its own at a time of its choice.
            "tainted": ROLE
            in {taint["key"] for taint in cluster.get(f"node {name}")["spec"].get("taints", [])},
        }

    def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
        assert found == expected

    before = running()
    assert before["tainted"]
    changes, output = inventory.converge("--check", "--diff", *options)
    assert changes[name] > 0
    assert "+maxPods: 97" in output
    assert running() == before
    changes, _ = inventory.converge(*options)
    assert changes[name] > 0

    after = {
        "kubelet": 97,
        "kube-proxy": True,
        "etcd": f"{etcd}-molecule",
        "certificate": True,
        "tainted": False,
    }
    eventually(lambda: same(running(), after), 120)
    changes, output = inventory.converge("--diff", *options)
    assert changes[name] == 0, output[-6000:]
    inventory.converge()
    eventually(lambda: same(running(), before), 120)
