"""Each refusal by the cluster's own API server: what it says of a pod and each workload, where it holds."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import yaml

from scenario import KUBECTL, Cluster, Eventually, Inventory

SPACES = ("molecule-admission", "molecule-admission-more")
ELSEWHERE = "molecule-admission-elsewhere"
RECORD = "configmap component-admission --namespace=kube-system"
IMAGE = f"ghcr.io/quote-platform/quote-app:0.1.0@sha256:{'a' * 64}"
PATHS = {
    "Pod": "v1",
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "Job": "batch/v1",
    "CronJob": "batch/v1",
}


def spec(container: Any = None, **pod: Any) -> dict[str, Any]:
    """Return a pod's spec that no policy minds, but for what is given."""
    main = {"name": "main", "image": IMAGE, "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}
    return {
        "restartPolicy": "Always",
        "securityContext": {"runAsNonRoot": True},
        "containers": [main | (container or {})],
        **pod,
    }


def security(**context: Any) -> dict[str, Any]:
    return {"securityContext": context}


REFUSED = {
    "registry": spec({"image": f"busybox@sha256:{'a' * 64}"}),
    "latest": spec({"image": "ghcr.io/quote-platform/quote-app:latest"}),
    "requests": spec({"resources": {}}),
    "privileged": spec(security(privileged=True)),
    "host-path": spec(volumes=[{"name": "node", "hostPath": {"path": "/"}}]),
    "host-namespaces": spec(hostNetwork=True),
    "capabilities": spec(security(capabilities={"add": ["SYS_ADMIN"]})),
    "root": spec(security(runAsUser=0, runAsNonRoot=False)),
}


def workload(kind: str, pod: dict[str, Any]) -> dict[str, Any]:
    """Return an object of a kind that makes such pods."""
    labels = {"app": "molecule"}
    if kind in ("Job", "CronJob"):
        pod = pod | {"restartPolicy": "Never"}
    template = {"metadata": {"labels": labels}, "spec": pod}
    inner: dict[str, Any] = {"template": template, "selector": {"matchLabels": labels}}
    if kind == "Pod":
        inner = pod
    elif kind == "StatefulSet":
        inner["serviceName"] = "molecule"
    elif kind == "Job":
        inner = {"template": template}
    elif kind == "CronJob":
        inner = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template}}}
    return {"apiVersion": PATHS[kind], "kind": kind, "metadata": {"name": "molecule"}, "spec": inner}


def said(cluster: Cluster, space: str, *objects: dict[str, Any]) -> str:
    """Send objects in a dry run of the server; return all that it says."""
    text = yaml.safe_dump_all(objects).replace("'", "'\\''")
    command = f"printf %s '{text}' | {KUBECTL} create --dry-run=server --namespace={space} --filename=- 2>&1"
    return str(cluster.host.run(command).stdout)


@pytest.fixture(scope="module", autouse=True)
def spaces(cluster: Cluster, eventually: Eventually) -> Iterator[None]:
    for name in (*SPACES, ELSEWHERE):
        cluster.run(f"create namespace {name}")
        # Else Pod Security refuses most of it before, and has its own warnings.
        levels = [f"pod-security.kubernetes.io/{mode}=privileged" for mode in ("enforce", "warn", "audit")]
        cluster.run(f"label namespace {name} {' '.join(levels)}")
    # Every pod has an account, which is made a moment after its namespace; the policies are in force by then.
    for name in (*SPACES, ELSEWHERE):
        eventually(partial(cluster.run, f"get serviceaccount default --namespace={name}"))

    def in_force() -> None:
        wrong = workload("Pod", REFUSED["root"])
        assert "quote-platform-root" in said(cluster, SPACES[0], wrong)

    eventually(in_force)
    yield
    kinds = "validatingadmissionpolicybinding,validatingadmissionpolicy"
    cluster.run(f"delete {kinds} --selector=app.kubernetes.io/name=admission")
    cluster.run(f"delete {RECORD} --ignore-not-found")
    cluster.run(f"delete namespace {' '.join((*SPACES, ELSEWHERE))} --wait=false")


@pytest.mark.parametrize("policy", REFUSED)
def test_each_policy_refuses_pods_and_what_makes_them(cluster: Cluster, policy: str) -> None:
    words = said(cluster, SPACES[0], *(workload(kind, REFUSED[policy]) for kind in PATHS))
    assert words.count(f"ValidatingAdmissionPolicy 'quote-platform-{policy}'") == len(PATHS), words
    refusals = [line for line in words.splitlines() if "denied request: " in line]
    assert sum("; allowed: " in line for line in refusals) == len(PATHS), words
    assert "created" not in words


def test_one_that_warns_lets_them_in_with_its_words(cluster: Cluster) -> None:
    tagged = spec({"image": "ghcr.io/quote-platform/quote-app:0.1.0"})
    for kind in PATHS:  # one by one: kubectl says the same warning once
        words = said(cluster, SPACES[0], workload(kind, tagged))
        assert "created (server dry run)" in words
        assert "Warning: Validation failed for ValidatingAdmissionPolicy 'quote-platform-digest'" in words


def test_what_is_right_passes(cluster: Cluster) -> None:
    words = said(cluster, SPACES[0], *(workload(kind, spec()) for kind in PATHS))
    assert words.count("created (server dry run)") == len(PATHS), words
    assert "Warning" not in words


def test_it_holds_in_every_named_namespace_and_nowhere_else(cluster: Cluster) -> None:
    wrong = workload("Deployment", REFUSED["registry"])
    assert "quote-platform-registry" in said(cluster, SPACES[1], wrong)
    assert "created (server dry run)" in said(cluster, ELSEWHERE, wrong)


def test_an_update_is_judged_by_what_changes(cluster: Cluster) -> None:
    """A right Deployment, whose image becomes a wrong one; its number of pods may be changed at any time."""
    cluster.apply(SPACES[0], workload("Deployment", spec()) | {"metadata": {"name": "right"}})
    image = REFUSED["registry"]["containers"][0]["image"]
    line = f"{KUBECTL} --namespace={SPACES[0]} set image deployment/right main={image} --dry-run=server"
    assert "quote-platform-registry" in cluster.host.run(line).stderr
    cluster.run(f"--namespace={SPACES[0]} scale deployment/right --replicas=0")
    cluster.run(f"--namespace={SPACES[0]} delete deployment right")


def test_it_warns_or_only_records(cluster: Cluster, inventory: Inventory, eventually: Eventually) -> None:
    wrong = workload("Pod", REFUSED["requests"])
    for action, warned in (("Warn", True), ("Audit", False)):
        inventory.converge("--extra-vars", json.dumps({"molecule_action": action}))

        def passes(warned: bool = warned) -> None:
            words = said(cluster, SPACES[0], wrong)
            assert "created (server dry run)" in words
            assert ("Warning: Validation failed for ValidatingAdmissionPolicy" in words) is warned, words

        eventually(passes)
    found = "grep -h validation.policy.admission.k8s.io/validation_failure /var/log/kubernetes/*audit*.log"
    assert SPACES[0] in cluster.host.check_output(f"{found} | tail -1")
    inventory.converge()
