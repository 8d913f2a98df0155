"""What a component no longer names goes away, and nothing else does."""

import copy
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiException
from kubernetes.dynamic.exceptions import ResourceNotFoundError

from quote_platform import component
from quote_platform.component import record
from quote_platform.component.server import Server

Document = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
OURS = {"manager": "quote-platform", "operation": "Apply"}
OF_THE_CLUSTER = {"Namespace", "CustomResourceDefinition", "ClusterRole", "IngressClass"}


class Kind:
    """One kind of a cluster."""

    def __init__(self, cluster: "Cluster", api_version: str, name: str) -> None:
        self.cluster, self.api_version, self.name = cluster, api_version, name
        self.namespaced = name not in OF_THE_CLUSTER

    def get(self, name: str = "", namespace: str | None = None, label_selector: str = "") -> Any:
        self.cluster.asked.append(f"{'list' if label_selector else 'get'} {self.name}")
        if label_selector:
            key, value = label_selector.split("=")
            return Answer({"items": self.cluster.of(self.name, namespace, key, value)})
        return Answer(self.cluster.object(self.name, namespace if self.namespaced else None, name))

    def delete(self, name: str, namespace: str | None, body: Document) -> None:
        found = self.cluster.object(self.name, namespace if self.namespaced else None, name)
        assert body["preconditions"] == {"uid": found["metadata"]["uid"]}
        assert body["propagationPolicy"] == "Foreground"
        self.cluster.deleted.append(f"{self.name} {name}")
        if not found["metadata"].get("finalizers"):
            self.cluster.objects.remove(found)


class Answer:
    """An answer of the API server."""

    def __init__(self, document: Document) -> None:
        self.document = document

    def to_dict(self) -> Document:
        return copy.deepcopy(self.document)


class Cluster:
    """An API server that has objects of all kinds but those that are unknown."""

    def __init__(self) -> None:
        self.objects: list[Document] = []
        self.deleted: list[str] = []
        self.asked: list[str] = []
        self.written: list[str] = []
        self.unknown: set[str] = set()
        self.resources = self

    def get(self, api_version: str, kind: str) -> Kind:
        if kind in self.unknown:
            raise ResourceNotFoundError(kind)
        return Kind(self, api_version, kind)

    def object(self, kind: str, namespace: str | None, name: str) -> Document:
        for found in self.objects:
            metadata = found["metadata"]
            if (found["kind"], metadata.get("namespace"), metadata["name"]) == (kind, namespace, name):
                return found
        raise ApiException(status=404)

    def of(self, kind: str, namespace: str | None, key: str, value: str) -> list[Document]:
        return [
            {part: found[part] for part in found if part not in ("apiVersion", "kind")}  # as a list has them
            for found in self.objects
            if found["kind"] == kind
            and found["metadata"].get("namespace") == namespace
            and found["metadata"].get("labels", {}).get(key) == value
        ]

    def server_side_apply(
        self, kind: Kind, body: Document, name: str, namespace: str | None, **how: Any
    ) -> Answer:
        made = copy.deepcopy(body)
        try:
            before = self.object(kind.name, namespace, name)
        except ApiException:
            before = None
        of_the_server = (
            before["metadata"] if before else {"uid": f"uid-{len(self.objects)}", "managedFields": [OURS]}
        )
        made["metadata"] |= {key: of_the_server[key] for key in ("uid", "managedFields")}
        made["metadata"]["resourceVersion"] = "1"
        if how.get("dry_run"):
            return Answer(made)
        if before:
            self.objects.remove(before)
        self.objects.append(made)
        self.written.append(f"{kind.name} {name}")
        return Answer(made)

    @property
    def names(self) -> list[str]:
        """Return what is there, but records."""
        named = [f"{found['kind']} {found['metadata']['name']}" for found in self.objects]
        return sorted(one for one in named if not one.startswith("ConfigMap component-"))

    def recorded(self, name: str) -> list[str]:
        """Return the lines of a record."""
        return list(
            self.object("ConfigMap", "kube-system", f"component-{name}")["data"]["objects"].splitlines()
        )


def thing(kind: str, name: str, api_version: str = "v1", **metadata: Any) -> Document:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, **metadata}}


Apply = Callable[..., Document]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()

    def connected(_: str, dry_run: bool, timeout: int, patient: bool = False) -> Server:
        server = Server("/nowhere", True, timeout)
        server.client, server.dry_run = made, dry_run
        return server

    monkeypatch.setattr(component, "Server", connected)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return made


@pytest.fixture
def apply(cluster: Cluster) -> Apply:
    """Return what applies a component of these objects."""

    def apply(
        *objects: Document,
        name: str = "it",
        dry_run: bool = False,
        timeout: int = 60,
        gone: Sequence[str] = (),
    ) -> Document:
        cluster.asked.clear()
        cluster.written.clear()
        given: Document = {
            "name": name,
            "namespace": "ns",
            "kubeconfig": "",
            "base_url": "",
            "cache": "",
            "wait": [],
        }
        given |= {"manifests": [], "namespaces": {}, "patches": [], "objects": list(objects)}
        given |= {"prune": True, "timeout": timeout, "gone": list(gone)}
        return component.run(given, dry_run)

    return apply


A, B, C = thing("ConfigMap", "a"), thing("Deployment", "b", "apps/v1"), thing("ClusterRole", "c", "rbac/v1")


def test_what_is_no_longer_named_is_deleted(cluster: Cluster, apply: Apply) -> None:
    first = apply(A, B, C)
    assert first["changes"][-1] == "create ConfigMap kube-system/component-it"
    assert cluster.recorded("it") == ["apps/v1 Deployment ns/b", "rbac/v1 ClusterRole c", "v1 ConfigMap ns/a"]
    second = apply(A)
    assert second["changes"] == [
        "delete Deployment ns/b",
        "delete ClusterRole c",
        "change ConfigMap kube-system/component-it",
    ]
    assert cluster.names == ["ConfigMap a"]
    assert cluster.recorded("it") == ["v1 ConfigMap ns/a"]
    gone = second["diff"][0]
    assert (gone["before_header"], gone["after_header"], gone["after"]) == (*["Deployment ns/b"] * 2, "")
    assert yaml.safe_load(gone["before"])["kind"] == "Deployment"


def test_a_second_run_changes_nothing_and_asks_for_no_more_than_the_record(
    cluster: Cluster, apply: Apply
) -> None:
    apply(A, B)
    again = apply(A, B)
    assert (again["changed"], again["changes"], again["diff"]) == (False, [], [])
    assert cluster.asked == ["get ConfigMap", "get ConfigMap", "get Deployment"]
    assert "ConfigMap component-it" not in cluster.written


def test_a_dry_run_says_what_would_be_deleted_and_deletes_nothing(cluster: Cluster, apply: Apply) -> None:
    apply(A, B)
    before = copy.deepcopy(cluster.objects)
    said = apply(A, dry_run=True)
    assert said["changes"] == ["delete Deployment ns/b", "change ConfigMap kube-system/component-it"]
    assert cluster.objects == before
    assert apply(A)["changes"] == said["changes"]


def test_without_a_record_nothing_is_deleted_and_one_is_made_once(cluster: Cluster, apply: Apply) -> None:
    apply(A, B)
    cluster.objects.remove(cluster.object("ConfigMap", "kube-system", "component-it"))
    assert apply(A)["changes"] == ["create ConfigMap kube-system/component-it"]
    assert cluster.names == ["ConfigMap a", "Deployment b"]
    assert not apply(A)["changed"]


@pytest.mark.parametrize(
    ("kind", "api_version"),
    [
        ("Namespace", "v1"),
        ("PersistentVolumeClaim", "v1"),
        ("PersistentVolume", "v1"),
        ("CustomResourceDefinition", "apiextensions.k8s.io/v1"),
    ],
)
def test_what_others_lie_in_stays_and_is_named_once(
    kind: str, api_version: str, cluster: Cluster, apply: Apply
) -> None:
    kept = thing(kind, "kept", api_version)
    if kind == "CustomResourceDefinition":
        kept["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
    apply(A, B, kept)
    result = apply(A)
    assert "delete Deployment ns/b" in result["changes"]
    (warning,) = result["warnings"]
    assert re.match(
        rf"component it: no longer named, and kept, since only you can know .*: {kind} (ns/)?kept$", warning
    )
    assert cluster.names == sorted(["ConfigMap a", f"{kind} kept"])
    again = apply(A)
    assert not again["changed"]
    assert "warnings" not in again


def test_what_holds_data_stays_with_all_it_may_need_until_somebody_deletes_it(
    cluster: Cluster, apply: Apply
) -> None:
    data = thing("Cluster", "db", "postgresql.cnpg.io/v1")
    apply(A, B, data)
    for _ in range(2):
        result = apply(A)
        assert not result["changed"]
        (warning,) = result["warnings"]
        assert warning.startswith(
            "component it: Cluster ns/db is no longer named and holds data: nothing of the"
        )
        assert "kubectl --namespace ns delete cluster.postgresql.cnpg.io db;" in warning
        assert cluster.names == ["Cluster db", "ConfigMap a", "Deployment b"]
    cluster.objects.remove(cluster.object("Cluster", "ns", "db"))
    assert "delete Deployment ns/b" in apply(A)["changes"]
    assert cluster.names == ["ConfigMap a"]


@pytest.mark.parametrize(
    ("kind", "fields", "stays"),
    [
        (
            "ConfigMap",
            [{"manager": "kubectl", "operation": "Update"}],
            "quote-platform has no fields in it any more",
        ),
        (
            "ConfigMap",
            [{"manager": "quote-platform", "operation": "Update"}],
            "quote-platform has no fields in it",
        ),
        (
            "Secret",
            [OURS, {"manager": "operator", "operation": "Update"}],
            "operator has written to it as well",
        ),
        ("ConfigMap", [OURS, {"manager": "operator", "operation": "Update"}], ""),
        ("Secret", [OURS], ""),
        ("ConfigMap", [], ""),
    ],
)
def test_what_somebody_else_has_taken_over_stays(
    kind: str, fields: list[Document], stays: str, cluster: Cluster, apply: Apply
) -> None:
    apply(A, thing(kind, "taken"))
    cluster.object(kind, "ns", "taken")["metadata"]["managedFields"] = fields
    warnings = apply(A).get("warnings", [])
    assert [stays in warning for warning in warnings] == [True] * bool(stays)
    assert cluster.names == sorted(["ConfigMap a"] + [f"{kind} taken"] * bool(stays))
    assert not apply(A)["changed"]


def test_what_another_component_names_now_stays(cluster: Cluster, apply: Apply) -> None:
    apply(A, B)
    apply(B, C, name="other")
    assert apply(A)["changes"] == ["change ConfigMap kube-system/component-it"]
    assert cluster.names == ["ClusterRole c", "ConfigMap a", "Deployment b"]
    assert apply(C, name="other")["changes"][0] == "delete Deployment ns/b"


def test_another_version_of_the_api_is_the_same_object(cluster: Cluster, apply: Apply) -> None:
    apply(A, thing("Deployment", "b", "apps/v1beta1"))
    assert apply(A, B)["changes"][-1] == "change ConfigMap kube-system/component-it"
    assert cluster.deleted == []
    assert cluster.recorded("it") == ["apps/v1 Deployment ns/b", "v1 ConfigMap ns/a"]


def test_what_is_gone_already_is_no_change_but_of_the_record(cluster: Cluster, apply: Apply) -> None:
    apply(A, B)
    cluster.objects.remove(cluster.object("Deployment", "ns", "b"))
    assert apply(A)["changes"] == ["change ConfigMap kube-system/component-it"]


def test_what_was_applied_by_a_run_that_ended_early_is_recorded(
    cluster: Cluster, apply: Apply, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(A)
    bad = thing("Deployment", "bad", "apps/v1")
    whole = Cluster.server_side_apply

    def refuse(self: Cluster, kind: Kind, body: Document, **how: Any) -> Answer:
        if body["metadata"]["name"] == "bad":
            error = ApiException(status=422)
            error.body = json.dumps({"message": "Invalid value"})
            raise error
        return whole(self, kind, body, **how)

    monkeypatch.setattr(Cluster, "server_side_apply", refuse)
    with pytest.raises(component.Refused, match="Invalid value"):
        apply(A, thing("Secret", "s"), bad)
    assert "Secret s" in cluster.names
    assert "delete Secret ns/s" in apply(A)["changes"]


def test_a_kind_that_was_not_known_yet_is_not_taken_for_another_object(
    cluster: Cluster, apply: Apply
) -> None:
    # A run ended before it knew that the kind has no namespaces, and recorded one.
    apply(A, C)
    found = cluster.object("ConfigMap", "kube-system", "component-it")
    found["data"]["objects"] = found["data"]["objects"].replace("ClusterRole c", "ClusterRole ns/c")
    apply(A, C)
    assert cluster.deleted == []
    assert "rbac/v1 ClusterRole c" in cluster.recorded("it")


def test_objects_of_a_kind_that_is_gone_are_forgotten(cluster: Cluster, apply: Apply) -> None:
    apply(A, thing("Dog", "d", "pets.example.com/v1"))
    cluster.unknown.add("Dog")
    assert apply(A)["changes"] == ["change ConfigMap kube-system/component-it"]


def test_webhooks_go_first_and_controllers_after_what_they_clear_away(cluster: Cluster, apply: Apply) -> None:
    apply(
        A,
        thing("IngressClass", "class", "networking.k8s.io/v1"),
        thing("DaemonSet", "controller", "apps/v1"),
        thing("Certificate", "its", "cert-manager.io/v1"),
        thing("ValidatingWebhookConfiguration", "hook", "admissionregistration.k8s.io/v1"),
    )
    apply(A)
    assert cluster.deleted == [
        "ValidatingWebhookConfiguration hook",
        "Certificate its",
        "DaemonSet controller",
        "IngressClass class",
    ]


def test_what_does_not_go_is_named(cluster: Cluster, apply: Apply) -> None:
    apply(A, B)
    cluster.object("Deployment", "ns", "b")["metadata"]["finalizers"] = ["example.com/never"]
    with pytest.raises(
        component.Refused, match=r"not deleted after -1 s: Deployment ns/b, waiting for example\.com/never"
    ):
        apply(A, timeout=-1)
    assert "apps/v1 Deployment ns/b" in cluster.recorded("it")


def test_a_component_without_objects_is_a_mistake(apply: Apply) -> None:
    with pytest.raises(component.Refused, match="it names no objects"):
        apply()


def prune(*names: str, dry_run: bool = False) -> Document:
    return component.prune({"names": list(names), "kubeconfig": "", "timeout": 60}, dry_run)


def test_a_component_that_is_not_chosen_goes_as_a_whole(cluster: Cluster, apply: Apply) -> None:
    apply(A, B, thing("Namespace", "ns"), name="old")
    apply(C, name="new")
    wanted = ["delete Deployment ns/b", "delete ConfigMap ns/a", "delete ConfigMap kube-system/component-old"]
    assert sorted(prune("old", "unheard", dry_run=True)["changes"]) == sorted(wanted)
    result = prune("old", "unheard")
    assert sorted(result["changes"]) == sorted(wanted)
    assert result["warnings"][0].endswith(": Namespace ns")
    assert cluster.names == ["ClusterRole c", "Namespace ns"]
    cluster.asked.clear()
    assert prune("old", "unheard") == {"changed": False, "changes": [], "diff": [], "deleted": []}
    assert cluster.asked == ["list ConfigMap"]


def test_a_dry_run_takes_for_gone_what_would_be_deleted_before(
    cluster: Cluster, apply: Apply, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = (thing("IngressClass", "public", "net/v1") | {"spec": spec} for spec in ("ours", "theirs"))
    apply(theirs, name="old")
    whole = Cluster.server_side_apply

    def immutable(self: Cluster, kind: Kind, body: Document, **how: Any) -> Answer:
        if (
            any(found["metadata"]["name"] == "public" for found in self.objects)
            and body.get("spec") == "ours"
        ):
            raise ApiException(status=422)
        return whole(self, kind, body, **how)

    monkeypatch.setattr(Cluster, "server_side_apply", immutable)
    with pytest.raises(component.Refused):
        apply(ours, name="new", dry_run=True)
    gone = prune("old", dry_run=True)["deleted"]
    assert "create IngressClass public" in apply(ours, name="new", dry_run=True, gone=gone)["changes"]
    with pytest.raises(component.Refused):
        apply(ours, name="new", gone=gone)
    prune("old")
    assert "create IngressClass public" in apply(ours, name="new")["changes"]


def test_what_two_components_name_goes_with_the_last_of_them(cluster: Cluster, apply: Apply) -> None:
    apply(A, name="objects")
    apply(A, B, name="operator")
    assert prune("objects")["changes"] == ["delete ConfigMap kube-system/component-objects"]
    assert cluster.names == ["ConfigMap a", "Deployment b"]
    prune("operator")
    assert cluster.names == []


def test_two_applies_of_roles_never_share_a_name() -> None:
    names = []
    for file in ROOT.glob("roles/*/tasks/*.yml"):
        for task in yaml.safe_load(file.read_text()):
            role = task.get("ansible.builtin.include_role") or task.get("ansible.builtin.import_role") or {}
            if role.get("name") == "component" and not role.get("tasks_from"):
                names.append(task["vars"]["component_name"])
    assert len(names) > 15
    assert len(set(names)) == len(names)


def test_the_record_can_be_read_again() -> None:
    for line in (
        "v1 Namespace a",
        "apps/v1 Deployment a/b",
        "rbac.authorization.k8s.io/v1 ClusterRole system:a",
    ):
        assert str(record.Entry.parse(line)) == line
