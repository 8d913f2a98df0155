"""A component: fetched by checksum, merged, applied in an order that works, and changes named exactly."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiException

from quote_platform import component
from quote_platform.component import manifests, objects
from quote_platform.component.server import Server
from quote_platform.kubeconfig import Unusable

URL = "https://raw.example.com/project/v1/all.yaml"
TEXT = b"kind: ConfigMap\nmetadata: {name: a}\n"
SHA = hashlib.sha256(TEXT).hexdigest()


class Upstream:
    """What is served, and what was asked for."""

    def __init__(self) -> None:
        self.content = TEXT
        self.asked: list[str] = []

    def open(self, url: str, timeout: int) -> io.BytesIO:
        assert timeout > 0
        self.asked.append(url)
        return io.BytesIO(self.content)


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Upstream:
    server = Upstream()
    monkeypatch.setattr(manifests, "open_url", server.open)
    return server


def test_a_pinned_manifest_is_fetched_once(upstream: Upstream, tmp_path: Path) -> None:
    manifest = {"url": URL, "sha256": SHA}
    for _ in range(2):
        assert manifests.fetch(manifest, "http://mirror/manifests/", tmp_path) == TEXT.decode()
    assert upstream.asked == ["http://mirror/manifests/project/v1/all.yaml"]


def test_an_empty_base_means_upstream(upstream: Upstream, tmp_path: Path) -> None:
    manifests.fetch({"url": URL, "sha256": SHA}, "", tmp_path)
    assert upstream.asked == [URL]


def test_a_changed_manifest_is_refused_and_the_good_one_kept(upstream: Upstream, tmp_path: Path) -> None:
    manifests.fetch({"url": URL, "sha256": SHA}, "", tmp_path)
    upstream.content = b"kind: Other\n"
    with pytest.raises(component.Refused, match=r"all\.yaml: its SHA-256 is .*, pinned is 0000"):
        manifests.fetch({"url": URL, "sha256": "0" * 64}, "", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [SHA]


def test_a_damaged_cache_is_fetched_again(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / SHA).write_text("damaged")
    assert manifests.fetch({"url": URL, "sha256": SHA}, "", tmp_path) == TEXT.decode()
    assert upstream.asked == [URL]


def test_without_a_pin_the_first_fetch_is_recorded(upstream: Upstream, tmp_path: Path) -> None:
    manifests.fetch({"url": URL}, "", tmp_path)
    assert json.loads((tmp_path / "manifests.lock.json").read_text()) == {URL: SHA}
    (tmp_path / SHA).unlink()
    upstream.content = b"kind: Other\n"
    with pytest.raises(component.Refused, match=SHA):
        manifests.fetch({"url": URL}, "", tmp_path)


def test_a_source_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(_url: str, **_: object) -> None:
        raise OSError("connection refused")

    monkeypatch.setattr(manifests, "open_url", refuse)
    with pytest.raises(component.Refused, match=r"all\.yaml cannot be fetched: connection refused"):
        manifests.fetch({"url": URL, "sha256": SHA}, "", tmp_path)


@pytest.mark.parametrize(
    ("base", "patch", "merged"),
    [
        ({"a": 1, "b": {"c": 1}}, {"b": {"d": 2}}, {"a": 1, "b": {"c": 1, "d": 2}}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        (["x", "y"], ["z"], ["z"]),
        (
            [{"name": "a", "image": "1", "port": 1}, {"name": "b"}],
            [{"name": "a", "image": "2"}, {"name": "c"}],
            [{"name": "a", "image": "2", "port": 1}, {"name": "b"}, {"name": "c"}],
        ),
        ([{"name": "a"}, {"name": "b"}], [{"name": "a", "$patch": "delete"}], [{"name": "b"}]),
        ([{"key": "a"}], [{"key": "b"}], [{"key": "b"}]),
    ],
)
def test_merge(base: Any, patch: Any, merged: Any) -> None:
    before = json.dumps(base)
    assert manifests.merge(base, patch) == merged
    assert json.dumps(base) == before


def thing(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **more}


def test_manifests_move_to_other_namespaces_before_they_are_patched() -> None:
    documents = [
        {"kind": "Namespace", "metadata": {"name": "up"}},
        {
            "kind": "Service",
            "metadata": {"name": "up", "namespace": "up"},
            "spec": {"selector": {"app": "up"}},
        },
        {"kind": "RoleBinding", "metadata": {"name": "a"}, "subjects": [{"name": "up", "namespace": "up"}]},
        {"kind": "Hook", "webhooks": [{"clientConfig": {"service": {"name": "up", "namespace": "up"}}}]},
        {"kind": "Role", "metadata": {"name": "b", "namespace": "other"}},
        # What is called so in a schema is no namespace.
        {"kind": "Kind", "properties": {"namespace": {"type": "up"}}},
    ]
    texts = [json.dumps(document) for document in documents]
    patch = {"kind": "Namespace", "metadata": {"name": "down", "labels": {"a": "b"}}}
    space, service, binding, hook, role, kind = manifests.assemble(texts, [patch], [], {"up": "down"})
    assert space["metadata"] == patch["metadata"]
    assert service == {
        "kind": "Service",
        "metadata": {"name": "up", "namespace": "down"},
        "spec": {"selector": {"app": "up"}},
    }
    assert binding["subjects"] == [{"name": "up", "namespace": "down"}]
    assert hook["webhooks"][0]["clientConfig"]["service"] == {"name": "up", "namespace": "down"}
    assert [role, kind] == documents[4:]


def test_assemble_opens_lists_skips_empty_documents_and_patches_by_kind_and_name() -> None:
    listed = json.dumps({"kind": "List", "items": [thing("Service", "a"), thing("ConfigMap", "a")]})
    documents = manifests.assemble(
        [f"---\n---\n{listed}\n", json.dumps(thing("Secret", "gone"))],
        [
            {"kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "1"}},
            {"kind": "Secret", "metadata": {"name": "gone"}, "$patch": "delete"},
        ],
        [thing("Pod", "own")],
    )
    assert documents == [thing("Service", "a"), thing("ConfigMap", "a", data={"x": "1"}), thing("Pod", "own")]


def test_a_lone_equals_sign_is_a_word() -> None:
    assert manifests.assemble(["kind: A\nenum: ['!=', =, =~]\n"], [], []) == [
        {"kind": "A", "enum": ["!=", "=", "=~"]}
    ]


def test_a_patch_that_matches_nothing_is_refused() -> None:
    patch = {"kind": "Deployment", "metadata": {"name": "renamed"}}
    with pytest.raises(component.Refused, match="matches nothing: Deployment/renamed"):
        manifests.assemble([json.dumps(thing("Deployment", "a"))], [patch], [])


def test_a_patch_with_a_namespace_leaves_the_namesake_alone() -> None:
    here, there = thing("ConfigMap", "a"), thing("ConfigMap", "a")
    here["metadata"]["namespace"], there["metadata"]["namespace"] = "here", "there"
    patch = {"kind": "ConfigMap", "metadata": {"name": "a", "namespace": "there"}, "data": {"x": "1"}}
    found = manifests.assemble([json.dumps(here), json.dumps(there)], [patch], [])
    assert [("data" in document) for document in found] == [False, True]


def test_namespaces_come_first_and_webhooks_last() -> None:
    kinds = [
        "ValidatingWebhookConfiguration",
        "Deployment",
        "CustomResourceDefinition",
        "Namespace",
        "Secret",
        "Cluster",
    ]
    ordered = objects.stages([thing(kind, "x") for kind in kinds])
    assert [[item["kind"] for item in stage] for stage in ordered] == [
        ["Namespace"],
        ["CustomResourceDefinition", "Secret"],
        ["Deployment", "Cluster"],
        ["ValidatingWebhookConfiguration"],
    ]


def test_a_diff_shows_neither_server_fields_nor_secrets() -> None:
    secret = thing("Secret", "s", data={"k": "aGlkZGVu"}, stringData={"p": "hidden"}, status={"x": 1})
    secret["metadata"] |= {"resourceVersion": "7", "uid": "u", "managedFields": []}
    shown = objects.clean(secret)
    assert shown["metadata"] == {"name": "s"}
    assert "status" not in shown
    assert "aGlkZGVu" not in str(shown)
    assert "hidden" not in str(shown)
    assert secret["stringData"] == {"p": "hidden"}


class Found:
    """An answer of the API server."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def to_dict(self) -> dict[str, Any]:
        return self.document


class Client:
    """An API server with one namespaced resource; `errors` are raised in turn before it applies."""

    namespaced = True

    def __init__(self, live: dict[str, Any] | None, errors: list[Exception] | None = None) -> None:
        self.live, self.errors = live, errors or []
        self.resources = self
        self.applied: list[dict[str, Any]] = []
        self.meanwhile: dict[str, Any] = {}  # what somebody else makes of it once it was read

    def get(self, name: str = "", namespace: str = "", **kind: str) -> Any:
        if kind:
            return self
        if self.live is None:
            raise ApiException(status=404)
        found, self.live = self.live, self.meanwhile or self.live
        return Found(found)

    def server_side_apply(self, _resource: object, **given: Any) -> Found:
        if self.errors:
            raise self.errors.pop(0)
        metadata = given["body"]["metadata"]
        if self.live and metadata.get("resourceVersion") != self.live["metadata"]["resourceVersion"]:
            raise error(409, "the object has been modified")
        self.applied.append(given)
        return Found((self.live or {}) | given["body"])


def connected(client: Client, dry_run: bool = False, timeout: int = 60) -> Any:
    made = Server("/nowhere", True, timeout)
    made.client, made.dry_run = client, dry_run
    return made


def live(image: str) -> dict[str, Any]:
    found = thing("Deployment", "a", spec={"image": image}, status={"ready": 1})
    found["metadata"] |= {"namespace": "ns", "resourceVersion": "1"}
    return found


def test_what_is_already_so_is_no_change() -> None:
    wanted = thing("Deployment", "a", spec={"image": "1"})
    assert connected(Client(live("1"))).apply(wanted, "ns") is None
    assert "namespace" not in wanted["metadata"]


def test_drift_is_shown_and_a_dry_run_changes_nothing() -> None:
    client = Client(live("2"))
    before, after = connected(client, dry_run=True).apply(thing("Deployment", "a", spec={"image": "1"}), "ns")
    assert (before["spec"], after["spec"]) == ({"image": "2"}, {"image": "1"})
    assert [given["dry_run"] for given in client.applied] == ["All"]
    assert client.applied[0]["field_manager"] == "quote-platform"


def test_what_somebody_else_writes_meanwhile_is_no_change() -> None:
    client = Client(live("1"))
    client.meanwhile = live("1") | {"data": "an operator's"}
    client.meanwhile["metadata"]["resourceVersion"] = "2"
    assert connected(client).apply(thing("Deployment", "a", spec={"image": "1"}), "ns") is None
    assert [given["body"]["metadata"]["resourceVersion"] for given in client.applied] == ["2"]


def test_what_is_missing_is_created() -> None:
    before, after = connected(Client(None)).apply(thing("Deployment", "a"), "ns")
    assert before == {}
    assert after["metadata"] == {"name": "a", "namespace": "ns"}


def error(status: int, message: str) -> ApiException:
    raised = ApiException(status=status)
    raised.body = json.dumps({"message": message})
    return raised


def test_a_dry_run_forgives_a_namespace_that_does_not_exist_yet() -> None:
    client = Client(None, [error(404, 'namespaces "ns" not found')])
    before, after = connected(client, dry_run=True).apply(thing("Deployment", "a"), "ns")
    assert (before, after["kind"]) == ({}, "Deployment")


def test_a_webhook_that_starts_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    client = Client(None, [error(500, "failed calling webhook: connection refused")] * 3)
    assert connected(client).apply(thing("Cluster", "a"), "ns")
    assert len(client.applied) == 1


def test_an_error_that_stays_is_reported_with_its_object() -> None:
    client = Client(None, [error(422, "spec.replicas: Invalid value")])
    with pytest.raises(component.Refused, match=r"Deployment ns/a: spec\.replicas: Invalid value"):
        connected(client).apply(thing("Deployment", "a"), "ns")


def test_waiting_has_an_end() -> None:
    client = Client(None, [error(503, "starting")])
    with pytest.raises(component.Refused, match="Deployment ns/a: starting"):
        connected(client, timeout=-1).apply(thing("Deployment", "a"), "ns")


def test_an_api_server_that_is_down_is_named(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "current-context": "x",
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:9"}}],
                "users": [{"name": "x", "user": {}}],
            }
        )
    )
    with pytest.raises(Unusable, match="does not answer"):
        Server(str(kubeconfig), False, 60)
    with pytest.raises(Unusable, match="does not answer"):
        Server(str(kubeconfig), False, 1, patient=True)


def test_a_dry_run_without_a_cluster_creates_everything() -> None:
    assert Server("/nowhere", True, 1).apply(thing("Pod", "a"), "ns") == ({}, thing("Pod", "a"))


def test_an_operator_starts_when_its_kinds_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []

    class Recorder:
        dry_run = False

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def apply(self, document: dict[str, Any], *_: object) -> tuple[dict[str, Any], dict[str, Any]]:
            did.append(document["kind"])
            return {}, document

        def wait(self, items: list[dict[str, Any]], _: str) -> None:
            did.extend(f"{item['name']} is {item['condition']['type']}" for item in items)

    monkeypatch.setattr(component, "Server", Recorder)
    given: dict[str, Any] = {
        "kubeconfig": "/nowhere",
        "namespace": "",
        "base_url": "",
        "cache": "/nowhere",
        "timeout": 1,
    }
    wanted = [
        thing("Deployment", "operator"),
        thing("CustomResourceDefinition", "dogs") | {"apiVersion": "apiextensions.k8s.io/v1"},
    ]
    given |= {
        "manifests": [],
        "namespaces": {},
        "patches": [],
        "prune": False,
        "gone": [],
        "wait": [],
        "objects": wanted,
    }
    component.run(given, dry_run=False)
    assert did == ["CustomResourceDefinition", "dogs is Established", "Deployment"]


SCALED = thing("Deployment", "a", spec={"image": "1", "replicas": 3})


def with_replicas(manager: str) -> dict[str, Any]:
    """Return a Deployment that an autoscaler brought to five pods, whose number was written by a manager."""
    found = live("1")
    found["spec"]["replicas"] = 5
    found["metadata"]["managedFields"] = [
        {"manager": "quote-platform", "fieldsV1": {"f:spec": {"f:image": {}}}},
        {"manager": manager, "fieldsV1": {"f:spec": {"f:replicas": {}}}},
    ]
    return found


def sent(client: Client) -> list[tuple[str, dict[str, Any]]]:
    return [(given["field_manager"], given["body"]["spec"]) for given in client.applied]


def test_what_an_autoscaler_scales_is_found() -> None:
    target = {"kind": "Deployment", "name": "a"}
    scaler = thing("HorizontalPodAutoscaler", "any", spec={"scaleTargetRef": target})
    assert objects.autoscaled([thing("Deployment", "b"), scaler, SCALED]) == {("Deployment", "a")}


def test_an_autoscaled_workload_starts_with_its_number() -> None:
    client = Client(None)
    connected(client).apply(SCALED, "ns", True)
    assert sent(client) == [("quote-platform", {"image": "1"}), ("quote-platform-start", {"replicas": 3})]


def test_the_number_of_an_autoscaler_is_left_alone() -> None:
    client = Client(with_replicas("kube-controller-manager"))
    connected(client).apply(SCALED, "ns", True)
    assert sent(client) == [("quote-platform", {"image": "1"})]


@pytest.mark.parametrize(
    ("dry_run", "wanted"),
    [
        (False, [("quote-platform-start", {"replicas": 5}), ("quote-platform", {"image": "1"})]),
        (True, [("quote-platform", {"image": "1", "replicas": 5})]),
    ],
)
def test_a_number_of_ours_is_handed_over_as_it_is(
    dry_run: bool, wanted: list[tuple[str, dict[str, Any]]]
) -> None:
    client = Client(with_replicas("quote-platform"))
    connected(client, dry_run=dry_run).apply(SCALED, "ns", True)
    assert sent(client) == wanted


READY = {"type": "Ready", "status": "True"}
AWAY = {"type": "Ready", "status": "False", "message": "no disk"}
NEW, OLD = {"observedGeneration": 2}, {"observedGeneration": 1}
DEPLOYMENT = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}


@pytest.mark.parametrize(
    ("kind", "status", "asked", "lack"),
    [
        ("Cluster", {"conditions": [READY]}, {"condition": {"type": "Ready"}}, ""),
        ("Cluster", {"conditions": [AWAY]}, {"condition": {"type": "Ready"}}, "Ready is False: no disk"),
        ("Cluster", {}, {"condition": {"type": "Ready"}}, "Ready is not known yet: "),
        ("Cluster", {"phase": "Available"}, {"fields": {"phase": "Available"}}, ""),
        (
            "Cluster",
            {"phase": "Away", "message": "403"},
            {"fields": {"phase": "Available"}},
            "phase is Away: 403",
        ),
        ("Cluster", {}, {}, ""),
        ("Deployment", NEW | DEPLOYMENT, {}, ""),
        ("Deployment", OLD | DEPLOYMENT, {}, "its newest generation has not been looked at yet"),
        ("Deployment", NEW | DEPLOYMENT | {"updatedReplicas": 1}, {}, "updatedReplicas is 1 of 2"),
        ("Deployment", NEW | DEPLOYMENT | {"replicas": 3}, {}, "replicas is 3 of 2"),
        ("Deployment", NEW | {"replicas": 2, "updatedReplicas": 2}, {}, "availableReplicas is 0 of 2"),
        ("DaemonSet", NEW | {"desiredNumberScheduled": 0}, {}, ""),
        (
            "DaemonSet",
            NEW | {"desiredNumberScheduled": 1, "numberReady": 1},
            {},
            "updatedNumberScheduled is 0 of 1",
        ),
    ],
)
def test_what_is_waited_for(kind: str, status: dict[str, Any], asked: dict[str, Any], lack: str) -> None:
    found = thing(kind, "a", status=status, spec={"replicas": 2} if kind == "Deployment" else {})
    found["metadata"]["generation"] = 2
    wait = [{"api_version": "v1", "kind": kind, "name": "a", **asked}]
    if not lack:
        connected(Client(found)).wait(wait, "ns")
        return
    with pytest.raises(component.Refused) as refused:
        connected(Client(found), timeout=-1).wait(wait, "ns")
    assert str(refused.value) == f"not ready after -1 s: {kind} a: {lack}"


def test_what_is_not_there_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(None)
    monkeypatch.setattr("time.sleep", lambda _: setattr(client, "live", thing("ConfigMap", "a")))
    connected(client).wait([{"api_version": "v1", "kind": "ConfigMap", "name": "a"}], "ns")
    assert client.live is not None
