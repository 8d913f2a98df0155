"""What verification says about certificates, on servers of its own."""

import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from socket import SHUT_RDWR, create_server
from types import SimpleNamespace
from typing import Any, cast

import pytest

from quote_platform import certificates as issuing
from quote_platform.verify import certificates
from quote_platform.verify.target import Failed, Target


@contextmanager
def server(folder: Path, days: int) -> Iterator[tuple[int, str]]:
    """Serve TLS with a certificate that ends after some days; yield the port and the authority."""
    authority = issuing.make(folder / "authority", "authority", [], 100, issuer=None, is_ca=True)
    issuing.make(folder / "server", "server", ["127.0.0.1"], days, issuer=authority, is_ca=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    with create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    context.wrap_socket(listening.accept()[0], server_side=True).close()
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1], (folder / "authority.crt").read_text()
        finally:
            listening.shutdown(SHUT_RDWR)
            thread.join()


def target(folder: Path, *ports: int) -> Target:
    """Return a platform without nodes and without an ingress, with some other servers."""
    api = SimpleNamespace(configuration=SimpleNamespace(cert_file=str(folder / "authority.crt")))
    core = SimpleNamespace(list_node=lambda: SimpleNamespace(items=[]))
    servers = [f"127.0.0.1:{port}" for port in ports]
    known: Any = {
        "addresses": [],
        "servers": servers,
        "nodes": {},
        "certificate_days": 21,
        "api": api,
        "core": core,
    }
    return cast("Target", SimpleNamespace(**known))


def test_who_is_not_signed_by_the_authority_is_refused(tmp_path: Path) -> None:
    issuing.make(tmp_path / "other", "other", [], 100, issuer=None, is_ca=True)
    with server(tmp_path, 100) as (port, authority):
        found = certificates.shown("127.0.0.1", port, authority=authority)
        assert found == certificates.shown("127.0.0.1", port)
        with pytest.raises(ssl.SSLCertVerificationError):
            certificates.shown("127.0.0.1", port, authority=(tmp_path / "other.crt").read_text())


def test_what_ends_soon_is_named(tmp_path: Path) -> None:
    (tmp_path / "soon").mkdir()
    with server(tmp_path, 40) as (port, _), server(tmp_path / "soon", 20) as (soon, _):
        assert "2, the first to end is 127.0.0.1" in certificates.certificates(target(tmp_path, port)).detail
        with pytest.raises(Failed, match=rf"^127.0.0.1:{soon} ends on \d{{4}}-\d\d-\d\d$") as told:
            certificates.certificates(target(tmp_path, port, soon))
        renew = "ansible-playbook -i INVENTORY playbooks/renew-certificates.yml -e renew=nodes"
        assert told.value.next_command == renew


def test_who_cannot_be_asked_is_said(tmp_path: Path) -> None:
    with server(tmp_path, 40) as (port, _):
        seen = certificates.certificates(target(tmp_path, port, 1))
        assert "not to be seen from here: 127.0.0.1:1" in seen.detail


def test_a_node_is_asked_where_it_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    issuing.make(tmp_path / "authority", "authority", [], 100, issuer=None, is_ca=True)
    asked = target(tmp_path)
    addresses = [SimpleNamespace(type="InternalIP", address="10.0.0.1")]
    node = SimpleNamespace(
        metadata=SimpleNamespace(name="worker-1", labels={}), status=SimpleNamespace(addresses=addresses)
    )
    monkeypatch.setattr(asked, "core", SimpleNamespace(list_node=lambda: SimpleNamespace(items=[node])))
    asked.nodes = {"worker-1": "198.51.100.7"}
    assert [place.host for place in certificates.places(asked)] == ["198.51.100.7"]
    asked.nodes = {}
    assert [place.host for place in certificates.places(asked)] == ["10.0.0.1"]


def authority(folder: Path, name: str, **given: Any) -> dict[str, Any]:
    """Have an authority as a task does."""
    spec = {key: value.get("default") for key, value in issuing.SPEC.items()}
    asked = {
        "path": str(folder / name),
        "common_name": name,
        "is_authority": True,
        "days": 3650,
        "renew_days": 365,
    }
    return issuing.run(spec | asked | given, False)


def openssl(*words: str | Path) -> str:
    return subprocess.run(["openssl", *words], check=True, capture_output=True, text=True).stdout


def test_an_authority_is_made_once(tmp_path: Path) -> None:
    assert authority(tmp_path, "new")["reason"] == "there is none"
    assert not authority(tmp_path, "new")["changed"]
    # The only form that CloudNativePG reads.
    # pragma: allowlist nextline secret
    assert (tmp_path / "new.key").read_text().startswith("-----BEGIN EC PRIVATE KEY-----")


@pytest.mark.parametrize("adopted", [True, False])
def test_whoever_trusts_an_authority_trusts_the_one_that_succeeds_it(tmp_path: Path, adopted: bool) -> None:
    """What the old one has signed is valid by the new one, and the other way round."""
    old = issuing.make(tmp_path / "old", "old", [], 90, issuer=None, is_ca=True)
    issuing.make(tmp_path / "server", "server", ["localhost"], 30, issuer=old, is_ca=False)
    if adopted:
        texts = {
            f"adopt_{word}": (tmp_path / f"old.{end}").read_text()
            for word, end in (("certificate", "crt"), ("key", "key"))
        }
        told = authority(tmp_path, "new", **texts)
        assert told["reason"] == "the one that there was is taken over"
    else:
        for end in ("crt", "key"):
            (tmp_path / f"new.{end}").write_bytes((tmp_path / f"old.{end}").read_bytes())
        assert authority(tmp_path, "new")["reason"].startswith("it ends on ")
    new = issuing.load(tmp_path / "new")
    assert new
    assert new[0].not_valid_after_utc - old[0].not_valid_after_utc > timedelta(days=3500)
    assert not authority(tmp_path, "new")["changed"]
    issuing.make(tmp_path / "later", "later", ["localhost"], 30, issuer=new, is_ca=False)
    for signer in ("old", "new"):
        for shown in ("server", "later"):
            openssl(
                "verify", "-x509_strict", "-CAfile", tmp_path / f"{signer}.crt", tmp_path / f"{shown}.crt"
            )


def test_a_dry_run_makes_no_authority(tmp_path: Path) -> None:
    spec = {key: value.get("default") for key, value in issuing.SPEC.items()}
    assert issuing.run(spec | {"path": str(tmp_path / "a"), "common_name": "a", "is_authority": True}, True)[
        "changed"
    ]
    assert not list(tmp_path.iterdir())
