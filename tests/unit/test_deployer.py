"""What whoever rolls out may do, by a real API server and a token of ten minutes: that, and nothing else."""

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_server import ApiServer, api_server, claims
from rendering import render

ROOT = Path(__file__).resolve().parents[2]
SPACE = "quote-lab"
ACCOUNT = f"/api/v1/namespaces/{SPACE}/serviceaccounts/quote-app-deployer"
DEPLOYMENT = f"/apis/apps/v1/namespaces/{SPACE}/deployments/quote-app"
TABLE: dict[str, list[dict[str, str]]] = yaml.safe_load((ROOT / "tests/fixtures/deployer.yml").read_text())
PLURALS = {
    "ServiceAccount": "serviceaccounts",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Deployment": "deployments",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    texts = render(
        tmp_path_factory.mktemp("rendered"),
        ("quote_app/templates/quote-app.yaml.j2", {}),
        ("quote_app/templates/access.yaml.j2", {}),
    )
    documents = [item for text in texts for item in yaml.safe_load_all(text)]
    with api_server(tmp_path_factory.mktemp("server")) as running:
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}
        running.apply("namespaces", space)
        for document in documents:
            if document["kind"] in PLURALS:
                running.apply(PLURALS[document["kind"]], document)
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "postgres-app", "namespace": SPACE},
        }
        running.apply("secrets", secret)
        # The server takes policies in a moment after they were applied.
        token, deadline = made(running), time.monotonic() + 30
        while patched(running, token, {"spec": {"replicas": 0}})[0] != 422:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield running


def made(server: ApiServer, *audiences: str) -> str:
    """Return a token, as `kubectl create token` makes it."""
    spec: dict[str, Any] = {"expirationSeconds": 600} | ({"audiences": list(audiences)} if audiences else {})
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = server.ask("POST", f"{ACCOUNT}/token", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["status"]["token"])


@pytest.fixture(scope="module")
def token(server: ApiServer) -> str:
    return made(server)


def patched(server: ApiServer, token: str, patch: dict[str, Any]) -> tuple[int, str]:
    """Patch the Deployment in a dry run; return status and message."""
    kind = "application/strategic-merge-patch+json"
    answer = server.ask("PATCH", DEPLOYMENT, patch, token=token, content=kind, params={"dryRun": "All"})
    return answer.status_code, answer.json().get("message", "")


def container(**fields: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"name": "quote-app", **fields}]}}}}


def allows(server: ApiServer, token: str, one: dict[str, str]) -> bool:
    """Ask, with the token, whether its account may do something."""
    names = ("verb", "group", "resource", "subresource", "name")
    asked = {"namespace": one.get("namespace", SPACE)} | {key: one[key] for key in names if key in one}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    answer = server.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body, token=token)
    assert answer.status_code == 201, answer.text
    return bool(answer.json()["status"]["allowed"])


def test_a_token_is_of_the_account_and_ends_after_ten_minutes(server: ApiServer, token: str) -> None:
    said = claims(token)
    assert said["sub"] == f"system:serviceaccount:{SPACE}:quote-app-deployer"
    assert said["exp"] - said["iat"] == 600
    assert said["aud"] == ["https://kubernetes.default.svc"], "the API server's alone"
    assert server.ask("GET", DEPLOYMENT, token=made(server, "https://vault.example.com")).status_code == 401


@pytest.mark.parametrize("one", TABLE["allowed"], ids=lambda one: str(one["what"]))
def test_what_is_allowed(server: ApiServer, token: str, one: dict[str, str]) -> None:
    assert allows(server, token, one)


@pytest.mark.parametrize("one", TABLE["forbidden"], ids=lambda one: str(one["what"]))
def test_what_is_forbidden(server: ApiServer, token: str, one: dict[str, str]) -> None:
    assert not allows(server, token, one)


def test_there_are_more_than_twenty() -> None:
    assert len(TABLE["forbidden"]) > 20


def test_a_version_is_rolled_out_and_watched(server: ApiServer, token: str) -> None:
    image = server.ask("GET", DEPLOYMENT, token=token).json()["spec"]["template"]["spec"]["containers"][0][
        "image"
    ]
    repository = image.rpartition(":")[0]
    for new in (
        f"{repository}:9.9.9",
        f"{repository}@sha256:{'a' * 64}",
        f"{repository}:9@sha256:{'b' * 64}",
    ):
        assert patched(server, token, container(image=new)) == (200, "")
    restart = {"annotations": {"kubectl.kubernetes.io/restartedAt": "2026-11-30T00:00:00Z"}}
    assert patched(server, token, {"spec": {"template": {"metadata": restart}}}) == (200, "")
    cause = {"annotations": {"kubernetes.io/change-cause": "by hand"}}
    assert patched(server, token, {"metadata": cause}) == (200, "")
    path = f"/apis/apps/v1/namespaces/{SPACE}/deployments"
    selector = {"fieldSelector": "metadata.name=quote-app"}
    assert len(server.ask("GET", path, token=token, params=selector).json()["items"]) == 1
    assert server.ask("GET", path, token=token).status_code == 403


BEYOND: list[tuple[str, dict[str, Any]]] = [
    ("another image", container(image="ghcr.io/quote-platform/backup:0.3.0")),
    ("an image of the same name elsewhere", container(image="example.com/quote-platform/quote-app:0.1.0")),
    ("a command", container(command=["sh", "-c", "cat /run/secrets/database/password"])),
    ("a variable", container(env=[{"name": "X", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}])),
    ("rights", container(securityContext={"allowPrivilegeEscalation": True})),
    ("no limit", container(resources={"limits": {"memory": "4Gi"}})),
    ("a container", {"spec": {"template": {"spec": {"containers": [{"name": "more", "image": "busybox"}]}}}}),
    (
        "a first one",
        {"spec": {"template": {"spec": {"initContainers": [{"name": "a", "image": "busybox"}]}}}},
    ),
    (
        "a volume",
        {"spec": {"template": {"spec": {"volumes": [{"name": "s", "secret": {"secretName": "a"}}]}}}},
    ),
    ("another account", {"spec": {"template": {"spec": {"serviceAccountName": "default"}}}}),
    ("its token", {"spec": {"template": {"spec": {"automountServiceAccountToken": True}}}}),
    ("the node's network", {"spec": {"template": {"spec": {"hostNetwork": True}}}}),
    ("labels of pods", {"spec": {"template": {"metadata": {"labels": {"app.kubernetes.io/part-of": "a"}}}}}),
    ("the number of pods", {"spec": {"replicas": 0}}),
    ("the strategy", {"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": 3}}}}),
    ("labels", {"metadata": {"labels": {"a": "b"}}}),
    (
        "an owner that is not there, which would delete it",
        {
            "metadata": {
                "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "b"}]
            }
        },
    ),
]


@pytest.mark.parametrize(("what", "patch"), BEYOND, ids=[what for what, _ in BEYOND])
def test_a_patch_changes_nothing_but_the_version(
    server: ApiServer, token: str, what: str, patch: dict[str, Any]
) -> None:
    status, message = patched(server, token, patch)
    assert status == 422, what
    assert "whoever rolls out quote-app may" in message


def test_others_change_what_they_may(server: ApiServer) -> None:
    """The policy is of the deployer: it is not in the platform's way."""
    for _, patch in BEYOND[2:4]:
        kind = "application/strategic-merge-patch+json"
        answer = server.ask("PATCH", DEPLOYMENT, copy.deepcopy(patch), content=kind, params={"dryRun": "All"})
        assert answer.status_code == 200, answer.text


def test_real_calls_are_refused(server: ApiServer, token: str) -> None:
    pods = f"/api/v1/namespaces/{SPACE}/pods"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": []}}
    calls = [
        ("GET", f"/api/v1/namespaces/{SPACE}/secrets/postgres-app", None),
        ("GET", "/api/v1/namespaces/kube-system/pods", None),
        ("GET", "/api/v1/nodes", None),
        ("POST", pods, pod),
        ("POST", f"{pods}/a/exec?command=id", None),
        ("DELETE", DEPLOYMENT, None),
        ("POST", f"{ACCOUNT}/token", {"spec": {}}),
        ("PUT", DEPLOYMENT, server.ask("GET", DEPLOYMENT).json()),
    ]
    for method, path, body in calls:
        assert server.ask(method, path, body, token=token).status_code == 403, f"{method} {path}"


def test_the_account_has_no_token_that_lasts(server: ApiServer) -> None:
    account = server.ask("GET", ACCOUNT).json()
    assert not account.get("secrets")
    assert account["automountServiceAccountToken"] is False
