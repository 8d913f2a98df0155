"""What pods may be, by a real API server: what each policy refuses, by which words; what it lets through."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_server import ApiServer, api_server
from rendering import render

from quote_platform.verify import checks
from quote_platform.verify.target import Failed, Target

ROOT = Path(__file__).resolve().parents[2]
DIGEST = f"ghcr.io/quote-platform/quote-app:0.1.0@sha256:{'a' * 64}"
SPACES = ("shop", "warehouse", "other", "later")
PLURALS = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}


def pod(**spec: Any) -> dict[str, Any]:
    """Return the spec of a pod that no policy minds; `container` and `security` are merged into its parts."""
    container = {
        "name": "main",
        "image": DIGEST,
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        **spec.pop("container", {}),
    }
    security = {"runAsNonRoot": True, **spec.pop("security", {})}
    return {"securityContext": security, "containers": [container], **spec}


# Policy, what is wrong with the pod, the words that name it.
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("registry", pod(container={"image": f"busybox:1@sha256:{'a' * 64}"}), "docker.io/library/busybox:1@"),
    ("registry", pod(container={"image": f"some/one:1@sha256:{'a' * 64}"}), "docker.io/some/one:1@"),
    (
        "registry",
        pod(container={"image": f"ghcr.io/quote-platforms/a@sha256:{'a' * 64}"}),
        "quote-platforms/a",
    ),
    (
        "registry",
        pod(container={"image": f"ghcr.io:5000/quote-platform/a@sha256:{'a' * 64}"}),
        "ghcr.io:5000/",
    ),
    ("latest", pod(container={"image": "ghcr.io/quote-platform/quote-app:latest"}), "quote-app:latest"),
    ("latest", pod(container={"image": "ghcr.io/quote-platform/quote-app"}), "quote-platform/quote-app"),
    ("requests", pod(container={"resources": {}}), "main"),
    ("requests", pod(container={"resources": {"requests": {"cpu": "10m"}}}), "main"),
    (
        "requests",
        pod(initContainers=[{"name": "first", "image": DIGEST}]),
        "first",
    ),
    ("privileged", pod(container={"securityContext": {"privileged": True}}), "main"),
    ("host-path", pod(volumes=[{"name": "node", "hostPath": {"path": "/"}}]), "node"),
    ("host-namespaces", pod(hostNetwork=True), "hostNetwork"),
    ("host-namespaces", pod(hostPID=True, hostIPC=True), "hostPID, hostIPC"),
    (
        "capabilities",
        pod(container={"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}),
        "main (SYS_ADMIN)",
    ),
    ("root", pod(security={"runAsNonRoot": None}), "main"),
    ("root", pod(security={"runAsNonRoot": None, "runAsUser": 0}), "main"),
    ("root", pod(container={"securityContext": {"runAsUser": 0, "runAsNonRoot": False}}), "main"),
]
ALLOWED: list[dict[str, Any]] = [
    pod(),
    pod(container={"image": f"ghcr.io/quote-platform/quote-app@sha256:{'a' * 64}"}),
    pod(container={"resources": {"limits": {"cpu": "1", "memory": "16Mi"}}}),
    pod(security={"runAsNonRoot": None, "runAsUser": 1000}),
    pod(container={"securityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]}}}),
    pod(volumes=[{"name": "scratch", "emptyDir": {}}]),
]


def workloads(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a pod, and every workload that would make it, by its path."""
    labels = {"app": "one"}
    template = {"metadata": {"labels": labels}, "spec": spec}
    selector = {"matchLabels": labels}
    once = {**template, "spec": {"restartPolicy": "Never", **spec}}
    kinds: dict[str, tuple[str, str, dict[str, Any]]] = {
        "/api/v1/{}/pods": ("v1", "Pod", spec),
        "/apis/apps/v1/{}/deployments": (
            "apps/v1",
            "Deployment",
            {"selector": selector, "template": template},
        ),
        "/apis/apps/v1/{}/daemonsets": ("apps/v1", "DaemonSet", {"selector": selector, "template": template}),
        "/apis/apps/v1/{}/statefulsets": (
            "apps/v1",
            "StatefulSet",
            {"selector": selector, "template": template, "serviceName": "one"},
        ),
        "/apis/batch/v1/{}/jobs": ("batch/v1", "Job", {"template": once}),
        "/apis/batch/v1/{}/cronjobs": (
            "batch/v1",
            "CronJob",
            {"schedule": "0 0 * * *", "jobTemplate": {"spec": {"template": once}}},
        ),
    }
    return {
        path: {"apiVersion": version, "kind": kind, "metadata": {"name": "one"}, "spec": inner}
        for path, (version, kind, inner) in kinds.items()
    }


def rendered(folder: Path, **given: Any) -> list[dict[str, Any]]:
    """Return the policies as the role renders them."""
    return list(yaml.safe_load_all(render(folder, ("admission/templates/policies.yaml.j2", given))[0]))


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return rendered(
        tmp_path_factory.mktemp("policies"),
        admission_namespaces=["shop", "warehouse"],
        admission_digest_action="Warn",
        admission_capabilities=["NET_BIND_SERVICE"],
    )


@pytest.fixture(scope="module")
def server(objects: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("server")) as running:
        for name in SPACES:
            running.apply("namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        for document in objects:
            running.apply(PLURALS[document["kind"]], document)
        bad = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad"}, "spec": REFUSED[-1][1]}
        until_refused(running, "/api/v1/{}/pods", bad, "shop")
        yield running


def until_refused(server: ApiServer, path: str, body: dict[str, Any], space: str) -> None:
    """Wait until the server has taken policies in, which is a moment after they were applied."""
    deadline = time.monotonic() + 30
    while create(server, path, body, space)[0] != 422:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def create(server: ApiServer, path: str, body: dict[str, Any], space: str = "shop") -> tuple[int, str, str]:
    """Send an object in a dry run; return status, message and warning."""
    answer = server.ask("POST", path.format(f"namespaces/{space}"), body, params={"dryRun": "All"})
    return answer.status_code, answer.json().get("message", ""), answer.headers.get("warning", "")


@pytest.mark.parametrize(("policy", "spec", "named"), REFUSED)
def test_what_is_wrong_is_refused_by_name(
    server: ApiServer, policy: str, spec: dict[str, Any], named: str
) -> None:
    for path, body in workloads(spec).items():
        status, message, _ = create(server, path, body)
        assert status == 422, f"{path}: {message}"
        assert f"'quote-platform-{policy}'" in message, path
        assert f": {named}" in message or named in message.partition("denied request")[2], message
        assert "; allowed: " in message


def test_what_only_warns_passes_with_the_same_words(server: ApiServer) -> None:
    """Of two policies that refuse, the server names one; so that of the digest only warns here."""
    for path, body in workloads(pod(container={"image": "ghcr.io/quote-platform/quote-app:0.1.0"})).items():
        status, message, warning = create(server, path, body)
        assert status == 201, message
        assert "'quote-platform-digest'" in warning
        assert (
            "images without a digest: ghcr.io/quote-platform/quote-app:0.1.0; allowed: NAME@sha256" in warning
        )


def test_it_holds_where_it_is_named(server: ApiServer) -> None:
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": pod(hostNetwork=True)}
    answers = {space: create(server, "/api/v1/{}/pods", body, space)[0] for space in SPACES[:3]}
    assert answers == {"shop": 422, "warehouse": 422, "other": 201}


def test_what_is_there_may_be_scaled_and_not_made_worse(
    server: ApiServer, objects: list[dict[str, Any]]
) -> None:
    """As it was before there were policies: controllers go on with it, and what its pods become is judged."""
    body = workloads(pod(container={"resources": {}}))["/apis/apps/v1/{}/deployments"]
    server.apply("deployments", body | {"metadata": {"name": "old", "namespace": "later"}})
    binding = next(one for one in objects if one["spec"].get("policyName") == "quote-platform-requests")
    selector = {"matchLabels": {"kubernetes.io/metadata.name": "later"}}
    later = binding["spec"] | {"matchResources": {"namespaceSelector": selector}}
    server.apply(PLURALS[binding["kind"]], binding | {"metadata": {"name": "later"}, "spec": later})
    until_refused(server, "/apis/apps/v1/{}/deployments", body, "later")

    def patched(patch: dict[str, Any]) -> int:
        path, kind = (
            "/apis/apps/v1/namespaces/later/deployments/old",
            "application/strategic-merge-patch+json",
        )
        return server.ask("PATCH", path, patch, content=kind, params={"dryRun": "All"}).status_code

    assert patched({"spec": {"replicas": 5}, "metadata": {"labels": {"more": "one"}}}) == 200
    container: dict[str, Any] = {"name": "main", "image": DIGEST.replace("a" * 64, "b" * 64)}
    assert patched({"spec": {"template": {"spec": {"containers": [container]}}}}) == 422
    container["resources"] = {"requests": {"cpu": "10m", "memory": "16Mi"}}
    assert patched({"spec": {"template": {"spec": {"containers": [container]}}}}) == 200


def test_the_verification_sees_whether_it_refuses(server: ApiServer, tmp_path: Path) -> None:
    def verified(space: str, **left_out: str) -> str:
        kubeconfig = str(server.kubeconfig(tmp_path / "kubeconfig"))
        spaces = {"application": space}
        return checks.admission(Target(kubeconfig, "", "", [], "", namespaces=spaces, left_out=left_out))

    assert re.fullmatch(r"\d+ of \d+ policies refuse", verified("shop"))
    with pytest.raises(Failed, match="a pod of any image is let into other"):
        verified("other")


@pytest.mark.parametrize("spec", ALLOWED)
def test_what_is_right_passes(server: ApiServer, spec: dict[str, Any]) -> None:
    for path, body in workloads(spec).items():
        assert create(server, path, body)[::2] == (201, ""), path
