"""The control plane answers, keeps secrets, audits, and has signed its kubelet's certificate."""

import stat
from pathlib import Path

import pytest

SECRET = "never-in-clear-on-disk"  # noqa: S105


def test_the_api_server_is_ready_at_the_pinned_version(cluster, variables):
    assert cluster.run("get --raw /readyz") == "ok"
    assert f'"gitVersion": "v{variables["kubernetes_version"]}"' in cluster.run("get --raw /version")


def test_the_kubeconfig_was_fetched_for_its_owner_only():
    kubeconfig = Path(__file__).resolve().parents[2] / "secrets" / "mol-node" / "kubeconfig"
    assert stat.S_IMODE(kubeconfig.stat().st_mode) == 0o600


def test_secrets_are_encrypted_at_rest(host, cluster):
    cluster.run(f"create secret generic molecule --from-literal=word={SECRET}")
    cluster.run("create configmap molecule --from-literal=word=found-in-clear-on-disk")
    host.check_output("sync")
    # That the ConfigMap is found shows that the search would find the secret.
    assert host.run("grep -rqa found-in-clear-on-disk /var/lib/etcd").rc == 0
    assert host.run(f"grep -rqa {SECRET} /var/lib/etcd").rc == 1
    cluster.run("delete secret,configmap molecule")


def test_requests_are_audited_without_the_content_of_secrets(host, cluster):
    logs = host.check_output("find /var/log/kubernetes -name '*audit*.log' -size +0").split()
    assert logs
    assert host.run(f'grep -q \'"resource":"secrets"\' {logs[0]}').rc == 0
    assert host.run(f"grep -q {SECRET} {logs[0]}").rc == 1


def test_the_kubelets_serving_certificate_is_approved(cluster, eventually):
    def signed():
        requests = cluster.get("certificatesigningrequests")["items"]
        serving = [r for r in requests if r["spec"]["signerName"] == "kubernetes.io/kubelet-serving"]
        assert serving
        assert all(r.get("status", {}).get("certificate") for r in serving)

    eventually(signed, 60)


def test_privileged_pods_are_refused_by_default(cluster, namespace, pod):
    spec = pod("bad", "docker.io/library/busybox:1.37.0", container={"securityContext": {"privileged": True}})
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        cluster.apply(namespace, spec, dry_run=True)


def test_the_read_only_port_of_the_kubelet_is_closed(host):
    assert not host.socket("tcp://0.0.0.0:10255").is_listening
