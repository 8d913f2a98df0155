"""What the API server knows that matters to an upgrade."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

from kubernetes import client
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from quote_platform.kubeconfig import connect, trouble
from quote_platform.upgrade.plan import MARK, Findings, Member, Refused, order

TIMEOUT = (5, 30)  # to connect, to answer
DATABASE = ("postgresql.cnpg.io", "v1", "clusters")
# One sample of the API server's own metric: somebody has used what a coming version no longer has.
REQUESTED = re.compile(r"apiserver_requested_deprecated_apis\{(?P<labels>[^}]*)\} 1")
LABEL = re.compile(r'(\w+)="([^"]*)"')


def deprecated(version: str, requested: Iterable[str], audit: Iterable[str]) -> list[str]:
    """Return the APIs that a version lacks and that somebody has asked for, of any API server."""
    found = dict[str, None]()
    for sample in filter(None, map(REQUESTED.fullmatch, requested)):
        labels = dict(LABEL.findall(sample["labels"]))
        removed = labels.get("removed_release", "")
        if not removed or order(f"{removed}.0") > order(version):
            continue
        name = f"{labels['resource']}.{labels['version']}.{labels['group']}".rstrip(".")
        path = f"/apis/{labels['group']}/" if labels["group"] else "/api/"
        path += f"{labels['version']}/"
        users = sorted({line.split("\t")[1] for line in audit if line.startswith(path)})
        who = f"asked for by {', '.join(users)}" if users else "the audit log no longer says by whom"
        found[f"{name} is used, which Kubernetes {removed} no longer has; {who}"] = None
    return list(found)


class Cluster:
    """A running cluster."""

    def __init__(self, kubeconfig: str) -> None:
        self.api = connect(kubeconfig)
        self.core = client.CoreV1Api(self.api)
        self.apps = client.AppsV1Api(self.api)
        self.policy = client.PolicyV1Api(self.api)
        self.custom = client.CustomObjectsApi(self.api)

    def members(self) -> list[Member]:
        """Return the nodes."""
        return [
            Member(
                name=node.metadata.name,
                ready=any(
                    one.type == "Ready" and one.status == "True" for one in node.status.conditions or []
                ),
                kubelet=node.status.node_info.kubelet_version,
                control_plane="node-role.kubernetes.io/control-plane" in (node.metadata.labels or {}),
                marked=MARK in (node.metadata.annotations or {}),
            )
            for node in self.core.list_node(_request_timeout=TIMEOUT).items
        ]

    def findings(self, version: str, requested: Iterable[str], audit: Iterable[str]) -> Findings:
        """Return what stands in the way of draining nodes, and of a version where one is meant.

        `requested` and `audit` are what control planes say of deprecated APIs and of who has asked for them.
        """
        pods = self.core.list_pod_for_all_namespaces(_request_timeout=TIMEOUT).items
        databases = self._databases()
        found = Findings(
            databases=[
                f"PostgreSQL {name} has {ready} of {wanted} instances ready: "
                "see kubectl get clusters.postgresql.cnpg.io --all-namespaces"
                for name, (ready, wanted) in databases.items()
                if ready < wanted
            ],
            deprecated=deprecated(version, requested, list(audit)) if version else [],
        )
        for pod in pods:
            if pod.spec.node_name and _evicted(pod) and not pod.metadata.owner_references:
                found.budgets.setdefault(pod.spec.node_name, []).append(
                    f"nothing would make the pod {_name(pod)} again; delete it, or give it a controller"
                )
        for budget in self.policy.list_pod_disruption_budget_for_all_namespaces(
            _request_timeout=TIMEOUT
        ).items:
            if budget.status.disruptions_allowed or self._hands_over(budget, databases):
                continue
            kept = self.core.list_namespaced_pod(
                budget.metadata.namespace,
                label_selector=_selector(budget.spec.selector),
                _request_timeout=TIMEOUT,
            ).items
            for pod in kept:
                if pod.spec.node_name and _evicted(pod):
                    found.budgets.setdefault(pod.spec.node_name, []).append(
                        f"PodDisruptionBudget {_name(budget)} lets no pod go, and {_name(pod)} is there; "
                        "add a replica, or change the budget"
                    )
        return found

    def _databases(self) -> dict[str, tuple[int, int]]:
        """Return ready and wanted instances of each PostgreSQL cluster."""
        try:
            answer = self.custom.list_cluster_custom_object(*DATABASE, _request_timeout=TIMEOUT)
        except ApiException as error:
            if error.status == 404:  # no such kind
                return {}
            raise
        return {
            f"{one['metadata']['namespace']}/{one['metadata']['name']}": (
                int(one.get("status", {}).get("readyInstances", 0)),
                int(one["spec"]["instances"]),
            )
            for one in answer["items"]
        }

    @staticmethod
    def _hands_over(budget: Any, databases: dict[str, tuple[int, int]]) -> bool:
        """Tell whether a budget is an operator's that moves a primary away from a node which is cordoned."""
        owners = budget.metadata.owner_references or []
        return any(
            owner.kind == "Cluster"
            and owner.api_version.startswith(DATABASE[0])
            and databases.get(f"{budget.metadata.namespace}/{owner.name}", (0, 0))[0] > 1
            for owner in owners
        )

    def unwell(self) -> list[str]:
        """Return the workloads that have not all their pods ready."""
        found = list[str]()
        for one in self.apps.list_deployment_for_all_namespaces(_request_timeout=TIMEOUT).items:
            found += _short(one, one.status.available_replicas, one.spec.replicas, "Deployment")
        for one in self.apps.list_stateful_set_for_all_namespaces(_request_timeout=TIMEOUT).items:
            found += _short(one, one.status.ready_replicas, one.spec.replicas, "StatefulSet")
        for one in self.apps.list_daemon_set_for_all_namespaces(_request_timeout=TIMEOUT).items:
            found += _short(
                one, one.status.number_available, one.status.desired_number_scheduled, "DaemonSet"
            )
        found += [
            f"Cluster {name} ({ready} of {wanted})"
            for name, (ready, wanted) in self._databases().items()
            if ready < wanted
        ]
        return found

    def stale(self, restarted: Mapping[str, float]) -> list[str]:
        """Return the pods of nodes, by the second in which each was restarted, that are known from before it.

        Until a kubelet has said otherwise, what ran before passes for running.
        """
        found = list[str]()
        for node, second in restarted.items():
            selector = f"spec.nodeName={node},status.phase=Running"
            pods = self.core.list_pod_for_all_namespaces(field_selector=selector, _request_timeout=TIMEOUT)
            found += [
                f"Pod {_name(pod)} (not seen since {node} was restarted)"
                for pod in pods.items
                if any(
                    one.state.running and one.state.running.started_at.timestamp() < float(second)
                    for one in pod.status.container_statuses or []
                )
            ]
        return found

    def wait(
        self, timeout: float, known: Iterable[str], restarted: Mapping[str, float] | None = None
    ) -> list[str]:
        """Wait until all workloads are well but those that were not before; return these."""
        names = {_workload(line) for line in known}
        deadline = time.monotonic() + timeout
        unwell = ["the API server has not answered"]
        while True:
            try:
                unwell = [*self.stale(restarted or {}), *self.unwell()]
            except (ApiException, HTTPError) as error:  # it may be restarting
                unwell = [trouble(error)]
            waited_for = [line for line in unwell if _workload(line) not in names]
            if not waited_for:
                return unwell
            if time.monotonic() > deadline:
                raise Refused(
                    f"not well after {timeout:g} s: {'; '.join(waited_for)}. "
                    "See kubectl get pods --all-namespaces, then run again"
                )
            time.sleep(1)


def _workload(line: str) -> str:
    return line.split(" (", maxsplit=1)[0]


def _short(one: Any, ready: int | None, wanted: int | None, kind: str) -> list[str]:
    if (ready or 0) >= (wanted or 0):
        return []
    return [f"{kind} {_name(one)} ({ready or 0} of {wanted})"]


def _evicted(pod: Any) -> bool:
    """Tell whether a drain evicts a pod that has not ended."""
    owners = pod.metadata.owner_references or []
    mirror = "kubernetes.io/config.mirror" in (pod.metadata.annotations or {})
    return not (
        mirror
        or pod.status.phase in {"Succeeded", "Failed"}
        or any(owner.kind == "DaemonSet" for owner in owners)
    )


def _name(one: Any) -> str:
    return f"{one.metadata.namespace}/{one.metadata.name}"


def _selector(selector: Any) -> str:
    """Return a label selector as the API takes it."""
    parts = [f"{key}={value}" for key, value in ((selector and selector.match_labels) or {}).items()]
    for one in (selector and selector.match_expressions) or []:
        values = f" ({','.join(one.values or [])})"
        match one.operator:
            case "Exists":
                parts.append(one.key)
            case "DoesNotExist":
                parts.append(f"!{one.key}")
            case operator:
                parts.append(f"{one.key} {operator.lower()}{values}")
    return ",".join(parts)
