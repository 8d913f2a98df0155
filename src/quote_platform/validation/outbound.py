"""How machines reach what is outside: proxies, authorities, accounts of registries."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from cryptography import x509

from quote_platform.validation.hosts import is_address

Variables = Mapping[str, Any]

# What programs read it differently, or that ends a line of a configuration, stands percent-encoded.
PROXY = re.compile(r"http://([\w.~%!$&'()*+,;=-]+:[\w.~%!$&'()*+,;=-]*@)?[a-zA-Z0-9.-]+:\d{1,5}/?")
EXCEPTION = re.compile(r"\.?[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?(/\d{1,2})?")
BASTION = re.compile(r"([a-z_][a-z0-9_.-]*@)?([a-zA-Z0-9.-]+|\[[0-9a-f:]+\])(:\d{1,5})?")
REGISTRY = re.compile(r"[a-z0-9.-]+(:\d{1,5})?")
MOST_AUTHORITIES = 10
# What pods are told, of all parts and of each; {http, https, no_proxy}.
OF_PODS = (
    "cluster_pod_proxy",
    "cert_manager_proxy",
    "logging_proxy",
    "monitoring_proxy",
    "postgres_backup_proxy",
    "secrets_delivery_proxy",
    "snapshots_proxy",
    "vault_server_snapshots_proxy",
    "velero_proxy",
)


def judge(given: Variables) -> list[str]:
    """Return what is wrong with them. A proxy's password is not repeated."""
    return [*_proxies(given), *_bastion(given), *_authorities(given), *_accounts(given)]


def _proxies(given: Variables) -> list[str]:
    urls = {name: given.get(name) for name in ("cluster_http_proxy", "cluster_https_proxy")}
    exceptions = {"cluster_proxy_exceptions": given.get("cluster_proxy_exceptions")}
    for name in OF_PODS:
        proxy = given.get(name)
        if isinstance(proxy, dict):
            urls |= {f"{name}.{scheme}": proxy.get(scheme) for scheme in ("http", "https")}
            exceptions[f"{name}.no_proxy"] = proxy.get("no_proxy")
    wrong: dict[str, str] = {}
    for name, url in urls.items():
        # Most follow others: said once, of the one that they follow.
        if url and not PROXY.fullmatch(str(url)):
            wrong.setdefault(
                str(url),
                f"{name}: not the URL of a proxy; allowed is http://HOST:PORT or "
                "http://USER:PASSWORD@HOST:PORT, with %40 for an @ in the password and so on, or empty",
            )
    written = given.get("cluster_proxy_exceptions") or []
    computed = [item for item in given.get("cluster_no_proxy") or [] if item not in written]
    for name, items in exceptions.items():
        for index, item in enumerate(items if isinstance(items, list) else []):
            if item not in computed and not is_address(str(item)) and not EXCEPTION.fullmatch(str(item)):
                wrong.setdefault(
                    str(item),
                    f"{name}[{index}]: {item!r}; allowed are a name, .SUFFIX, an address, a network",
                )
    return list(wrong.values())


def _bastion(given: Variables) -> list[str]:
    wrong = []
    if (name := str(given.get("cluster_bastion") or "")) and not BASTION.fullmatch(name):
        wrong.append(f"cluster_bastion: {name!r}; allowed is [USER@]HOST[:PORT], or empty")
    try:
        shlex.split(str(given.get("cluster_bastion_arguments") or ""))
    except ValueError as error:
        wrong.append(f"cluster_bastion_arguments: {error}; allowed are words for ssh, or empty")
    return wrong


def _authorities(given: Variables) -> list[str]:
    text = str(given.get("cluster_authorities") or "")
    if not text:
        return []
    try:
        found = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        return ["cluster_authorities: not certificates; allowed is PEM text, or empty"]
    if len(found) > MOST_AUTHORITIES:
        return [f"cluster_authorities: {len(found)} certificates; allowed are {MOST_AUTHORITIES}"]
    return []


def _accounts(given: Variables) -> list[str]:
    wrong = []
    for name, account in (given.get("image_registry_credentials") or {}).items():
        place = f"image_registry_credentials.{name}"
        if not REGISTRY.fullmatch(str(name)):
            wrong.append(f"{place}: not a registry; allowed is HOST or HOST:PORT, such as docker.io")
        elif not isinstance(account, dict) or set(account) != {"username", "password"}:
            wrong.append(f"{place}: allowed is a mapping of username and password")
        elif not all(str(value) for value in account.values()) or ":" in str(account["username"]):
            wrong.append(f"{place}: allowed are a username without a colon, and a password")
    return wrong
