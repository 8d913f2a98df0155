"""Snapshots of Vault: who logs in how, what is stored, what counts as whole."""

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from s3_server import Bucket, environment, serving
from typer.testing import CliRunner, Result

from quote_platform.backup import cli, jobs, store
from quote_platform.backup.store import BackupError, Store
from quote_platform.backup.vault import Vault, whole


def snapshot(state: bytes = b"state" * 5000, listed: bytes = b"") -> bytes:
    """Return an archive as raft makes it; `listed` is what its list of checksums is made from instead."""
    files = {"meta.json": b"{}", "state.bin": state}
    sums = files | ({"state.bin": listed} if listed else {})
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sums.items()]
    files["SHA256SUMS"] = "".join(lines).encode()
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


class Answers(BaseHTTPRequestHandler):
    """Vault's answers."""

    status = 200
    content = b""
    asked: list[str] = []  # noqa: RUF012 (of the test's own)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(f"{self.path} {body['role']} {body['jwt']}")
        self._answer(json.dumps({"auth": {"client_token": "hvs.short"}}).encode())

    def do_GET(self) -> None:
        self.asked.append(f"{self.path} {self.headers['X-Vault-Token']}")
        self._answer(self.content)

    def _answer(self, content: bytes) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(content) + (len(content) if self.status == 206 else 0)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with serving() as found:
        yield found


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> Bucket:
    for name, value in environment(endpoint).items():
        monkeypatch.setenv(name, value)
    made = Bucket(endpoint)
    monkeypatch.setattr(cli, "opened", lambda: Store(made.client, made.name, "https://s3"))
    monkeypatch.setattr(jobs, "now", lambda: made.now)
    monkeypatch.setattr(store, "CHUNK", 700)
    return made


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Answers]]:
    Answers.status, Answers.content, Answers.asked = 200, snapshot(), []
    server = HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(Vault, "from_environment", lambda: Vault(f"http://127.0.0.1:{server.server_port}"))
    yield Answers
    server.shutdown()
    server.server_close()


@pytest.fixture
def call(tmp_path: Path) -> Callable[[], Result]:
    (tmp_path / "token").write_text("jwt-of-the-pod\n")
    return lambda: CliRunner().invoke(cli.app, ["vault", "quote/vault", "--token", str(tmp_path / "token")])


def test_a_snapshot_is_stored_by_a_service_account(
    bucket: Bucket, served: type[Answers], call: Callable[[], Result]
) -> None:
    result = call()
    assert result.exit_code == 0, result.output
    assert served.asked == [
        "/v1/auth/kubernetes/login snapshot jwt-of-the-pod",
        "/v1/sys/storage/raft/snapshot hvs.short",
    ]
    name = "quote/vault/2026-06-01T000000Z.snap"
    assert bucket.objects[name] == served.content
    assert f"{name}.sha256" in bucket.objects
    assert "hvs." not in result.output + str(bucket.objects)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (503, "it is sealed: run ansible-playbook -i INVENTORY playbooks/vault.yml"),
        (403, "check its role and policy"),
    ],
)
def test_a_refusal_says_what_to_do(
    bucket: Bucket, served: type[Answers], call: Callable[[], Result], status: int, told: str
) -> None:
    served.status = status
    result = call()
    assert result.exit_code == 1
    assert told in result.stderr
    assert bucket.objects == {}


def test_an_answer_that_is_cut_off_leaves_nothing(
    bucket: Bucket, served: type[Answers], call: Callable[[], Result]
) -> None:
    served.status = 206  # more is announced than comes
    assert call().exit_code == 1
    assert bucket.objects == {}


def test_an_answer_that_is_no_snapshot_leaves_nothing(
    bucket: Bucket, served: type[Answers], call: Callable[[], Result]
) -> None:
    served.content = b"<html>"
    assert "is no whole snapshot of Vault" in call().stderr
    assert bucket.objects == {}


def test_a_whole_snapshot_passes_to_its_last_byte() -> None:
    seen = []

    def blocks() -> Iterator[bytes]:
        content = snapshot() + b"\0" * 5000  # what follows belongs to the checksum of all
        for at in range(0, len(content), 100):
            seen.append(at)
            yield content[at : at + 100]

    whole(blocks(), "it")
    assert seen[-1] + 100 >= len(snapshot()) + 5000


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", snapshot()[:-400], snapshot(b"changed", b"as it was")],
    ids=["empty", "text", "cut off", "changed"],
)
def test_half_a_snapshot_is_none(content: bytes) -> None:
    with pytest.raises(BackupError, match="is no whole snapshot of Vault"):
        whole(iter([content]), "it")


@pytest.mark.parametrize("address", ["", "http://vault:8200"])
def test_vault_is_asked_over_tls_only(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_ADDR", address)
    with pytest.raises(BackupError, match="set it to the https:// address"):
        Vault.from_environment()
