"""A secret is refused before it is committed, whatever its form, and named by its place."""

import base64
import subprocess
from pathlib import Path

import pytest

from auditors import committed_secrets

ROOT = committed_secrets.ROOT
RANDOM = "9fQ2xLw7RzT4vBk8NpYc3HdJ6sMgA1eU"


def pem(kind: str) -> str:
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{RANDOM * 2}\n"


def encoded(kind: str) -> str:
    return base64.b64encode(pem(kind).encode()).decode()


# Put together here, since this file is looked at as well.
SECRETS = {
    "key": pem("RSA "),
    **{
        f"kubeconfig, {kind or 'PKCS #8'}": f"client-key-data: {encoded(kind)}\n"
        for kind in ("", "RSA ", "EC ")
    },
    "Secret with an SSH key": f"data: {{id: {encoded('OPENSSH ')}}}\n",
    "Vault": f"root: {'hvs.'}{RANDOM}\n",
    "age": f"# {'AGE-SECRET'}-KEY-1{RANDOM.upper() * 2}\n",
    "AWS": f"aws_access_key_id = {'AKIA'}QWERTYUIOP123456\n",
    "URL": f"url: postgresql://quotes:{RANDOM}@db/quotes\n",
    "GitHub": f"token: {'ghp_'}{RANDOM}abcd\n",
    "Slack": f"url: https://hooks.slack.com/{'services'}/T0AB1CD2E/B0AB1CD2E/{RANDOM[:24]}\n",
}
HARMLESS = (
    "postgresql://user:password@host/db\n"
    f"image: registry.example.com/app@sha256:{'9f2b5c1d' * 8}\n"
    f"ca: {base64.b64encode(b'-----BEGIN CERTIFICATE-----' + RANDOM.encode()).decode()}\n"
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for command in (
        ("init", "--quiet"),
        ("config", "user.name", "somebody"),
        ("config", "user.email", "somebody@example.com"),
        ("config", "core.hooksPath", str(ROOT / ".githooks")),
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def commit(repository: Path, folder: str = ".") -> subprocess.CompletedProcess[str]:
    command = ["git", "commit", "--quiet", "--message", "change"]
    return subprocess.run(command, cwd=repository / folder, capture_output=True, text=True, check=False)


def stage(repository: Path, **files: str) -> None:
    for name, text in files.items():
        (repository / f"{name}.yml").write_text(text)
    subprocess.run(["git", "add", "--all"], cwd=repository, check=True)


@pytest.mark.parametrize("text", SECRETS.values(), ids=SECRETS)
def test_its_place_is_named_and_its_value_is_not(text: str) -> None:
    (line,) = committed_secrets.found({"a/b.yml": f"# one\n{text}".encode()})
    assert line.startswith("a/b.yml:2: ")
    assert RANDOM not in line


def test_what_is_made_up_or_no_secret_passes() -> None:
    assert (
        committed_secrets.found({"a.yml": HARMLESS.encode(), "picture.png": b"\0" + pem("").encode()}) == []
    )
    (line,) = committed_secrets.found({"a.yml": f"{SECRETS['AWS'].strip()} # pragma: allowlist\n".encode()})
    assert line.startswith("a.yml:1: ")
    allowed = f"{SECRETS['AWS'].strip()} # pragma: allowlist secret\n"
    assert committed_secrets.found({"a.yml": allowed.encode()}) == []


def test_a_commit_with_a_secret_is_refused(repository: Path) -> None:
    stage(repository, harmless=HARMLESS)
    assert commit(repository).returncode == 0
    (repository / "folder").mkdir()
    stage(repository, harmless=HARMLESS + "more\n", keys=SECRETS["Vault"])
    done = commit(repository, "folder")
    assert done.returncode == 1
    assert "keys.yml:1: Secret of the platform\n" in done.stdout + done.stderr
    assert RANDOM not in done.stdout + done.stderr
    # What counts is what would be committed, not what the file has now.
    (repository / "keys.yml").write_text("gone\n")
    assert commit(repository).returncode == 1
    stage(repository)
    assert commit(repository).returncode == 0
    # A file with a secret may go.
    (repository / "harmless.yml").unlink()
    stage(repository)
    assert commit(repository).returncode == 0
