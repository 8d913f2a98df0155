"""What programs in pods are told of an HTTP proxy, and what a NetworkPolicy lets them reach of it.

A proxy is a mapping: `http` and `https` are URLs or empty, `no_proxy` lists what is reached without it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

Proxy = Mapping[str, Any]


def through(url: str, proxy: Proxy) -> str:
    """Return the proxy by which a URL is reached, or nothing where it is reached directly."""
    if not (found := str(proxy.get(url.partition(":")[0]) or "")):
        return ""
    return "" if excepted(urlsplit(url).hostname or "", proxy.get("no_proxy") or []) else found


def excepted(host: str, exceptions: list[str]) -> bool:
    """Tell whether a host is reached without the proxy, as Go's programs judge: they know networks, too."""
    address = _address(host)
    for text in exceptions:
        item = text.strip().lower()
        if address:
            network = _network(item)
            if network and address.version == network.version and address in network:
                return True
        elif item.lstrip(".") and (host == item or host.endswith(f".{item.lstrip('.')}")):
            return True
    return False


def environment(proxy: Proxy, *urls: str) -> dict[str, str]:
    """Return the environment of a program that asks these URLs; none where it reaches all directly."""
    if not any(through(url, proxy) for url in urls):
        return {}
    found = {f"{scheme.upper()}_PROXY": str(proxy.get(scheme) or "") for scheme in ("http", "https")}
    return {name: url for name, url in found.items() if url} | {
        "NO_PROXY": ",".join(proxy.get("no_proxy") or [])
    }


def parts(url: str) -> dict[str, Any]:
    """Return what a program asks for that takes no URL: host, port, username and password, not encoded."""
    found = urlsplit(url)
    return {
        "host": found.hostname or "",
        "port": found.port,
        "username": unquote(found.username or ""),
        "password": unquote(found.password or ""),
    }


def rules(variables: Mapping[str, str], inside: list[str]) -> list[dict[str, Any]]:
    """Return the egress rules of a NetworkPolicy for this environment; `inside` are the cluster's networks.

    A policy takes addresses only, and a name may have any: where the proxy has one, its port is allowed
    everywhere but within the cluster.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for name, url in variables.items():
        if name == "NO_PROXY" or not (port := urlsplit(url).port):
            continue
        host = urlsplit(url).hostname or ""
        block: dict[str, Any] = {"cidr": "0.0.0.0/0", "except": list(inside)}
        if address := _address(host):
            block = {"cidr": f"{address}/{address.max_prefixlen}"}
        found[host, port] = {"ports": [{"protocol": "TCP", "port": port}], "to": [{"ipBlock": block}]}
    return list(found.values())


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
