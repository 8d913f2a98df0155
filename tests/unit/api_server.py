"""A real API server on this machine, without nodes or controllers, as the mirror has compiled it."""

import base64
import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from quote_platform.mirror import catalogue as cat
from quote_platform.mirror.source import Source

TOKEN = "administrator"  # noqa: S105 (of a server that lives for a test, on this machine alone)


class ApiServer:
    """Its address, and requests to it; by the administrator's token, or another."""

    def __init__(self, address: str) -> None:
        self.http = httpx.Client(base_url=address, verify=False, timeout=20)  # noqa: S501 (made a moment ago)

    def ask(
        self, method: str, path: str, body: Any = None, token: str = TOKEN, **options: Any
    ) -> httpx.Response:
        """Send a request; the caller judges the answer."""
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": options.pop("content", "application/json"),
        }
        content = json.dumps(body) if body is not None else None
        return self.http.request(method, path, content=content, headers=headers, **options)

    def kubeconfig(self, file: Path) -> Path:
        """Write how the administrator reaches it; return the file."""
        address = str(self.http.base_url)
        content = {
            "clusters": [{"name": "it", "cluster": {"server": address, "insecure-skip-tls-verify": True}}],
            "users": [{"name": "it", "user": {"token": TOKEN}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "current-context": "it",
        }
        file.write_text(json.dumps(content))
        return file

    def apply(self, plural: str, document: dict[str, Any]) -> dict[str, Any]:
        """Apply an object as the platform does; `plural` is its kind in paths."""
        group, metadata = document["apiVersion"], document["metadata"]
        space = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
        path = f"/{'apis' if '/' in group else 'api'}/{group}{space}/{plural}/{metadata['name']}"
        query = {"fieldManager": "quote-platform", "force": "true"}
        answer = self.ask("PATCH", path, document, content="application/apply-patch+yaml", params=query)
        assert answer.is_success, answer.text
        return dict(answer.json())


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def api_server(folder: Path) -> Iterator[ApiServer]:
    """Run one in a folder that is empty; skip the test where the mirror has compiled none."""
    source = Source(cat.load(), lambda _: None)
    kube, etcd = (
        source.artifacts / "binaries" / f"{name}-{source.binaries_key(name)}"
        for name in ("kubernetes", "etcd")
    )
    if not (kube / "kube-apiserver").is_file() or not (etcd / "etcd").is_file():
        pytest.skip("the mirror has compiled no kube-apiserver and etcd: quote-platform mirror fill")
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "sa.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (folder / "sa.pub").write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    (folder / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
    clients, peers, port = _free_port(), _free_port(), _free_port()
    commands = {
        "etcd": [
            str(etcd / "etcd"),
            f"--data-dir={folder}/etcd",
            f"--listen-client-urls=http://127.0.0.1:{clients}",
            f"--advertise-client-urls=http://127.0.0.1:{clients}",
            f"--listen-peer-urls=http://127.0.0.1:{peers}",
            "--unsafe-no-fsync",
        ],
        "kube-apiserver": [
            str(kube / "kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{clients}",
            f"--secure-port={port}",
            "--bind-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--cert-dir={folder}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder}/sa.pub",
            f"--service-account-signing-key-file={folder}/sa.key",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",  # as kubeadm has it
            f"--token-auth-file={folder}/tokens.csv",
            # Their controller, which would give every namespace an account, does not run here.
            "--disable-admission-plugins=ServiceAccount",
        ],
    }
    with contextlib.ExitStack() as running:
        for name, command in commands.items():
            log = running.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
            running.callback(_end, process)
        server = ApiServer(f"https://127.0.0.1:{port}")
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if server.ask("GET", "/readyz").text == "ok":
                    break
            log_text = (folder / "kube-apiserver.log").read_text()
            assert process.poll() is None, log_text[-3000:]
            assert time.monotonic() < deadline, log_text[-3000:]
            time.sleep(0.2)
        yield server


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()  # nothing is kept
    process.wait()


def claims(token: str) -> dict[str, Any]:
    """Return what a token of a ServiceAccount says of itself."""
    part = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))
