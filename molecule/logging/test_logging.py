"""Lines of each kind are found, without secrets; none is lost while a store is away; ECK takes objects."""

import base64
import json
import os
import re
import ssl
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from scenario import Cluster, Eventually, Inventory, MakePod, Object

IMAGE = "docker.io/library/busybox:1.37.0"
SECONDS_TO_FIND = 30
PLAYBOOK = Path(__file__).parents[2] / "playbooks/search-logs.yml"
LINES, SECONDS_AWAY = 20_000, 60
LAB = os.environ.get("LAB_NAME", "molecule")
COLLECTORS = "app.kubernetes.io/component=collector"
# Printed by a pod; WORD marks its lines.
SPEECH = r"""
echo '{"level":"warn","word":"WORD-json","status":503,"password":"hunter2","nested":{"token":"hunter2"}}'
echo 'WORD-header Authorization: Bearer hunter2hunter2 and api_key=hunter2 and postgres://a:hunter2@db/x'
echo '{"word": "WORD-broken", "password": "hunter2'
printf 'WORD-binary \000\001\377\376 end\n'
printf 'WORD-long '; head -c 1048576 /dev/zero | tr '\000' 'x'; echo ' WORD-long-ends'
printf '{"word":"WORD-deep","a":'; i=0; while [ $i -lt 1200 ]; do printf '['; i=$((i+1)); done; echo
echo 'WORD-last'
"""


def password_of(lookup: str) -> str:
    """Return the content of the file that a variable looks up."""
    found = re.search(r"file', '([^']+)'", lookup)
    assert found, lookup
    return Path(found[1]).read_text()


class Store:
    """The store, as one that may only read."""

    def __init__(self, variables: dict[str, Any]) -> None:
        password = password_of(variables["logging_reader_password"])
        context = ssl.create_default_context(cadata=variables["logging_ca"])
        account = (variables["logging_reader_user"], password)
        self.http = httpx.Client(base_url=variables["logging_url"], verify=context, auth=account, timeout=20)

    def search(self, query: str, size: int = 50, **more: Any) -> Object:
        body = {"size": size, "query": {"query_string": {"query": query, "default_field": "message"}}, **more}
        answer = self.http.post("/logs-*/_search", json=body).raise_for_status()
        return dict(answer.json()["hits"])

    def documents(self, query: str) -> list[Object]:
        return [hit["_source"] for hit in self.search(query)["hits"]]


@pytest.fixture(scope="module")
def store(variables: dict[str, Any]) -> Store:
    return Store(variables)


@pytest.fixture(scope="module")
def speaker(cluster: Cluster, pod: MakePod) -> Iterator[str]:
    """Return the name of a pod that has printed all kinds of lines, in a namespace of its own."""
    name = f"speaker-{uuid.uuid4().hex[:8]}"
    cluster.run(f"create namespace {name}")
    speech = SPEECH.replace("WORD", name)
    cluster.apply(name, pod(name, IMAGE, "sh", "-c", f"{speech}\nsleep 3600"))
    cluster.wait(f"--namespace={name} --for=condition=Ready pod/{name}", 60)
    yield name
    cluster.run(f"delete namespace {name} --wait=false")


def test_a_line_of_each_kind_is_found(
    store: Store, speaker: str, eventually: Eventually, variables: dict[str, Any]
) -> None:
    stream = variables["cluster_name"].replace("-", "_")
    for kind, query in {
        "app": f'"{speaker}-last"',
        "events": f"kubernetes.object.name:{speaker} AND event.reason:Started",
        "audit": f"json.objectRef.name:{speaker} AND json.verb:create",
        "journal": f'"{speaker}" AND systemd.unit:containerd.service',
    }.items():
        wanted = f"({query}) AND data_stream.dataset:{kind} AND data_stream.namespace:{stream}"

        def found(wanted: str = wanted, kind: str = kind) -> list[Object]:
            documents = store.documents(wanted)
            assert documents, f"no line of the kind {kind}: {wanted}"
            return documents

        eventually(found, SECONDS_TO_FIND)
    application = store.documents(f'"{speaker}-last"')[0]
    assert application["kubernetes"]["namespace"] == speaker
    assert application["kubernetes"]["pod"]["name"] == speaker
    assert application["kubernetes"]["container"]["name"] == "main"
    assert application["kubernetes"]["node"]["name"]


def test_events_come_once(store: Store, speaker: str) -> None:
    assert len(store.documents(f"kubernetes.object.name:{speaker} AND event.reason:Started")) == 1


def test_strange_lines_are_kept_as_text(store: Store, speaker: str) -> None:
    lines = {
        kind: store.documents(f'"{speaker}-{kind}"') for kind in ("broken", "binary", "long", "deep", "last")
    }
    assert {kind: len(found) for kind, found in lines.items()} == dict.fromkeys(lines, 1)
    assert not any("json" in found[0] for found in lines.values())
    assert re.search(r"-binary \x00\x01.+ end$", lines["binary"][0]["message"])
    assert len(lines["long"][0]["message"]) > 1048576
    assert lines["long"][0]["message"].endswith(f"{speaker}-long-ends")
    assert store.documents(f'json.word:"{speaker}-json" AND json.status:503 AND log.level:warn')


def test_no_secret_leaves_its_node(store: Store, speaker: str) -> None:
    documents = store.documents(f"kubernetes.pod.name:{speaker}")
    assert len(documents) == 7
    assert "hunter2" not in json.dumps(documents)
    assert sum(document["message"].count("***") for document in documents) == 6


def test_accounts_may_do_what_they_need_only(store: Store, variables: dict[str, Any]) -> None:
    assert store.http.put("/logs-app-x/_doc/1", json={}).status_code == 403
    writer = (variables["logging_user"], password_of(variables["logging_password"]))
    assert store.http.post("/logs-*/_search", auth=writer).status_code == 403
    assert store.http.get("/_cluster/health", auth=("collector", "wrong")).status_code == 401


def test_metrics_are_served(cluster: Cluster) -> None:
    pods = cluster.get(f"pods --namespace=logging -l {COLLECTORS}")["items"]
    assert len(pods) == len(cluster.get("nodes")["items"])
    # Policies let a node reach its own pods: that of the API server here.
    name = next(p["metadata"]["name"] for p in pods if "master" in p["spec"]["nodeName"])
    metrics = cluster.run(f"get --raw /api/v1/namespaces/logging/pods/{name}:8888/proxy/metrics")
    assert "otelcol_exporter_queue_size" in metrics


def store_is(word: str, name: str = "logs") -> None:
    subprocess.run(["quote-platform", "lab", word, name, "--name", LAB], check=True)


# --- the archive in the object store ----------------------------------------------------------------------

Archived = Callable[..., list[Object]]


@pytest.fixture(scope="module")
def archived(inventory: Inventory, tmp_path_factory: pytest.TempPathFactory) -> Archived:
    """Return a caller of the playbook that searches the last hour."""

    def search(**wanted: str) -> list[Object]:
        file = tmp_path_factory.mktemp("archive") / "found.jsonl"
        now = datetime.now(UTC)
        given = {"from": f"{now - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}", "file": str(file)} | wanted
        given.setdefault("to", f"{now + timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}")
        variables = json.dumps({f"logging_search_{name}": value for name, value in given.items()})
        _, output = inventory.converge("-e", variables, playbook=PLAYBOOK)
        found = [json.loads(line) for line in file.read_text().splitlines()]
        assert f"{len(found)} lines are in {file}" in " ".join(output.split())
        assert file.stat().st_mode & 0o777 == 0o600
        return found

    return search


def test_a_line_of_each_kind_is_in_the_archive(
    archived: Archived, speaker: str, eventually: Eventually
) -> None:
    wanted = {
        "app": {"namespace": speaker, "pattern": f"{speaker}-last"},
        "events": {"namespace": speaker, "pattern": "tarted"},
        "audit": {"pattern": f'"name":"{speaker}"'},
        "journal": {"pattern": speaker},
    }
    for kind, query in wanted.items():

        def found(kind: str = kind, query: dict[str, str] = query) -> list[Object]:
            lines = archived(kind=kind, **query)
            assert lines, f"no line of the kind {kind}"
            return lines

        line = eventually(found, SECONDS_TO_FIND)[0]
        assert line["data_stream"]["dataset"] == kind
        assert kind != "app" or line["kubernetes"]["pod"]["name"] == speaker


def test_the_archive_has_no_secret_and_each_strange_line(archived: Archived, speaker: str) -> None:
    lines = archived(namespace=speaker, pod="speaker-*", kind="app")
    assert len(lines) == 7
    assert "hunter2" not in json.dumps(lines)
    assert sum(line["message"].count("***") for line in lines) == 6
    assert any(line["message"].endswith(f"{speaker}-long-ends") for line in lines)


def test_nothing_is_lost_while_the_object_store_is_away(
    store: Store, archived: Archived, cluster: Cluster, pod: MakePod, eventually: Eventually
) -> None:
    word, number = uuid.uuid4().hex, 2000
    script = (
        f'i=0; while [ $i -lt {number} ]; do echo "{word} $i"; i=$((i+1)); '
        "[ $((i % 100)) -ne 0 ] || sleep 1; done; sleep 3600"
    )
    store_is("stop", "store-1")
    try:
        cluster.run(f"create namespace archive-{word}")
        cluster.apply(f"archive-{word}", pod("speaker", IMAGE, "sh", "-c", script))
        time.sleep(20)
        cluster.run(f"delete pods --namespace=logging -l {COLLECTORS} --grace-period=0 --force")
        time.sleep(15)
        # The store of logs does not wait for it.
        eventually(lambda: _some(store.documents(f'"{word}"')), SECONDS_TO_FIND)
    finally:
        store_is("start", "store-1")

    def all_there() -> None:
        lines = archived(namespace=f"archive-{word}", kind="app")
        missing = set(range(number)) - {int(line["message"].split()[1]) for line in lines}
        assert not missing, f"{len(missing)} lines are missing, from {min(missing)} to {max(missing)}"

    eventually(all_there, 150)
    cluster.run(f"delete namespace archive-{word} --wait=false")


def _some(found: list[Object]) -> None:
    assert found


def test_only_a_secret_has_the_key_of_the_archive(cluster: Cluster, inventory: Inventory) -> None:
    key = yaml.safe_load((inventory.secrets / "object-store.yml").read_text())["logs"]
    for kind in ("configmaps", "daemonsets", "pods", "networkpolicies"):
        assert key not in json.dumps(cluster.get(f"{kind} --namespace=logging"))
    secret = cluster.get("secret line-archive --namespace=logging")["data"]
    assert key in base64.b64decode(secret["credentials"]).decode()


# --- the store --------------------------------------------------------------------------------------------


def test_nothing_is_lost_while_the_store_is_away(
    store: Store, cluster: Cluster, pod: MakePod, eventually: Eventually
) -> None:
    word = uuid.uuid4().hex
    store_is("stop")
    started = time.monotonic()
    try:
        cluster.run(f"create namespace away-{word}")
        batch = LINES // SECONDS_AWAY
        # Some lines each second, and all that is left at the end.
        script = (
            f'i=0; while [ $i -lt {LINES} ]; do echo \'{{"word":"{word}","n":\'$i\'}}\'; i=$((i+1)); '
            f"[ $((i % {batch})) -ne 0 ] || sleep 0.9; done; sleep 3600"
        )
        cluster.apply(f"away-{word}", pod("speaker", IMAGE, "sh", "-c", script))
        # A collector that is killed meanwhile goes on where it was.
        time.sleep(SECONDS_AWAY / 2)
        cluster.run(f"delete pods --namespace=logging -l {COLLECTORS} --grace-period=0 --force")
        time.sleep(max(0, started + SECONDS_AWAY - time.monotonic()))
    finally:
        store_is("start")

    def all_there() -> None:
        missing = set(range(LINES)) - numbers(store, word)
        assert not missing, f"{len(missing)} lines are missing, from {min(missing)} to {max(missing)}"

    eventually(all_there, 150)
    cluster.run(f"delete namespace away-{word} --wait=false")


def numbers(store: Store, word: str) -> set[int]:
    """Return the numbers of the lines that were found; none while the store is away."""
    found, after = set[int](), None
    while True:
        more: dict[str, Any] = {"search_after": after} if after else {}
        try:
            page = store.search(f"json.word:{word}", 10000, sort=["json.n"], **more)["hits"]
        except httpx.HTTPError:
            return found
        if not page:
            return found
        found |= {int(hit["_source"]["json"]["n"]) for hit in page}
        after = page[-1]["sort"]


# --- the store that ECK runs ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def eck(inventory: Inventory, cluster: Cluster) -> Iterator[str]:
    """Ask ECK for a store; return the namespace."""
    inventory.converge(playbook="eck.yml")
    inventory.unchanged(playbook="eck.yml")
    cluster.run("rollout status statefulset/elastic-operator --namespace=molecule-eck --timeout=120s")
    yield "molecule-eck"
    cluster.run("delete namespace molecule-eck --wait=false")
    cluster.run("delete validatingwebhookconfiguration elastic-webhook.k8s.elastic.co")


def test_the_operator_takes_the_objects(cluster: Cluster, eck: str, eventually: Eventually) -> None:
    def made() -> Object:
        found = cluster.get(f"statefulsets --namespace={eck} -l common.k8s.elastic.co/type=elasticsearch")[
            "items"
        ]
        assert [item["metadata"]["name"] for item in found] == ["logs-es-default"]
        return dict(found[0]["spec"]["template"]["spec"])

    spec = eventually(made, 90)
    assert spec["containers"][0]["image"].startswith("docker.elastic.co/elasticsearch/elasticsearch:")
    assert "trust" in [container["name"] for container in spec["initContainers"]]
    realm = cluster.get(f"secret logs-es-xpack-file-realm --namespace={eck}")["data"]
    assert {"users", "users_roles", "roles.yml"} <= set(realm)
    collected = yaml.safe_load(base64.b64decode(realm["roles.yml"]))
    assert collected["logs_writer"]["indices"][0]["privileges"] == ["auto_configure", "create_doc"]
    assert cluster.get(f"secret logs-es-secure-settings --namespace={eck}")["data"]

    def asked_for() -> None:
        kibana = cluster.get(f"deployment logs-kb --namespace={eck}")["spec"]["template"]["spec"]
        assert kibana["containers"][0]["image"].startswith("docker.elastic.co/kibana/kibana:")

    eventually(asked_for, 60)


def test_its_webhook_refuses_nonsense(cluster: Cluster, eck: str, eventually: Eventually) -> None:
    found = cluster.get(f"elasticsearch logs --namespace={eck}")
    for key in ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "annotations"):
        found["metadata"].pop(key, None)
    found.pop("status")
    found["metadata"]["name"] = "wrong"
    cluster.apply(eck, found, dry_run=True)
    found["spec"]["version"] = "nine"

    def refused() -> None:
        with pytest.raises(AssertionError, match="Cannot parse Elasticsearch version"):
            cluster.apply(eck, found, dry_run=True)

    eventually(refused, 60)


def test_another_collector_takes_the_place_of_the_one_before(inventory: Inventory, cluster: Cluster) -> None:
    """There and back: one DaemonSet with nothing of the one before, no Deployment that only one needs."""
    space = "--namespace=molecule-switch"

    def found(kind: str) -> list[Object]:
        return list(cluster.get(f"{kind} {space}")["items"])

    def collecting() -> tuple[str, set[str], list[str]]:
        (daemon,) = found("daemonsets")
        (container,) = daemon["spec"]["template"]["spec"]["containers"]
        files = set(cluster.get(f"configmap collector {space}")["data"])
        return container["image"], files, container.get("args", [])

    # The component's record knows what other tests have made; a store's data keeps it from being deleted.
    cluster.run("delete configmap component-logging --namespace=kube-system --ignore-not-found")
    try:
        inventory.converge("-e", "logging_collector=opentelemetry", playbook="switch.yml")
        before = collecting()
        assert before[1] == {"collector.yaml"}
        assert not found("deployments")
        inventory.converge("-e", "logging_collector=fluentd", playbook="switch.yml")
        image, files, arguments = collecting()
        assert "fluentd" in image
        assert files == {"fluent.conf", "events.yaml"}
        assert not arguments
        assert [item["metadata"]["name"] for item in found("deployments")] == ["events"]
        inventory.unchanged("-e", "logging_collector=fluentd", playbook="switch.yml")
        inventory.converge("-e", "logging_collector=opentelemetry", playbook="switch.yml")
        assert collecting() == before
        assert not found("deployments")
    finally:
        cluster.run("delete namespace molecule-switch --wait=false")
