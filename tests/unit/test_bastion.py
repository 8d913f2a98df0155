"""The way by a bastion: OpenSSH's client, a server of SSH, and what only that one reaches."""

import asyncio
import json
import os
import shlex
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import asyncssh
import httpx
import pytest
import yaml

from quote_platform import bastion, certificates
from quote_platform.inventory import Question, ask

ROOT = Path(__file__).resolve().parents[2]
INSIDE = "platform.test"


class Inner(BaseHTTPRequestHandler):
    """Tells what it was asked."""

    server: ThreadingHTTPServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"{self.server.server_port} {self.path} {self.headers['Host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@dataclass
class Bastion:
    """A server of SSH that knows names which nobody else knows, and only forwards."""

    folder: Path
    port: int = 0
    asked: list[tuple[str, int]] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=dict)  # name -> port of this machine
    logins: int = 0

    def __post_init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.user = asyncssh.generate_private_key("ssh-ed25519")
        self.host = asyncssh.generate_private_key("ssh-ed25519")
        key = self.folder / "key"
        key.touch(0o600)
        key.write_bytes(self.user.export_private_key())
        self.connections: list[asyncssh.SSHServerConnection] = []
        self.open()

    def open(self) -> None:
        outer = self

        class Server(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                outer.logins += 1
                outer.connections.append(conn)

            async def connection_requested(
                self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
            ) -> Any:
                outer.asked.append((dest_host, dest_port))
                if dest_host not in outer.ends:
                    raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "Connection refused")
                connection = outer.connections[-1]
                return await connection.forward_connection("127.0.0.1", outer.ends[dest_host])

        async def listen() -> asyncssh.SSHAcceptor:
            return await asyncssh.create_server(
                Server,
                "127.0.0.1",
                self.port,
                server_host_keys=[self.host],
                authorized_client_keys=asyncssh.import_authorized_keys(
                    self.user.export_public_key().decode()
                ),
                reuse_address=True,
            )

        self.acceptor = self.run(listen())
        self.port = self.acceptor.get_port()
        (self.folder / "known_hosts").write_text(
            f"[127.0.0.1]:{self.port} {self.host.export_public_key().decode()}"
        )

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def drop(self) -> None:
        """Drop all connections, and take no others."""

        async def away() -> None:
            self.acceptor.close()
            for connection in self.connections:
                connection.abort()
            await self.acceptor.wait_closed()

        self.run(away())

    def way(self, **more: Any) -> bastion.Way:
        options = {
            "UserKnownHostsFile": self.folder / "known_hosts",
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return bastion.Way(
            **{
                "bastion": f"anybody@127.0.0.1:{self.port}",
                "arguments": ["-F", "none", "-i", str(self.folder / "key"), *words],
                "inside": [INSIDE, "10.99.0.0/16"],
            }
            | more
        )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Bastion]:
    made = Bastion(tmp_path)
    yield made
    made.drop()
    made.loop.call_soon_threadsafe(made.loop.stop)


@pytest.fixture
def inner(server: Bastion) -> Iterator[ThreadingHTTPServer]:
    """A server behind the bastion."""
    made = ThreadingHTTPServer(("127.0.0.1", 0), Inner)
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    server.ends = {INSIDE: made.server_port, "10.99.0.7": made.server_port}
    yield made
    made.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def client(environment: dict[str, str], **options: Any) -> httpx.Client:
    """Return a client that keeps no connection, since the server here does not say that it closes it."""
    return httpx.Client(
        proxy=environment["https_proxy"],
        timeout=60,
        trust_env=False,
        limits=httpx.Limits(max_keepalive_connections=0),
        **options,
    )


def test_names_and_addresses_behind_it_are_asked_by_one_connection(
    server: Bastion, inner: ThreadingHTTPServer
) -> None:
    with bastion.opened(server.way()) as environment:
        for host in (INSIDE, "10.99.0.7"):
            with client(environment) as http:
                assert http.get(f"http://{host}/a?b=1").text == f"{inner.server_port} /a?b=1 {host}"
    assert server.asked == [(INSIDE, 80), ("10.99.0.7", 80)]
    assert server.logins == 1


def test_tls_reaches_its_end_and_large_answers_are_whole(
    server: Bastion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = certificates.make(tmp_path / "authority", "test", [], 1, issuer=None, is_ca=True)
    certificates.make(tmp_path / "tls", INSIDE, [INSIDE], 1, issuer=authority, is_ca=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    large = os.urandom(5_000_000)

    class Large(Inner):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(large)))
            self.end_headers()
            self.wfile.write(large)

    made = ThreadingHTTPServer(("127.0.0.1", 0), Large)
    made.socket = context.wrap_socket(made.socket, server_side=True)
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    server.ends = {INSIDE: made.server_port}
    trust = ssl.create_default_context(cafile=str(tmp_path / "authority.crt"))
    with bastion.opened(server.way()) as environment:
        with client(environment, verify=trust) as http:
            assert http.get(f"https://{INSIDE}/").content == large
            assert http.get(f"https://{INSIDE}/").content == large
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        raw = bastion.connect(INSIDE, 443, 30)
        with raw, trust.wrap_socket(raw, server_hostname=INSIDE) as end:
            assert end.getpeercert()
    made.shutdown()
    assert set(server.asked) == {(INSIDE, 443)}


def test_what_is_not_behind_it_is_asked_directly_or_by_the_proxy_that_there_was(
    server: Bastion, inner: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{inner.server_port}/direct"
    with bastion.opened(server.way()) as environment, client(environment) as http:
        assert http.get(url).status_code == 200
    heard: list[bytes] = []

    def parent(listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            heard.append(connection.recv(4096))
            connection.sendall(b"HTTP/1.1 403 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=parent, args=(listening,), daemon=True).start()
        at = f"http://me:s%40crt@127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("https_proxy", at)
        monkeypatch.setenv("http_proxy", at)
        monkeypatch.setenv("no_proxy", f"127.0.0.1,.direct.test,{INSIDE}")
        with bastion.opened(server.way()) as environment, client(environment) as http:
            assert http.get(url).status_code == 200
            assert http.get(f"http://{INSIDE}/").status_code == 200
            assert http.get("http://upstream.test/x").status_code == 403
            with pytest.raises(httpx.ProxyError, match="403"):
                http.get("https://upstream.test/x")
    first, second = heard
    assert first.startswith(b"GET http://upstream.test/x HTTP/1.1\r\nProxy-Authorization: Basic bWU6c0BjcnQ=")
    assert second.startswith(b"CONNECT upstream.test:443 HTTP/1.1\r\nProxy-Authorization: Basic bWU6c0BjcnQ=")
    assert server.asked == [(INSIDE, 80)]


def test_a_bastion_that_drops_connections_for_ten_seconds_is_waited_for(
    server: Bastion, inner: ThreadingHTTPServer
) -> None:
    with bastion.opened(server.way()) as environment, client(environment) as http:
        assert http.get(f"http://{INSIDE}/").status_code == 200
        server.drop()
        threading.Timer(10, server.open).start()
        started = time.monotonic()
        assert http.get(f"http://{INSIDE}/").status_code == 200
        assert time.monotonic() - started > 9
    assert server.logins == 2


def test_who_cannot_be_let_in_is_told_why(
    server: Bastion, inner: ThreadingHTTPServer, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.touch(0o600)
    other.write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key())
    words = [str(other) if word == str(tmp_path / "key") else word for word in server.way().arguments]
    with bastion.opened(server.way(arguments=words)) as environment, client(environment) as http:
        with pytest.raises(httpx.ProxyError, match=r"anybody@.* lets nobody through: .*Permission denied"):
            http.get(f"https://{INSIDE}/")
        assert http.get(f"http://{INSIDE}/").status_code == 502
    (tmp_path / "known_hosts").write_text("")
    unknown = "Host key verification failed"
    with (
        bastion.opened(server.way()) as environment,
        client(environment) as http,
        pytest.raises(httpx.ProxyError, match=unknown),
    ):
        http.get(f"https://{INSIDE}/")


def test_what_refuses_behind_it_is_not_asked_again(server: Bastion, inner: ThreadingHTTPServer) -> None:
    server.ends = {}
    with (
        bastion.opened(server.way()) as environment,
        client(environment) as http,
        pytest.raises(httpx.HTTPError),
    ):
        http.get(f"https://{INSIDE}/")
    assert server.asked == [(INSIDE, 443)]


def test_another_user_is_not_served(server: Bastion, inner: ThreadingHTTPServer) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    with bastion.opened(server.way()) as environment:
        port = environment["https_proxy"].rpartition(":")[2]
        ask = f"import socket; c = socket.create_connection(('127.0.0.1', {port})); "
        ask += f"c.sendall(b'GET http://{INSIDE}/ HTTP/1.1\\r\\n\\r\\n'); print(bool(c.recv(100)))"
        answers = {}
        for user in (0, 65534):
            done = subprocess.run(
                ["/usr/bin/python3", "-c", ask], capture_output=True, text=True, user=user, check=False
            )
            answers[user] = done.stdout.strip()
    assert answers[0] == "True"
    assert answers[65534] in {"", "False"}  # reset, or closed


def test_nothing_of_it_is_left(server: Bastion, inner: ThreadingHTTPServer) -> None:
    process, environment = bastion.start(server.way())
    with client(environment) as http:
        http.get(f"http://{INSIDE}/")
    process.kill()
    process.communicate()
    left = ["pgrep", "-f", f"anybody@127.0.0.1:{server.port}"]
    deadline = time.monotonic() + 10
    while subprocess.run(left, check=False, capture_output=True).returncode == 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)


PLAY = """
- hosts: control_plane
  gather_facts: false
  connection: local
  tasks:
    - name: Ask what is behind it
      ansible.builtin.uri:
        url: http://platform.test/asked
        return_content: true
      register: answer
      failed_when: "'/asked platform.test' not in answer.content"

    - name: Show what leads machines' connections
      ansible.builtin.debug:
        var: ansible_ssh_common_args
"""


def test_an_inventory_leads_a_playbook(server: Bastion, inner: ThreadingHTTPServer, tmp_path: Path) -> None:
    (tmp_path / "play.yml").write_text(PLAY)
    way = server.way()
    told = {
        "ansible_host": "192.0.2.11",
        "ansible_python_interpreter": sys.executable,
        "ansible_ssh_common_args": "{{ cluster_bastion_jump }}",
        "cluster_bastion": way.bastion,
        "cluster_bastion_arguments": shlex.join(way.arguments),
        "cluster_proxy_exceptions": [f".{INSIDE.partition('.')[2]}"],
    }
    inventory = {"all": {"children": {"control_plane": {"hosts": {"master-1": told}}}}}
    hosts_file = tmp_path / "inventory" / "hosts.yml"
    hosts_file.parent.mkdir()
    hosts_file.write_text(yaml.safe_dump(inventory))
    (tmp_path / "group_vars").symlink_to(ROOT / "group_vars")
    done = subprocess.run(
        ["ansible-playbook", "-i", hosts_file, tmp_path / "play.yml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert server.asked == [(INSIDE, 80)]
    assert f"-W [%h]:%p ssh://{way.bastion}" in done.stdout


def test_a_process_is_led_for_a_while(server: Bastion, inner: ThreadingHTTPServer) -> None:
    before = dict(os.environ)
    with bastion.led(server.way()):
        assert httpx.get(f"http://{INSIDE}/").status_code == 200
        with bastion.led(server.way()):  # it is already
            assert httpx.get(f"http://{INSIDE}/").status_code == 200
    assert dict(os.environ) == before
    assert server.logins == 1


PAST = """
- name: Past the proxy
  hosts: control_plane
  connection: local
  gather_facts: false
  tasks:
    - name: Ask the API server
      ansible.builtin.uri:
        url: http://127.0.0.2:{{ near }}/readyz
        return_content: true
      register: answer
      failed_when: "'/readyz' not in answer.content"

    - name: Judge what else is told
      ansible.builtin.assert:
        that:
          - names == lookup('ansible.builtin.env', 'NO_PROXY')
          - "(['127.0.0.2', 'master-1'] + own) is subset(names | split(','))"
      vars:
        names: "{{ lookup('ansible.builtin.env', 'no_proxy') }}"
"""


@pytest.mark.parametrize("own", [[], ["other.example", ".corp.example"]])
def test_a_proxy_of_the_controller_is_not_asked_for_the_cluster(tmp_path: Path, own: list[str]) -> None:
    (tmp_path / "play.yml").write_text(PAST)
    (tmp_path / "group_vars").symlink_to(ROOT / "group_vars")
    hosts_file = tmp_path / "inventory" / "hosts.yml"
    hosts_file.parent.mkdir()
    told = {"ansible_host": "127.0.0.2", "ansible_python_interpreter": sys.executable}
    inventory = {"all": {"children": {"control_plane": {"hosts": {"master-1": told}}}}}
    hosts_file.write_text(yaml.safe_dump(inventory))
    near = ThreadingHTTPServer(("127.0.0.2", 0), Inner)
    threading.Thread(target=near.serve_forever, daemon=True).start()
    # Where nobody listens.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    variables = json.dumps({"near": near.server_port, "own": own})
    done = subprocess.run(
        ["ansible-playbook", "-i", hosts_file, tmp_path / "play.yml", "-e", variables],
        cwd=ROOT,
        env=os.environ | nowhere | {"no_proxy": ",".join(own)},
        capture_output=True,
        text=True,
        check=False,
    )
    near.shutdown()
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_process_without_a_bastion_is_led_past_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    way = bastion.way({"cluster_no_proxy": ["10.0.0.1", "master-1"]})
    with bastion.led(way):
        assert "no_proxy" not in os.environ  # there is no proxy
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "10.0.0.1, other.example")
    before = dict(os.environ)
    with bastion.led(way):
        assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "10.0.0.1,other.example,master-1"
    assert dict(os.environ) == before
    monkeypatch.setenv("no_proxy", "*")
    with bastion.led(way):
        assert os.environ["no_proxy"] == "*"


@pytest.mark.parametrize(
    ("scheme", "inside"),
    [("internal", ["10.0.0.0/16", "api.elb.example"]), ("internet-facing", ["10.0.0.0/16"])],
)
def test_on_aws_the_network_is_behind_it(tmp_path: Path, scheme: str, inside: list[str]) -> None:
    (tmp_path / "hosts.yml").write_text("all: {children: {control_plane: {hosts: {m: {ansible_host: m}}}}}")
    made = {"bastion": "198.18.0.9", "api_endpoint": "api.elb.example:6443"}
    question = Question(
        inventory=str(tmp_path / "hosts.yml"),
        names=[*bastion.NAMES, "ansible_ssh_common_args"],
        project=str(ROOT),
        variables_files=["inventories/aws/group_vars/platform/main.yml"],
        variables={
            "aws_account_made": made,
            "aws_network_cidr": "10.0.0.0/16",
            "aws_load_balancers_api_scheme": scheme,
        },
    )
    found = ask(question).values
    way = bastion.way(found)
    assert way
    assert (way.bastion, way.inside) == ("ubuntu@198.18.0.9", inside)
    assert " -W [%h]:%p ssh://ubuntu@198.18.0.9" in found["ansible_ssh_common_args"]
