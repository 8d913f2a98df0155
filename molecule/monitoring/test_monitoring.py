"""Every part is measured; only who may reads it; a flood of figures stays outside."""

import base64
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from testinfra.host import Host

from quote_platform.jobs import metrics
from scenario import Cluster, Eventually, Inventory, MakePod, Object

Ask = Callable[[str], list[Object]]

NAMESPACE = "molecule-monitoring"
IMAGE = "docker.io/library/busybox:1.37.0"
JOBS = {
    "alertmanager",
    "apiserver",
    "blackbox",
    "coredns",
    "etcd",
    "job-metrics",
    "kube-controller-manager",
    "kube-router",
    "kube-scheduler",
    "kube-state-metrics",
    "kubelet",
    "node-exporter",
    "prometheus",
    "prometheus-operator",
    "public-url",
    "traefik",
}


@pytest.fixture(scope="module")
def ask(cluster: Cluster) -> Ask:
    def call(query: str) -> list[Object]:
        command = ["/bin/promtool", "query", "instant", "--format=json", "http://localhost:9090", query]
        return list(json.loads(cluster.execute("monitoring", "prometheus-main-0", *command)))

    return call


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Iterator[str]:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    cluster.run("apply --server-side --filename=-", json.dumps(body))
    yield NAMESPACE
    cluster.run(f"delete namespace {NAMESPACE} --wait=false")


def application(pod: MakePod, name: str, figures: int) -> Object:
    """Return a pod that stands for the application, with so many figures."""
    script = (
        f"mkdir /tmp/www; for i in $(seq {figures}); do "
        f'echo "flood{{name=\\"{name}\\",user=\\"$i\\"}} 1"; done > /tmp/www/metrics; '
        "exec busybox httpd -f -p 3000 -h /tmp/www"
    )
    found = pod(name, IMAGE, "sh", "-c", script)
    found["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": 3000}]
    found["metadata"]["labels"]["app.kubernetes.io/name"] = "quote-app"
    return found


def test_every_part_is_measured(cluster: Cluster, ask: Ask, eventually: Eventually) -> None:
    # A figure comes at its own next scrape, a rule's at its group's next turn.
    def every_target_answers() -> None:
        up = ask("up")
        assert {one["metric"]["job"] for one in up} >= JOBS
        assert [one["metric"] for one in up if one["value"][1] != "1"] == []

    def figures() -> None:
        nodes = {node["metadata"]["name"] for node in cluster.get("nodes")["items"]}
        for query in ("node_memory_MemAvailable_bytes", "kubelet_running_pods", "machine_cpu_cores"):
            assert {one["metric"]["node"] for one in ask(query)} >= nodes, query
        for query in (
            "etcd_server_has_leader == 1",
            "sum(rate(apiserver_request_duration_seconds_bucket[5m])) > 0",
            "scheduler_pod_scheduling_sli_duration_seconds_count",
            "kube_pod_status_phase",
            'container_memory_working_set_bytes{namespace="kube-system",container="coredns"}',
            'prober_probe_total{container="coredns"}',
            "coredns_dns_requests_total",
            'probe_ssl_earliest_cert_expiry{job="public-url"}',
            'ALERTS{alertname="Watchdog"}',
        ):
            assert ask(query), query

    eventually(every_target_answers, 60)
    eventually(figures, 90)


def test_only_who_may_reads_figures(
    cluster: Cluster,
    host: Host,
    inventory: Inventory,
    pod: MakePod,
    space: str,
    eventually: Eventually,
    variables: dict[str, Any],
) -> None:
    address = inventory.variables(inventory.hosts("control_plane")[0])["ansible_host"]
    for port, refused in ((9100, "401"), (2382, "401"), (10257, "403"), (10259, "403"), (10250, "401")):
        status = host.run(
            f"curl --insecure --silent --output /dev/null --write-out %{{http_code}} https://{address}:{port}/metrics"
        )
        assert status.stdout == refused, port
    # What asks nobody is told to nobody but the node itself.
    for port in (2381, 9101):
        assert host.run(f"curl --silent --max-time 3 http://{address}:{port}/metrics").rc != 0, port
    addresses = {
        one["metadata"]["labels"]["app.kubernetes.io/name"]: one["status"]["podIP"]
        for one in cluster.get("pods --namespace=monitoring --selector=app.kubernetes.io/name")["items"]
    }
    pause = {"args": ["pause"]}
    names = ("client", "stranger")
    cluster.apply(space, *(pod(name, variables["verify_image"], container=dict(pause)) for name in names))
    cluster.wait(f"--namespace={space} --for=condition=Ready pod/client pod/stranger")

    def reached(name: str, part: str, port: int) -> bool:
        asked = host.run(
            "kubectl --kubeconfig /etc/kubernetes/admin.conf exec "
            f"--namespace={space} {name} -- /agnhost connect {addresses[part]}:{port} --timeout=3s"
        )
        return bool(asked.rc == 0)

    def client_is_let_in() -> None:
        assert reached("client", "prometheus", 9090)
        assert reached("client", "alertmanager", 9093)

    eventually(client_is_let_in, 30)
    assert not reached("stranger", "prometheus", 9090)
    assert not reached("stranger", "alertmanager", 9093)
    assert not reached("stranger", "job-metrics", 9100)


def test_what_is_written_of_jobs_is_measured(cluster: Cluster, ask: Ask, eventually: Eventually) -> None:
    text = metrics.write(metrics.update({}, 86400, time.time()), "drift", "molecule")
    written = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": metrics.CONFIG_MAP},
        "data": {"drift.prom": text},
    }
    query = 'quote_platform_job_expected_interval_seconds{cluster="molecule",name="drift"}'

    def measured() -> None:
        assert [one["value"][1] for one in ask(query)] == ["86400"]

    cluster.apply("monitoring", written)
    try:
        eventually(measured, 180)  # the kubelet looks at ConfigMaps once a minute
    finally:
        cluster.run(f"delete configmap {metrics.CONFIG_MAP} --namespace=monitoring")


def test_people_need_the_password(inventory: Inventory, eventually: Eventually) -> None:
    address = inventory.variables(inventory.hosts("control_plane")[0])["ansible_host"]
    password = (inventory.secrets / "monitoring-password").read_text().split()[0]
    unverified = ssl._create_unverified_context()  # noqa: S323 (its name leads nowhere here)

    def status(word: str) -> int:
        headers = {"Host": "prometheus.example.com"}
        if word:
            headers["Authorization"] = f"Basic {base64.b64encode(f'admin:{word}'.encode()).decode()}"
        request = urllib.request.Request(f"https://{address}/-/healthy", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5, context=unverified) as answer:  # noqa: S310
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError as error:
            raise AssertionError(str(error)) from error

    def lets_in() -> None:
        assert status(password) == 200

    eventually(lets_in, 60)
    assert status("") == 401
    assert status("wrong") == 401


def test_a_flood_of_labels_stays_outside(
    cluster: Cluster, ask: Ask, pod: MakePod, space: str, eventually: Eventually
) -> None:
    cluster.apply(space, application(pod, "calm", 50), application(pod, "flood", 500))
    cluster.wait(f"--namespace={space} --for=condition=Ready pod/calm pod/flood")

    def judged() -> None:
        found = {one["metric"]["pod"]: one["value"][1] for one in ask(f'up{{namespace="{space}"}}')}
        assert found == {"calm": "1", "flood": "0"}

    eventually(judged, 90)
    assert len(ask("flood")) == 50

    def told() -> None:
        assert ask("prometheus_target_scrapes_exceeded_sample_limit_total > 0")

    eventually(told, 60)
