"""Lines reach the archive by the real collector, and are found: by range, pattern, namespace, pod, kind."""

import base64
import contextlib
import gzip
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import yaml
from botocore.config import Config
from rendering import render
from s3_server import serving

from quote_platform import certificates, log_archive
from quote_platform.mirror import catalogue as cat
from quote_platform.mirror.source import Source
from quote_platform.object_store import Refused

ROOT = Path(__file__).resolve().parents[2]
BUCKET, PREFIX, KEY, SECRET = "logs-of-it", "it", "AKIDLOGS", "a-key-that-nobody-shows"
LINES = 3000
# One line a second from here on: they lie in two hours.
FIRST = 1_796_034_600  # 2026-11-30T10:30:00Z
UID = "0d1a7f4e-3f5e-4a0e-9d0b-7f7c5a3e1b2c"


def binary(recipe: str, name: str) -> Path:
    """Return a program that the mirror has compiled, or skip."""
    source = Source(cat.load(), lambda _: None)
    file = source.artifacts / "binaries" / f"{recipe}-{source.binaries_key(recipe)}" / name
    if not file.is_file():
        pytest.skip(
            f"the mirror has compiled no {name}: quote-platform mirror fill --part logs --part backups"
        )
    return file


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def until(check: Any, seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, what
        time.sleep(0.3)
    return found


class Store:
    """The lab's object store, with an authority of its own; it can be off for a while."""

    def __init__(self, folder: Path) -> None:
        self.program, self.folder, self.port = binary("versitygw", "versitygw"), folder, free_port()
        authority = certificates.make(folder / "authority", "it", [], 1, issuer=None, is_ca=True)
        certificates.make(folder / "tls", "store", ["127.0.0.1"], 1, issuer=authority, is_ca=False)
        (folder / "objects").mkdir()
        self.ca, self.url = folder / "authority.crt", f"https://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [self.program, "--port", f"127.0.0.1:{self.port}", "--region", "us-east-1"]
        command += [
            "--cert",
            self.folder / "tls.crt",
            "--key",
            self.folder / "tls.key",
            "--health",
            "/healthz",
        ]
        keys = {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}
        with (self.folder / "store.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*map(str, command), "--quiet", "posix", str(self.folder / "objects")],
                env=os.environ | keys,
                stdout=log,
                stderr=log,
            )

        def answers() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"{self.url}/healthz", verify=str(self.ca)).is_success
            return False

        until(answers, 20, (self.folder / "store.log").read_text())

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def client(self) -> Any:
        config = Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required")
        keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=self.url, verify=str(self.ca), config=config, **keys)


class Collector:
    """The collector of a node with what the role renders, but for what asks a cluster or reads journals."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.program, self.folder = binary("opentelemetry-collector", "otelcol"), folder
        given = {
            "logging_line_archive": "s3",
            "logging_line_archive_seconds": 1,
            "logging_archive_endpoint": store.url,
            "logging_archive_ca": store.ca.read_text(),
            "logging_archive_bucket": BUCKET,
            "logging_archive_access_key": KEY,
            "logging_archive_secret_key": SECRET,
            "logging_archive_prefix": PREFIX,
        }
        (text,) = render(folder, ("logging/templates/logging.yaml.j2", given))
        assert SECRET not in text
        documents = [one for one in yaml.safe_load_all(text) if one]
        found = {(one["kind"], one["metadata"]["name"]): one for one in documents}
        pod = found["DaemonSet", "collector"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        places = {"/var/log/pods": folder / "pods", "/var/lib/collector": folder / "state"}
        for mount in container["volumeMounts"]:
            if mount["name"] in {"archive", "account", "ca"}:
                own = places[mount["mountPath"]] = folder / mount["name"]
                own.mkdir()
                (own / "ca.crt").write_text(store.ca.read_text())  # ECK's own would lie there
                (volume,) = (one["secret"] for one in pod["volumes"] if one["name"] == mount["name"])
                for item in volume["items"]:
                    if secret := found.get(("Secret", volume["secretName"])):
                        (own / item["path"]).write_bytes(base64.b64decode(secret["data"][item["key"]]))
        for one in ("pods", "state"):
            (folder / one).mkdir()
        config = found["ConfigMap", "collector"]["data"]["collector.yaml"]
        self.health = free_port()
        ports = {"4316": free_port(), "4317": free_port(), "13133": self.health}
        for before, port in ports.items():
            config = re.sub(rf"(127\.0\.0\.1|0\.0\.0\.0):{before}\b", f"127.0.0.1:{port}", config)
        config = config.replace("port: 8888", f"port: {free_port()}")
        self.environment = {"STORE_USER": "nobody", "NODE_NAME": "node-1", "PATH": os.environ["PATH"]}
        self.environment |= {one["name"]: one["value"] for one in container["env"] if "value" in one}
        for before, place in places.items():
            config = config.replace(before, str(place))
            for name, value in self.environment.items():
                self.environment[name] = value.replace(before, str(place))
        known = yaml.safe_load(config)
        pipelines = known["service"]["pipelines"]
        known["service"]["pipelines"] = {
            name: pipelines[name] for name in ("logs/pods", "logs", "logs/archive")
        }
        pipelines["logs/pods"]["processors"].remove("k8s_attributes")
        known["processors"].pop("k8s_attributes")
        known["extensions"].pop("k8s_leader_elector")
        known["service"]["extensions"].remove("k8s_leader_elector")
        for name in ("file_log/audit", "journald", "k8s_events"):
            known["receivers"].pop(name)
        (folder / "collector.yaml").write_text(yaml.safe_dump(known))
        self.arguments = [word for word in container["args"] if not word.startswith("--config")]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [self.program, f"--config={self.folder / 'collector.yaml'}", *self.arguments]
        with (self.folder / "collector.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

        def well() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"http://127.0.0.1:{self.health}/").is_success
            return False

        until(well, 30, (self.folder / "collector.log").read_text()[-3000:])

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def print(self, numbers: range) -> None:
        """Have a pod print lines, as containerd writes them."""
        file = self.folder / "pods" / f"quote-lab_quote-app-1_{UID}" / "main" / "0.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as log:
            for number in numbers:
                moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(FIRST + number))
                line = json.dumps({"n": number, "password": "hunter2", "odd": bool(number % 2)})
                log.write(f"{moment}.000000001Z stdout F {line}\n")


def search(store: Store, path: Path, **wanted: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    given = {name: option.get("default", "") for name, option in log_archive.SPEC.items()}
    given |= {"endpoint": store.url, "region": "us-east-1", "ca": store.ca.read_text(), "bucket": BUCKET}
    given |= {"access_key": KEY, "secret_key": SECRET, "prefix": PREFIX, "path": str(path)}
    given |= {"since": "2026-11-30T10:00:00Z", "until": "2026-11-30T12:00:00Z"} | wanted
    done = log_archive.run(given, False, lambda _: None)
    return done, [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Have a pod print lines while the object store is away and the collector is killed; return the store."""
    store = Store(tmp_path_factory.mktemp("store"))
    collector = Collector(tmp_path_factory.mktemp("collector"), store)
    try:
        store.start()
        store.client().create_bucket(Bucket=BUCKET)
        collector.start()
        third = LINES // 3
        collector.print(range(third))

        def begun() -> bool:
            return bool(store.client().list_objects_v2(Bucket=BUCKET).get("Contents"))

        until(begun, 30, "nothing was written")
        store.stop()
        collector.print(range(third, 2 * third))
        time.sleep(3)  # they have been read, and wait
        collector.kill()
        collector.print(range(2 * third, LINES))
        collector.start()
        time.sleep(2)
        store.start()
        yield store
    finally:
        collector.kill()
        store.stop()


@pytest.fixture(scope="module")
def found(filled: Store, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    file = tmp_path_factory.mktemp("found") / "all.jsonl"

    def whole() -> list[dict[str, Any]]:
        lines = search(filled, file)[1]
        return lines if {number(line) for line in lines} == set(range(LINES)) else []

    return list(until(whole, 60, "lines are missing"))


def number(line: dict[str, Any]) -> int:
    return int(json.loads(line["message"])["n"])


def test_no_line_is_lost_and_each_is_found_once(found: list[dict[str, Any]]) -> None:
    assert [number(line) for line in found] == list(range(LINES))


def test_a_line_says_whose_it_is_and_keeps_its_secrets_masked(found: list[dict[str, Any]]) -> None:
    assert found[0] == {
        "@timestamp": "2026-11-30T10:30:00.000000001Z",
        "message": '{"n": 0, "password": "***", "odd": false}',
        "data_stream": {"dataset": "app"},
        "kubernetes": {
            "container": {"name": "main"},
            "namespace": "quote-lab",
            "pod": {"name": "quote-app-1"},
        },
        "log": {"iostream": "stdout"},
    }
    assert "hunter2" not in json.dumps(found)


def test_objects_are_compressed_and_lie_by_date_and_hour(filled: Store, found: list[dict[str, Any]]) -> None:
    client = filled.client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    keys = [one["Key"] for page in pages for one in page["Contents"]]
    form = re.compile(rf"lines/{PREFIX}/2026/11/30/(10|11)/logs_[0-9a-f-]{{36}}\.json\.gz")
    assert {match[1] for key in keys if (match := form.fullmatch(key))} == {"10", "11"}
    assert all(form.fullmatch(key) for key in keys)
    for key in keys:
        hour = form.fullmatch(key)
        content = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        assert b"hunter2" not in gzip.decompress(content)
        times = {time.strftime("%H", time.gmtime(line.time // 10**9)) for line in log_archive.lines(content)}
        assert hour
        assert times == {hour[1]}


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({"since": "2026-11-30T10:59:58Z", "until": "2026-11-30T11:00:02Z"}, range(1798, 1802)),
        ({"pattern": r'"n": 17\d\d,.*"odd": true'}, range(1701, 1800, 2)),
        ({"namespace": "quote-*", "pod": "quote-app-?", "kind": "app"}, range(LINES)),
        ({"namespace": "kube-system"}, range(0)),
        ({"pod": "quote"}, range(0)),
        ({"kind": "audit"}, range(0)),
        ({"since": "2026-11-30T08:00Z", "until": "2026-11-30T10:30Z"}, range(0)),
    ],
)
def test_a_search_finds_what_was_asked_for(
    filled: Store, found: list[dict[str, Any]], tmp_path: Path, wanted: dict[str, str], numbers: range
) -> None:
    done, lines = search(filled, tmp_path / "found.jsonl", **wanted)
    assert [number(line) for line in lines] == list(numbers)
    assert done["found"] == len(numbers)


def test_the_playbook_writes_a_file_for_its_owner_and_says_how_many(
    filled: Store, found: list[dict[str, Any]], tmp_path: Path
) -> None:
    file = tmp_path / "found.jsonl"
    variables = {
        "cluster_secrets_dir": str(tmp_path / "secrets"),
        "logging_archive_endpoint": filled.url,
        "logging_archive_ca": filled.ca.read_text(),
        "logging_archive_region": "us-east-1",
        "logging_archive_bucket": BUCKET,
        "logging_archive_access_key": KEY,
        "logging_archive_secret_key": SECRET,
        "logging_archive_prefix": PREFIX,
        "logging_search_from": "2026-11-30T10:59:00Z",
        "logging_search_to": "2026-11-30T11:01:00Z",
        "logging_search_file": str(file),
    }
    (tmp_path / "given.json").write_text(json.dumps(variables))

    def play(*options: str) -> subprocess.CompletedProcess[str]:
        command = ["ansible-playbook", "-vvv", "-i", "inventories/production", "playbooks/search-logs.yml"]
        command += ["-e", f"@{tmp_path / 'given.json'}", *options]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    def words(done: subprocess.CompletedProcess[str]) -> str:
        assert SECRET not in done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).split())

    dry = play("--check")
    assert dry.returncode == 0, dry.stdout[-3000:]
    assert "120 lines would be in" in words(dry)
    assert not file.exists()
    first = play()
    assert first.returncode == 0, first.stdout[-3000:]
    assert f"120 lines are in {file}, of 3000 in " in words(first)
    assert "2026-11-30 11:00: hour 2 of 2, " in words(first)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [number(json.loads(line)) for line in file.read_text().splitlines()] == list(range(1740, 1860))
    misspelt = play("-e", "logging_search_namspace=a")
    assert "logging_search_namspace: unknown; allowed are logging_search_from, logging_search_to," in words(
        misspelt
    )


# --- without a collector ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with serving() as found:
        yield found


GIVEN = {
    "region": "us-east-1",
    "ca": "",
    "bucket": BUCKET,
    "access_key": KEY,
    "secret_key": SECRET,
    "prefix": PREFIX,
    "since": "2026-11-30T10:00:00Z",
    "until": "2026-11-30T11:00:00Z",
    "namespace": "",
    "pod": "",
    "kind": "",
    "pattern": "",
}


def record(moment: int, text: str) -> dict[str, Any]:
    return {"timeUnixNano": str(moment * 10**9), "body": {"stringValue": text}}


def content(*records: dict[str, Any]) -> bytes:
    return gzip.compress(json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).encode())


def test_what_was_sent_twice_is_there_once_and_what_is_damaged_is_named(
    endpoint: str, tmp_path: Path
) -> None:
    keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=endpoint, **keys)
    client.create_bucket(Bucket=BUCKET)
    folder = f"lines/{PREFIX}/2026/11/30/10"
    late, early, other = record(FIRST + 2, "late"), record(FIRST, "early"), record(FIRST, "other")
    client.put_object(Bucket=BUCKET, Key=f"{folder}/logs_1.json.gz", Body=content(late, early))
    client.put_object(Bucket=BUCKET, Key=f"{folder}/logs_2.json.gz", Body=content(early, other))
    given = GIVEN | {"endpoint": endpoint, "path": str(tmp_path / "found.jsonl")}
    said: list[str] = []
    done = log_archive.run(given, False, said.append)
    lines = [json.loads(line)["message"] for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert lines == ["early", "other", "late"]
    assert (done["found"], done["read"], done["repeated"], done["objects"]) == (3, 4, 1, 2)
    assert said == ["2026-11-30 10:00: hour 1 of 1, 2 objects, 4 lines, 3 found"]
    for name, body in {
        "3": content(late)[:-9],
        "4": b"nothing of ours",
        "5": b'{"resourceLogs": [3]}',
    }.items():
        client.put_object(Bucket=BUCKET, Key=f"{folder}/logs_{name}.json.gz", Body=body)
    with pytest.raises(Refused, match=r"3 of 5 objects cannot be read: .*/logs_3.json.gz \(.*3 lines"):
        log_archive.run(given, False, said.append)
    assert [path.name for path in tmp_path.iterdir()] == ["found.jsonl"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"since": ""}, "logging_search_from: '' is not a time in UTC; allowed is for example"),
        ({"since": "2026-11-30T10:00:00+01:00"}, "logging_search_from: .* is not a time in UTC"),
        ({"until": "2026-02-30T10:00:00Z"}, "logging_search_to: .* is not a time in UTC"),
        (
            {"until": "2026-11-30T10:00:00Z"},
            "logging_search_to: 2026-11-30T10:00:00Z is not after logging_search_from",
        ),
        ({"pattern": "a["}, r"logging_search_pattern: 'a\[' is no regular expression \(unterminated"),
        ({"path": "/dev/null/found.jsonl"}, "logging_search_file: /dev/null is no folder"),
    ],
)
def test_wrong_input_is_refused_before_anybody_is_asked(
    tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    given = GIVEN | {"endpoint": "http://127.0.0.1:1", "path": str(tmp_path / "found.jsonl")} | changes
    with pytest.raises(Refused, match=message):
        log_archive.run(given, False, lambda _: None)
    assert not list(tmp_path.iterdir())


def test_a_store_that_does_not_answer_is_named(tmp_path: Path) -> None:
    given = GIVEN | {"endpoint": "http://127.0.0.1:1", "path": str(tmp_path / "found.jsonl")}
    with pytest.raises(Refused, match=r":1 does not answer: .*object_store_endpoint"):
        log_archive.run(given, False, lambda _: None)
    assert not list(tmp_path.iterdir())
