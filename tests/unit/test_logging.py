"""What is masked, how Fluentd is configured, how the store is set up and searched."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import render
from test_manifests import mistakes

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles" / "logging"
VARIABLES: dict[str, Any] = yaml.safe_load((ROLE / "vars/main.yml").read_text())


def masked(line: str) -> str:
    """Do what the collectors do."""
    for mask in VARIABLES["__logging_masks"]:
        names = VARIABLES["__logging_secret_names"]
        pattern = mask["pattern"].replace("{{ __logging_secret_names }}", names)
        line = re.sub(pattern, rf"\1{mask['to']}".replace('\\"', '\\\\"'), line)
    return line


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"user":"a","password":"hunter2","n":1}', '{"user":"a","password":"***","n":1}'),
        ('{"db_passwd" : "hun\\"ter2", "n":1}', '{"db_passwd" : "***", "n":1}'),
        ('{"pin_token":1234567,"n":1}', '{"pin_token":"***","n":1}'),
        ('{"apiKey":"hunter2"', '{"apiKey":"***"'),
        ('{"password":"hunter2', '{"password":"***"'),
        ('{"m":"{\\"password\\":\\"hunter2\\",\\"n\\":1}"}', '{"m":"{\\"password\\":\\"***\\",\\"n\\":1}"}'),
        ('{"headers":{"authorization":"Bearer hunter2hunter2"}}', '{"headers":{"authorization":"***"}}'),
        ("Authorization: Basic aHVudGVyMg==", "Authorization: Basic ***"),
        ("curl -H 'Authorization: Bearer hunter2hunter2' x", "curl -H 'Authorization: Bearer ***' x"),
        ("sent Bearer hunter2-hunter2 on", "sent Bearer *** on"),
        ("login password=hunter2, retry", "login password=***, retry"),
        ("login PGPASSWORD='hunter 2' now", "login PGPASSWORD=*** now"),
        ("--client-secret=hunter2 --port=1", "--client-secret=*** --port=1"),
        ("GET /x?token=hunter2&a=1", "GET /x?token=***&a=1"),
        ("postgres://app:hunter2@db:5432/quotes", "postgres://app:***@db:5432/quotes"),
        # pragma: allowlist nextline secret
        ("key -----BEGIN RSA PRIVATE KEY-----\\nhunter2\\n", "key -----BEGIN RSA PRIVATE KEY-----***"),
        ("got eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.hunter2 there", "got *** there"),
        ("vault hvs.CAESIhunter2hunter2hunter2", "vault ***"),  # pragma: allowlist secret
    ],
)
def test_secrets_are_masked(line: str, expected: str) -> None:
    assert masked(line) == expected
    assert "hunter2" not in masked(line)


@pytest.mark.parametrize(
    "line",
    [
        '{"level":"info","msg":"request","path":"/api/quotes"}',
        '{"objectRef":{"resource":"secrets","name":"postgres-app"},"verb":"get"}',
        '{"annotations":{"authorization.k8s.io/decision":"allow"}}',
        'MountVolume.SetUp failed for volume "tls" : secret "quotes-tls" not found',
        "https://quotes.example.com:443/api is up",
    ],
)
def test_the_rest_stays_as_it_is(line: str) -> None:
    assert masked(line) == line


def test_masked_json_stays_json() -> None:
    line = json.dumps({"password": 'a"b\\', "nested": json.dumps({"token": "x", "n": 1}), "n": [1]})
    assert json.loads(json.loads(masked(line))["nested"]) == {"token": "***", "n": 1}


def test_saved_objects_name_what_is_there() -> None:
    objects = [json.loads(line) for line in (ROLE / "files/kibana.ndjson").read_text().splitlines()]
    known = {(one["type"], one["id"]) for one in objects}
    assert len(known) == len(objects)
    assert {"index-pattern", "search"} == {kind for kind, _ in known}
    for one in objects:
        for reference in one["references"]:
            assert (reference["type"], reference["id"]) in known
        if one["type"] == "search":
            source = json.loads(one["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
            assert source["indexRefName"] == one["references"][0]["name"]


# --- Fluentd --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fluentd(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    own = {"logging_collector": "fluentd"}
    (text,) = render(tmp_path_factory.mktemp("fluentd"), ("logging/templates/logging.yaml.j2", own))
    return [one for one in yaml.safe_load_all(text) if one]


def test_objects_with_fluentd_fit(fluentd: list[dict[str, Any]]) -> None:
    assert not [mistake for document in fluentd for mistake in mistakes(document)]
    assert {"DaemonSet", "Deployment"} <= {document["kind"] for document in fluentd}


def test_its_configuration_is_whole(fluentd: list[dict[str, Any]]) -> None:
    data = next(
        d["data"] for d in fluentd if d["kind"] == "ConfigMap" and d["metadata"]["name"] == "collector"
    )
    opened: list[str] = []
    labels, sent = set(), set()
    for line in data["fluent.conf"].splitlines():
        word = line.strip()
        if closing := re.match(r"</(\w+)>$", word):
            assert opened.pop() == closing[1], line
        elif opening := re.match(r"<(\w+)(?: (.*))?>$", word):
            opened.append(opening[1])
            labels |= {opening[2]} if opening[1] == "label" else set()
        elif target := re.match(r"(?:@label|label|timeout_label) (@\w+)$", word):
            sent.add(target[1])
        elif expression := re.match(r"expression /(.*)/i?$", word):
            re.compile(expression[1])
            assert not re.search(r"(?<!\\)/", expression[1]), "a slash ends the expression"
    assert not opened
    assert sent == labels
    wanted = (
        "overflow_action block",
        "retry_forever true",
        "flush_at_shutdown false",
        "write_operation create",
    )
    for setting in wanted:
        assert setting in data["fluent.conf"]
    # The events come by the other collector, which has nothing of the node.
    events = yaml.safe_load(data["events.yaml"].replace("${", "{"))
    sources = events["service"]["pipelines"]
    assert sources.pop("logs") == {"receivers": ["otlp"], "exporters": ["elasticsearch"]}
    assert list(sources) == ["logs/events"]
    # Whatever is on its way to the store lies in a queue that gives nothing up.
    assert {name for source in sources.values() for name in source["exporters"]} == {"otlp_grpc"}
    assert events["exporters"]["otlp_grpc"]["retry_on_failure"]["max_elapsed_time"] == 0
    assert events["exporters"]["elasticsearch"]["sending_queue"] == {"enabled": False}


# --- the script -----------------------------------------------------------------------------------------


@pytest.fixture
def store() -> Iterator[tuple[str, list[tuple[str, str, Any]]]]:
    """Serve as a store that is starting at first; yield its URL and what it was asked."""
    asked: list[tuple[str, str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append((self.command, self.path, json.loads(body or b"null")))
            status = 503 if len(asked) == 1 else 200
            hits = [{"_source": {"message": "found"}}]
            if "refused" in self.path:
                status = 403
            text = json.dumps({"hits": {"hits": hits if "_search" in self.path else []}}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_PUT = do_POST = answer

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def script(url: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    text = (ROLE / "files/logs.py").read_text()
    text = text.replace('Path("/etc/logging")', f"Path({str(folder)!r})").replace("EVERY = 3", "EVERY = 0.1")
    environment = {"STORE_URL": url, "STORE_USER": "a", "STORE_PASSWORD": "b", "PATIENCE": "10"}
    command = [sys.executable, "-c", text, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)


def test_the_store_is_set_up_in_order(store: tuple[str, list[tuple[str, str, Any]]], tmp_path: Path) -> None:
    url, asked = store
    steps = [{"path": "_ilm/policy/a", "body": {"one": 1}}, {"path": "_index_template/a", "body": {"two": 2}}]
    (tmp_path / "setup.json").write_text(json.dumps(steps))
    done = script(url, tmp_path, "setup")
    assert done.returncode == 0, done.stderr
    # The first was said again, since the store was starting.
    assert asked[1:] == [("PUT", f"/{step['path']}", step["body"]) for step in steps]
    assert asked[0] == asked[1]


def test_a_refusal_ends_it(store: tuple[str, list[tuple[str, str, Any]]], tmp_path: Path) -> None:
    url, asked = store
    (tmp_path / "setup.json").write_text(
        json.dumps([{"path": "ok", "body": 1}, {"path": "refused", "body": 1}])
    )
    done = script(url, tmp_path, "setup")
    assert done.returncode != 0
    assert "answers 403" in done.stderr
    assert len(asked) == 3


def test_a_search_prints_documents(store: tuple[str, list[tuple[str, str, Any]]], tmp_path: Path) -> None:
    url, asked = store
    done = script(url, tmp_path, "search", "message:found", "5")
    assert done.stdout == '{"message": "found"}\n', done.stderr
    assert asked[-1][2]["query"]["query_string"]["query"] == "message:found"
    assert asked[-1][2]["size"] == 5
