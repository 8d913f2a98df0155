"""The controller's way to the cluster: past the proxy by which it reaches all else, or by a bastion.

The way by a bastion is an HTTP proxy on the loopback address that goes by SSH. Whatever knows `https_proxy`
is led by it: clients of the API server, of S3, of Vault, and what asks the application. What is not behind it
goes as it would without. It ends with the process that has started it.
"""

from __future__ import annotations

import base64
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any
from urllib.request import getproxies_environment, proxy_bypass

from pydantic import BaseModel

from quote_platform import proxies

# Set for those who are led: by which bastion.
MARK = "QUOTE_PLATFORM_BASTION"
NAMES = ("cluster_bastion", "cluster_bastion_arguments", "cluster_bastion_inside", "cluster_no_proxy")


class Way(BaseModel):
    """Where the bastion is, [user@]host[:port], and what lies behind it; else what is asked directly."""

    bastion: str = ""
    # Words for ssh: keys, known hosts.
    arguments: list[str] = []
    # Names, suffixes that begin with a dot, addresses, networks.
    inside: list[str] = []


def way(known: Mapping[str, Any]) -> Way:
    """Return the way that an inventory names, by the values of NAMES."""
    if not (name := known.get("cluster_bastion")):
        return Way(inside=known.get("cluster_no_proxy") or [])
    arguments = shlex.split(str(known.get("cluster_bastion_arguments") or ""))
    return Way(bastion=str(name), arguments=arguments, inside=known.get("cluster_bastion_inside") or [])


def past_proxies(way: Way) -> dict[str, str]:
    """Return the environment in which no proxy is asked for the cluster; nothing where there is none."""
    if not {"http", "https", "all"} & (known := getproxies_environment()).keys():
        return {}
    names = [*known.get("no", "").split(","), *way.inside]
    text = ",".join(dict.fromkeys(name for name in map(str.strip, names) if name))
    return {} if "*" in names else {"no_proxy": text, "NO_PROXY": text}


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
    """Yield the environment of programs that are to go this way, for as long as the block runs."""
    if not way.bastion:
        yield past_proxies(way)
        return
    process, environment = start(way)
    try:
        yield environment
    finally:
        process.communicate()


@contextmanager
def led(way: Way | None) -> Iterator[None]:
    """Lead this process and those that it starts, while the block runs."""
    if way is None or (way.bastion and os.environ.get(MARK) == way.bastion):  # none, or it is already
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
    known = getproxies_environment()
    if not (by := known.get("https", "")) or proxy_bypass(f"{host}:{port}", known):
        return socket.create_connection((host, port), timeout=seconds)
    proxy = proxies.parts(by)
    tunnel = HTTPConnection(proxy["host"], proxy["port"], timeout=seconds)
    tunnel.set_tunnel(host, port, account(proxy))
    tunnel.connect()
    return tunnel.sock


def account(proxy: Mapping[str, Any]) -> dict[str, str]:
    """Return the header by which a proxy, in parts, knows who asks."""
    if not proxy["username"]:
        return {}
    who = f"{proxy['username']}:{proxy['password']}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(who.encode()).decode()}
