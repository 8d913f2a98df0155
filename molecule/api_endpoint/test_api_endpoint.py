"""Behind the virtual address is whichever server is ready, its TLS untouched; it stays while peers come.

Here a small server stands in for the API server; tests/e2e/test_control_planes.py has three real ones.
"""

import json
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from testinfra.host import Host

from scenario import Eventually, Inventory, words

ADDRESS, PORT = "10.89.45.10", 8443
SERVER = """
import http.server, pathlib, ssl
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if pathlib.Path("/run/ready").exists() else 500)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *words):
        pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/root/server.pem")
server = http.server.ThreadingHTTPServer(("", 6443), Answer)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def name(host: Host) -> Iterator[str]:
    """Start the server; return the name in its certificate."""
    host.check_output(
        "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=behind -keyout /root/server.pem "
        "-out /root/cert.pem 2>/dev/null && cat /root/cert.pem >> /root/server.pem && touch /run/ready"
    )
    host.check_output("printf %%s %s > /root/server.py", SERVER)
    host.check_output("systemd-run --unit=server python3 /root/server.py")
    yield "behind"
    host.check_output("systemctl stop server")


def answered() -> str:
    """Return the subject of the certificate that is shown at the virtual address."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((ADDRESS, PORT), timeout=5) as raw,
        context.wrap_socket(raw) as connection,
    ):
        return str(connection.getpeercert(binary_form=True))


def reached() -> None:
    try:
        shown = answered()
    except OSError as error:
        raise AssertionError(str(error)) from error
    assert "behind" in shown


def refused() -> None:
    try:
        answered()
    except OSError:
        return
    raise AssertionError("somebody answers")


def test_a_server_is_reached_while_it_is_ready(host: Host, name: str, eventually: Eventually) -> None:
    eventually(reached, 30)
    host.check_output("rm /run/ready")
    eventually(refused, 30)
    host.check_output("touch /run/ready")
    eventually(reached, 30)


def test_with_company_it_is_handed_on_by_vrrp(
    host: Host, name: str, inventory: Inventory, eventually: Eventually
) -> None:
    (machine,) = inventory.hosts("control_plane")
    servers = {"master-1": inventory.variables(machine)["ansible_host"], "master-2": "10.89.45.12"}
    options = ("--extra-vars", json.dumps({"api_endpoint_servers": servers}))
    changes, _ = inventory.converge(*options)
    assert changes[machine] > 0
    inventory.unchanged(*options)
    eventually(reached, 30)
    assert host.file("/etc/keepalived/keepalived.conf").contains("unicast_peer")
    # One that a run does not reach keeps its address.
    inventory.unchanged("--extra-vars", json.dumps({"api_endpoint_servers": servers | {"master-2": ""}}))
    inventory.converge()
    eventually(reached, 30)
    assert not host.file("/etc/keepalived/keepalived.conf").contains("unicast_peer")


def test_both_come_back_after_a_crash(host: Host, name: str, eventually: Eventually) -> None:
    host.check_output("systemctl kill --signal=KILL haproxy keepalived")
    eventually(reached, 30)

    def running() -> None:
        assert host.service("keepalived").is_running

    eventually(running, 30)
    assert host.service("haproxy").is_enabled
    assert host.service("keepalived").is_enabled


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"api_endpoint_address": "10.89.46.10"}, "does not lie in the network that"),
        ({"api_endpoint_node_ip": "10.89.45.99"}, "has no interface with the address 10.89.45.99"),
    ],
)
def test_what_does_not_fit_is_refused(asked: dict[str, Any], said: str, inventory: Inventory) -> None:
    done = inventory.play("--extra-vars", json.dumps(asked))
    assert done.returncode != 0
    assert said in words(done)
