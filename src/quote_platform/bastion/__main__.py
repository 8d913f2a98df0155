"""The proxy itself: serves programs of this machine by SSH, as the first line of standard input says."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from quote_platform import proxies
from quote_platform.bastion import Way, account

# Seconds for which a bastion is asked again that drops connections, or lets nobody in.
PATIENCE = 30.0
CHUNK = 64 * 1024
OPTIONS = (
    *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
)
# Asking again does not help.
FINAL = ("Permission denied", "Host key verification failed", "Could not resolve hostname")

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


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
            proxy = proxies.parts(parent)
            there = await asyncio.open_connection(proxy["host"], proxy["port"])
            who = "".join(f"{name}: {value}\r\n" for name, value in account(proxy).items())
            there[1].write(b"\r\n".join([line, who.encode() + fields]))
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
