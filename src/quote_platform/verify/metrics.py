"""What Prometheus knows: that every part answers it, and that no alert fires."""

import json
from typing import Any

from kubernetes.client import ApiException

from quote_platform.verify.backups import REPAIR
from quote_platform.verify.target import Failed, Target, wait

SECONDS = 90  # in which a pod that has just started is found, and one that has gone is forgotten
# Asked of every node, and of every control plane.
NODES = ("kubelet", "node-exporter")
CONTROL_PLANES = ("etcd", "kube-scheduler", "kube-controller-manager")
# By label: every ready pod with it is asked.
PODS = {
    "alertmanager": "app.kubernetes.io/name=alertmanager",
    "cert-manager": "app.kubernetes.io/name=cert-manager",
    "coredns": "k8s-app=kube-dns",
    "eck": "app.kubernetes.io/name=eck",
    "external-secrets": "app.kubernetes.io/name=external-secrets",
    "ingress-nginx": "app.kubernetes.io/name=ingress-nginx",
    "job-metrics": "app.kubernetes.io/name=job-metrics",
    "kube-router": "app.kubernetes.io/name=kube-router",
    "kube-state-metrics": "app.kubernetes.io/name=kube-state-metrics",
    "log-collector": "app.kubernetes.io/name=logging,app.kubernetes.io/component in (collector,events)",
    "postgres": "cnpg.io/podRole=instance",
    "quote-app": "app.kubernetes.io/name=quote-app",
    "traefik": "app.kubernetes.io/name=traefik",
    "flux": "app.kubernetes.io/name=flux",
    "velero": "app.kubernetes.io/name=velero",
}
EXPECTED_ALERTS = {"Watchdog"}  # it says that alerts are evaluated at all
# Of jobs and not of the cluster: verify as a job that has failed once would fail for that for ever.
OF_JOBS = {"JobFailed", "JobOverdue", "DriftFound"}
# Labels of an alert that say nothing about where.
NO_PLACE = ("__name__", "alertname", "alertstate", "severity")

Sample = dict[str, Any]


def _hint(target: Target) -> str:
    namespace = target.namespaces["monitoring"]
    return f"kubectl --namespace {namespace} port-forward prometheus-main-0 9090 (docs/monitoring.md)"


def ask(target: Target, query: str) -> list[Sample]:
    """Ask Prometheus, in its own pod, where nobody but an administrator gets in."""
    namespace = target.namespaces["monitoring"]
    try:
        pods = target.core.list_namespaced_pod(
            namespace, label_selector="app.kubernetes.io/name=prometheus"
        ).items
    except ApiException as error:
        if error.status != 404:
            raise
        pods = []
    if not pods:
        raise target.absent("monitoring", REPAIR)
    command = ["/bin/promtool", "query", "instant", "--format=json", "http://localhost:9090", query]
    output = target.execute(pods[0].metadata.name, *command, namespace=namespace, container="prometheus")
    try:
        return list(json.loads(output) or [])
    except ValueError as error:
        raise Failed(f"Prometheus does not answer: {output.strip()[-200:]}", _hint(target)) from error


def labels(samples: list[Sample], name: str) -> set[str]:
    """Return the values of a label."""
    return {sample["metric"].get(name, "") for sample in samples}


def _ready(pod: Any) -> bool:
    conditions = pod.status.conditions or []
    return not pod.metadata.deletion_timestamp and any(
        one.type == "Ready" and one.status == "True" for one in conditions
    )


def _missing(target: Target, up: list[Sample]) -> list[str]:
    """Return what should be asked and is not."""
    asked = {job: [one for one in up if one["metric"].get("job") == job] for job in labels(up, "job")}
    wanted = []
    for node in target.core.list_node().items:
        name, control_plane = node.metadata.name, "node-role.kubernetes.io/control-plane"
        jobs = NODES + (CONTROL_PLANES if control_plane in node.metadata.labels else ())
        wanted += [(job, "node", name) for job in jobs]
    for job, selector in PODS.items():
        pods = target.core.list_pod_for_all_namespaces(label_selector=selector).items
        wanted += [(job, "pod", pod.metadata.name) for pod in pods if _ready(pod)]
    return [
        f"{job} of {name}" for job, label, name in wanted if name not in labels(asked.get(job, []), label)
    ]


def metrics(target: Target) -> str:
    """Prometheus has found every part of the platform, and gets its figures; users are served."""
    found: dict[str, Any] = {}

    def look() -> bool:
        up = ask(target, "up")
        down = [one["metric"] for one in up if one["value"][1] != "1"]
        probes = ask(target, "probe_success == 0")
        found["up"] = up
        found["wrong"] = (
            [f"{one.get('job')} of {one.get('pod') or one.get('instance')} is down" for one in down]
            + [f"{one} is not asked" for one in _missing(target, up)]
            + [f"{name} does not answer as users ask" for name in sorted(labels(probes, "instance"))]
        )
        return not found["wrong"]

    wait(look, SECONDS, lambda: "; ".join(found["wrong"]), _hint(target))
    return f"{len(found['up'])} targets of {len(labels(found['up'], 'job'))} jobs, all up"


def _alert(metric: dict[str, str]) -> str:
    """Return the name of an alert, and its labels in braces: they say of what it tells."""
    told = ", ".join(f"{name}={metric[name]}" for name in sorted(metric) if name not in NO_PLACE)
    return metric["alertname"] + (f"{{{told}}}" if told else "")


def alerts(target: Target) -> str:
    """No alert fires but the one that always does, and those that are known."""
    found: dict[str, list[str]] = {}

    def look() -> bool:
        firing = [one["metric"] for one in ask(target, 'ALERTS{alertstate="firing"}')]
        names = {one["alertname"] for one in firing}
        known = (set(target.known_alerts) | OF_JOBS) - EXPECTED_ALERTS
        found["known"] = sorted(names & known)
        found["wrong"] = [
            *sorted(
                f"{_alert(one)} fires" for one in firing if one["alertname"] not in EXPECTED_ALERTS | known
            ),
            *(f"{name} does not fire" for name in sorted(EXPECTED_ALERTS - names)),
        ]
        return not found["wrong"]

    wait(look, SECONDS, lambda: "; ".join(found["wrong"]), _hint(target))
    return "only Watchdog fires" + (
        f", and what is known: {', '.join(found['known'])}" if found["known"] else ""
    )
