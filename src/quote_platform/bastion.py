"""The controller's way to what lies behind a bastion: an HTTP proxy on the loopback address that goes by SSH.

Whatever knows `https_proxy` is led by it: clients of the API server, of S3, of Vault, and what asks the
application. What is not behind it goes as it would without. It ends with the process that has started it.
"""

from __future__ import annotations

import asyncio
import base64
import ctypes
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from pydantic import BaseModel

from quote_platform import proxies

# Seconds for which a bastion is asked again that drops connections, or lets nobody in.
PATIENCE = 30.0
CHUNK = 64 * 1024
OPTIONS = (
    *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
)
# Set for those who are led: by which bastion.
MARK = "QUOTE_PLATFORM_BASTION"
NAMES = ("cluster_bastion", "cluster_bastion_arguments", "cluster_bastion_inside")
# Asking again does not help.
FINAL = ("Permission denied", "Host key verification failed", "Could not resolve hostname")

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Way(BaseModel):
    """Where the bastion is, [user@]host[:port], and what lies behind it."""

    bastion: str
    # Words for ssh: keys, known hosts.
    arguments: list[str] = []
    # Names, suffixes that begin with a dot, addresses, networks.
    inside: list[str] = []


def way(known: Mapping[str, Any]) -> Way | None:
    """Return the way that an inventory names, by the values of NAMES; none without a bastion."""
    if not (name := known.get("cluster_bastion")):
        return None
    arguments = shlex.split(str(known.get("cluster_bastion_arguments") or ""))
    return Way(bastion=str(name), arguments=arguments, inside=known.get("cluster_bastion_inside") or [])


def start(way: Way) -> tuple[subprocess.Popen[str], dict[str, str]]:
    """Start the proxy; return it and the environment of programs that are to go by the bastion.

    It ends when its standard input does, with the process that holds that at the latest.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "quote_platform.bastion"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for those whom it serves: they end first
    )
    if not (process.stdin and process.stdout):
        raise RuntimeError("pipes were asked for")
    process.stdin.write(way.model_dump_json() + "\n")
    process.stdin.flush()
    url = f"http://127.0.0.1:{int(process.stdout.readline())}"
    lower = {"http_proxy": url, "https_proxy": url, "no_proxy": "localhost,127.0.0.1"}
    return process, {MARK: way.bastion} | lower | {name.upper(): value for name, value in lower.items()}


@contextmanager
def opened(way: Way) -> Iterator[dict[str, str]]:
    """Yield the environment of programs that are to go by the bastion, for as long as the block runs."""
    process, environment = start(way)
    try:
        yield environment
    finally:
        process.communicate()


@contextmanager
def led(way: Way | None) -> Iterator[None]:
    """Lead this process and those that it starts, while the block runs; without a bastion, nowhere."""
    if way is None or os.environ.get(MARK) == way.bastion:
        yield
        return
    before = dict(os.environ)
    with opened(way) as environment:
        os.environ |= environment
        try:
            yield
        finally:
            for name in environment:
                os.environ.pop(name)
            os.environ |= {name: before[name] for name in environment if name in before}


def connect(host: str, port: int, seconds: float) -> socket.socket:
    """Return a connection, by the proxy of the environment where there is one for it."""
    from http.client import HTTPConnection  # noqa: PLC0415

    known = getproxies_environment()
    if not (by := known.get("https", "")) or proxy_bypass(f"{host}:{port}", known):
        return socket.create_connection((host, port), timeout=seconds)
    proxy = urlsplit(by)
    tunnel = HTTPConnection(proxy.hostname or "", proxy.port, timeout=seconds)
    tunnel.set_tunnel(host, port, _account(proxy.netloc))
    tunnel.connect()
    return tunnel.sock


class Proxy:
    """Serves this user's programs on this machine."""

    def __init__(self, way: Way, folder: str, outside: Mapping[str, str]) -> None:
        self.way, self.outside = way, dict(outside)
        self.socket = Path(folder) / "ssh"
        self.command = ["ssh", *OPTIONS, *way.arguments, "-o", f"ControlPath={self.socket}"]
        self.master: asyncio.subprocess.Process | None = None
        self.lock = asyncio.Lock()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        with suppress(ValueError, EOFError, asyncio.LimitOverrunError, OSError):
            if _owner(writer.get_extra_info("peername")) == os.getuid():
                head = await reader.readuntil(b"\r\n\r\n")
                try:
                    await self._lead(head, (reader, writer))
                except OSError as error:
                    writer.write(f"HTTP/1.1 502 {error}\r\nConnection: close\r\n\r\n".encode())
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def _lead(self, head: bytes, asking: Stream) -> None:
        """Lead a connection to where it wants to go; raise OSError before anything is answered."""
        line, _, fields = head.partition(b"\r\n")
        method, target, _ = line.decode().split(" ")
        tunnel = method == "CONNECT"
        url = urlsplit(f"//{target}" if tunnel else target)
        host, port = url.hostname or "", url.port or (443 if tunnel else 80)
        behind = proxies.excepted(host, self.way.inside)
        parent = self.outside.get("https" if tunnel else "http", "")
        if not behind and parent and not proxy_bypass(f"{host}:{port}", self.outside):
            proxy = urlsplit(parent)
            there = await asyncio.open_connection(proxy.hostname, proxy.port)
            account = "".join(f"{name}: {value}\r\n" for name, value in _account(proxy.netloc).items())
            there[1].write(b"\r\n".join([line, account.encode() + fields]))
            await self._pass(asking, there)
            return
        if behind:
            await self._ready()
        else:
            there = await asyncio.open_connection(host, port)
        first = b""
        if tunnel:
            asking[1].write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            path = url._replace(scheme="", netloc="").geturl() or "/"
            # The next request may be for another host.
            first = f"{method} {path} HTTP/1.1\r\nConnection: close\r\n".encode() + fields
        if behind:
            with suppress(OSError):  # the asker sees that nobody answers
                await self._over_ssh(f"[{host}]:{port}", first, asking)
        else:
            there[1].write(first)
            await self._pass(asking, there)

    async def _ready(self) -> None:
        """Wait until there is a connection to the bastion."""
        async with self.lock:
            end = asyncio.get_running_loop().time() + PATIENCE
            while self.master is None or self.master.returncode is not None or not self.socket.exists():
                if self.master is None or self.master.returncode is not None:
                    self.socket.unlink(missing_ok=True)
                    words = ("-o", "ControlMaster=yes", "-N", f"ssh://{self.way.bastion}")
                    self.master = await asyncio.create_subprocess_exec(
                        *self.command,
                        *words,
                        stdin=asyncio.subprocess.DEVNULL,
                        stderr=asyncio.subprocess.PIPE,
                        preexec_fn=_end_with_parent,
                    )
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.master.wait(), 0.05)
                if self.master.returncode is None:
                    continue
                _, error = await self.master.communicate()
                said = " ".join(error.decode(errors="replace").split())
                if asyncio.get_running_loop().time() > end or any(text in said for text in FINAL):
                    raise ConnectionError(f"the bastion {self.way.bastion} lets nobody through: {said}")
                await asyncio.sleep(1)

    async def _over_ssh(self, target: str, first: bytes, asking: Stream) -> None:
        """Connect by the bastion; as long as nothing has answered, again where the bastion went away."""
        sent, answered = bytearray(first), False
        there: Stream | None = None

        async def ask() -> None:
            while data := await asking[0].read(CHUNK):
                if not answered:
                    sent.extend(data)
                if there:
                    with suppress(OSError):
                        there[1].write(data)
                        await there[1].drain()
            if there and there[1].can_write_eof():
                there[1].write_eof()

        question = asyncio.create_task(ask())
        try:
            while not answered and not question.done():
                ours, theirs = socket.socketpair()
                words = ("-o", "ControlMaster=no", "-W", target, f"ssh://{self.way.bastion}")
                process = await asyncio.create_subprocess_exec(
                    *self.command,
                    *words,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=asyncio.subprocess.PIPE,
                    preexec_fn=_end_with_parent,
                )
                theirs.close()
                there = await asyncio.open_connection(sock=ours)
                there[1].write(bytes(sent))
                with suppress(OSError):
                    while data := await there[0].read(CHUNK):
                        answered = True
                        asking[1].write(data)
                        await asking[1].drain()
                there[1].close()
                _, said = await process.communicate()
                if b"refused by peer" in said or b"open failed" in said:
                    return  # the bastion is well; what is behind it is not
                if not answered:
                    await self._ready()
        finally:
            question.cancel()

    async def _pass(self, asking: Stream, there: Stream) -> None:
        """Hand on what both say, until both have ended."""

        async def hand(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await reader.read(CHUNK):
                    writer.write(data)
                    await writer.drain()
                if writer.can_write_eof():
                    writer.write_eof()

        await asyncio.gather(hand(asking[0], there[1]), hand(there[0], asking[1]))
        there[1].close()


def _account(netloc: str) -> dict[str, str]:
    """Return the header by which a proxy knows who asks."""
    user, at, _ = netloc.rpartition("@")
    if not at:
        return {}
    return {"Proxy-Authorization": "Basic " + base64.b64encode(unquote(user).encode()).decode()}


def _owner(peer: tuple[str, int]) -> int | None:
    """Return whose a connection from this machine is."""
    address = f"{int.from_bytes(socket.inet_aton(peer[0]), sys.byteorder):08X}:{peer[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[1] == address:
            return int(words[7])
    return None


def _end_with_parent() -> None:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


async def _main() -> None:
    way = Way.model_validate_json(sys.stdin.readline())
    with tempfile.TemporaryDirectory(prefix="quote-bastion-") as folder:
        proxy = Proxy(way, folder, getproxies_environment())
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=CHUNK)
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)
        server.close()
        if proxy.master and proxy.master.returncode is None:
            proxy.master.terminate()
            await proxy.master.wait()
    os._exit(0)  # whoever is still served has lost the one who started this


if __name__ == "__main__":
    asyncio.run(_main())
