"""What verification says about certificates, on servers of its own."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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
    known: Any = {"addresses": [], "servers": servers, "certificate_days": 21, "api": api, "core": core}
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
        assert "2, the first to end is 127.0.0.1" in certificates.certificates(target(tmp_path, port))
        with pytest.raises(Failed, match=rf"^127.0.0.1:{soon} ends on \d{{4}}-\d\d-\d\d$") as told:
            certificates.certificates(target(tmp_path, port, soon))
        renew = "ansible-playbook -i INVENTORY playbooks/renew-certificates.yml -e renew=nodes"
        assert told.value.next_command == renew


def test_who_cannot_be_asked_is_said(tmp_path: Path) -> None:
    with server(tmp_path, 40) as (port, _):
        assert "not to be seen from here: 127.0.0.1:1" in certificates.certificates(target(tmp_path, port, 1))
