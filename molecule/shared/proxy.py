"""An HTTP proxy as companies have one: it asks for an account, and keeps who wanted to go where."""

import base64
import contextlib
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import quote

SECONDS = 30  # of silence, after which a connection ends


@dataclass(frozen=True)
class Asked:
    """A connection that was asked for, and whether it was made."""

    target: str  # HOST:PORT
    account: str  # USER:PASSWORD, or nothing
    made: bool


class Proxy:
    """The proxy, while it runs."""

    def __init__(self, account: str) -> None:
        self.account = account
        self.asked: list[Asked] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                proxy.connect(self)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        # At every address, since pods come in by that of their nodes' network.
        self.server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)  # noqa: S104
        self.port = self.server.server_address[1]

    def url(self, host: str) -> str:
        """Return its URL at one of our addresses, as it is written in an inventory."""
        user, _, password = self.account.partition(":")
        return f"http://{user}:{quote(password, safe='')}@{host}:{self.port}"

    def connect(self, request: BaseHTTPRequestHandler) -> None:
        """Connect the client with whom it wants to speak, if its account is right."""
        _, _, encoded = request.headers.get("Proxy-Authorization", "").partition(" ")
        account = base64.b64decode(encoded).decode(errors="replace")
        request.close_connection = True
        if account != self.account:
            self.asked.append(Asked(request.path, account, made=False))
            request.send_response(407)
            request.send_header("Proxy-Authenticate", 'Basic realm="proxy"')
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        host, _, port = request.path.rpartition(":")
        try:
            other = socket.create_connection((host.strip("[]"), int(port)), SECONDS)
        except OSError:
            self.asked.append(Asked(request.path, account, made=False))
            request.send_error(502)
            return
        with other:
            self.asked.append(Asked(request.path, account, made=True))
            request.send_response(200)
            request.end_headers()
            relay(request.connection, other)


def relay(one: socket.socket, other: socket.socket) -> None:
    """Hand on what either says until one of them has ended, or both are silent."""
    with contextlib.suppress(OSError):
        while readable := select.select([one, other], [], [], SECONDS)[0]:
            for source in readable:
                if not (data := source.recv(65536)):
                    return
                (other if source is one else one).sendall(data)


@contextlib.contextmanager
def proxying(account: str) -> Iterator[Proxy]:
    """Run one for an account, USER:PASSWORD, while the block runs."""
    proxy = Proxy(account)
    Thread(target=proxy.server.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()
