"""An HTTP proxy as companies have one: it asks for an account, and keeps who wanted to go where."""

import base64
import contextlib
import http.client
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import quote, urlsplit

SECONDS = 30  # of silence, after which a connection ends


@dataclass(frozen=True)
class Asked:
    """Where somebody wanted to go, by which account, and whether that was the right one."""

    target: str  # HOST:PORT
    account: str  # USER:PASSWORD, or nothing
    right: bool


class Proxy:
    """The proxy, while it runs; `hosts` are names that nobody else resolves, and their addresses."""

    def __init__(self, account: str, hosts: dict[str, str] | None = None) -> None:
        self.account = account
        self.hosts = hosts or {}
        self.asked: list[Asked] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                proxy.connect(self)

            def do_POST(self) -> None:
                proxy.forward(self)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        # At every address, since pods come in by that of their nodes' network.
        self.server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)  # noqa: S104
        self.port = self.server.server_address[1]

    def url(self, host: str) -> str:
        """Return its URL at one of our addresses, as it is written in an inventory."""
        user, _, password = self.account.partition(":")
        return f"http://{user}:{quote(password, safe='')}@{host}:{self.port}"

    def refused(self, request: BaseHTTPRequestHandler, target: str) -> bool:
        """Refuse who has not the right account; keep who wanted to go where."""
        request.close_connection = True
        _, _, encoded = request.headers.get("Proxy-Authorization", "").partition(" ")
        account = base64.b64decode(encoded).decode(errors="replace")
        right = account == self.account
        self.asked.append(Asked(target, account, right))
        if not right:
            request.send_response(407)
            request.send_header("Proxy-Authenticate", 'Basic realm="proxy"')
            request.send_header("Content-Length", "0")
            request.end_headers()
        return not right

    def connect(self, request: BaseHTTPRequestHandler) -> None:
        """Connect a client with whom it wants to speak, over TLS."""
        if self.refused(request, request.path):
            return
        host, _, port = request.path.rpartition(":")
        try:
            other = socket.create_connection((self.hosts.get(host, host.strip("[]")), int(port)), SECONDS)
        except OSError:
            request.send_error(502)
            return
        with other:
            request.send_response(200)
            request.end_headers()
            relay(request.connection, other)

    def forward(self, request: BaseHTTPRequestHandler) -> None:
        """Send a request on that is not over TLS."""
        url = urlsplit(request.path)
        host, port = url.hostname or "", url.port or 80
        if self.refused(request, f"{host}:{port}"):
            return
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        headers = {"Content-Type": request.headers.get("Content-Type", ""), "Host": url.netloc}
        other = http.client.HTTPConnection(self.hosts.get(host, host), port, timeout=SECONDS)
        try:
            other.request(request.command, url.path, body, headers)
            answer = other.getresponse()
            content = answer.read()
        except OSError:
            request.send_error(502)
            return
        finally:
            other.close()
        request.send_response(answer.status)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)


def relay(one: socket.socket, other: socket.socket) -> None:
    """Hand on what either says until one of them has ended, or both are silent."""
    with contextlib.suppress(OSError):
        while readable := select.select([one, other], [], [], SECONDS)[0]:
            for source in readable:
                if not (data := source.recv(65536)):
                    return
                (other if source is one else one).sendall(data)


@contextlib.contextmanager
def proxying(account: str, hosts: dict[str, str] | None = None) -> Iterator[Proxy]:
    """Run one for an account, USER:PASSWORD, while the block runs."""
    proxy = Proxy(account, hosts)
    Thread(target=proxy.server.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()
