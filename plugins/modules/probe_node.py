"""Read from a node what there is no fact for; changes nothing."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import re
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode, urlsplit

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: probe_node
short_description: Read a node's clock, identity, free disk, cluster, and which addresses it reaches
description:
  - Read what there is no fact for. Changes nothing.
options:
  urls:
    type: list
    elements: str
    default: []
    description:
      - What it must reach besides those from which it fetches packages and images, through O(proxies), or
        where there is none through a proxy that the environment names. Any HTTP answer counts, but for what a
        proxy says of a server that it does not reach.
  proxies: {type: dict, default: {}, description: URL of the proxy for each scheme.}
  no_proxy:
    type: list
    elements: str
    default: []
    description: What is reached without it; names, suffixes that begin with a dot, addresses, networks.
  authorities:
    type: str
    default: ""
    description: Certificates of authorities, as PEM, that it trusts beside those that it knows.
  accounts:
    type: dict
    default: {}
    description: Those of O(urls) that are registries with an account, each with USER:PASSWORD.
  timeout: {type: int, default: 5, description: Seconds for all of them; they are asked side by side.}
  folder: {type: str, default: /var, description: Where free disk is looked for; it need not be there yet.}
  ports:
    type: dict
    default: {}
    description: TCP ports that must be free, each with the name of the process that may have it.
  virtual_address:
    type: str
    default: ""
    description: Address of its network that nobody may have yet.
  asked: {type: float, default: 0, description: The controller's clock when it asks; returned as it is.}
author: [Quote Platform]
"""
RETURN = """
time: {type: float, returned: always, description: The node's clock.}
asked: {type: float, returned: always, description: What was given as O(asked).}
machine_id: {type: str, returned: always, description: The node's identity; empty where it has none.}
lasting: {type: dict, returned: always, description: Variables that its cluster cannot change any more.}
disk_gb: {type: int, returned: always, description: Free space below O(folder) in GB.}
folder: {type: str, returned: always, description: What was given as O(folder).}
ports: {type: dict, returned: always, description: What was given as O(ports).}
taken: {type: dict, returned: always, description: "Those of O(ports) that another process has; its name."}
virtual_address: {type: str, returned: always, description: What was given as O(virtual_address).}
answered_by: {type: str, returned: always, description: Link address of another machine that has it.}
away: {type: dict, returned: always, description: "Those of O(urls) that do not answer, with the reason."}
"""

SPEC: dict[str, Any] = {
    "urls": {"type": "list", "elements": "str", "default": []},
    "proxies": {"type": "dict", "default": {}, "no_log": True},
    "no_proxy": {"type": "list", "elements": "str", "default": []},
    "authorities": {"type": "str", "default": ""},
    "accounts": {"type": "dict", "default": {}, "no_log": True},
    "timeout": {"type": "int", "default": 5},
    "folder": {"type": "str", "default": "/var"},
    "ports": {"type": "dict", "default": {}},
    "virtual_address": {"type": "str", "default": ""},
    "asked": {"type": "float", "default": 0},
}
CONTROLLER_MANAGER = "etc/kubernetes/manifests/kube-controller-manager.yaml"
# What cannot change of a cluster that stands: where a node has it written.
LASTING = {
    "cluster_pod_cidr": (CONTROLLER_MANAGER, r"--cluster-cidr=(\S+)"),
    "cluster_service_cidr": (CONTROLLER_MANAGER, r"--service-cluster-ip-range=(\S+)"),
    "cluster_dns_domain": ("var/lib/kubelet/config.yaml", r"(?m)^clusterDomain: (\S+)"),
}


def lasting(root: Path) -> dict[str, str]:
    """Return what a node knows of it; nothing, if it is in no cluster."""
    found = {}
    for name, (file, pattern) in LASTING.items():
        match = re.search(pattern, (root / file).read_text()) if (root / file).is_file() else None
        if match:
            found[name] = match[1].strip("'\"")
    return found


class AsItIs(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: that is an answer."""

    def redirect_request(self, *_: Any) -> None:
        """Leave it."""


def direct(host: str, no_proxy: list[str]) -> bool:
    """Tell whether a host is reached without a proxy, as programs written in Go understand the list."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return any(host == one or (one.startswith(".") and host.endswith(one)) for one in no_proxy)
    for one in no_proxy:
        try:
            if address in ipaddress.ip_network(one, strict=False):
                return True
        except ValueError:
            continue
    return False


def refusal(url: str, timeout: int, handlers: list[Any], account: str) -> str:
    """Return why an address does not answer, or does not take an account; or nothing."""
    opener = urllib.request.build_opener(AsItIs, *handlers)
    known = {"Authorization": f"Basic {base64.b64encode(account.encode()).decode()}"} if account else {}
    reason = ""
    try:
        opener.open(urllib.request.Request(url, headers=known), timeout=timeout)  # noqa: S310 (judged before)
    except urllib.error.HTTPError as error:
        # With these a proxy answers for a server that it does not reach, or does not serve us.
        if error.code in (407, 502, 503, 504):
            reason = f"HTTP {error.code}"
        elif account and error.code == 401:
            reason = denied(opener, error.headers.get("WWW-Authenticate", ""), known, timeout)
    except urllib.error.URLError as error:
        reason = str(error.reason)
    except (OSError, ValueError) as error:
        reason = str(error)
    if " 407" in reason or "Tunnel connection failed: 401" in reason:
        return "the proxy refuses the user and password"
    return reason


def denied(opener: Any, asked: str, known: dict[str, str], timeout: int) -> str:
    """Return why a registry that wants to know who asks does not take an account, or nothing."""
    refused = "the registry refuses the user and password of image_registry_credentials"
    if not asked.lower().startswith("bearer"):
        return refused
    words = dict(re.findall(r'(\w+)="([^"]*)"', asked))  # a token is fetched elsewhere, with the account
    realm = words.get("realm", "")
    if not realm.startswith("https://"):
        return ""
    where = f"{realm}?{urlencode({'service': words.get('service', '')})}"
    try:
        opener.open(urllib.request.Request(where, headers=known), timeout=timeout)  # noqa: S310 (it is https)
    except urllib.error.HTTPError as error:
        return refused if error.code in (401, 403) else ""
    except (OSError, ValueError) as error:
        return f"{realm}: {error}"
    return ""


def unreached(given: dict[str, Any]) -> dict[str, str]:
    """Return which addresses do not answer in time, and why."""
    said: dict[str, str] = {}
    urls, timeout, proxies = given["urls"], given["timeout"], given["proxies"]
    trusted = ssl.create_default_context()
    if given["authorities"]:
        trusted.load_verify_locations(cadata=given["authorities"])

    def ask(url: str) -> None:
        handlers: list[Any] = [urllib.request.HTTPSHandler(context=trusted)]
        if proxies:
            past = direct(urlsplit(url).hostname or "", given["no_proxy"])
            handlers.append(urllib.request.ProxyHandler({} if past else proxies))
        said[url] = refusal(url, timeout, handlers, given["accounts"].get(url, ""))

    # Nothing bounds the search for a name, so the threads end with the module, whatever they wait for.
    threads = [Thread(target=ask, args=[url], daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    end = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))
    reasons = {url: said.get(url, f"no answer in {timeout} s") for url in urls}
    return {url: reason for url, reason in reasons.items() if reason}


def listening(port: int) -> set[str]:
    """Return the inodes of the sockets that listen on a TCP port, of any address."""
    found = set()
    for table in ("tcp", "tcp6"):
        file = Path("/proc/net") / table
        for line in file.read_text().splitlines()[1:] if file.is_file() else []:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


def owner(inodes: set[str]) -> str:
    """Return the name of the process that has one of the sockets; root sees those of others."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(one.readlink()) in wanted for one in (process / "fd").iterdir()):
                return (process / "comm").read_text().strip()
        except OSError:
            continue  # it has ended, or is not ours to see
    return "another process"


def taken(ports: dict[str, str]) -> dict[str, str]:
    """Return which ports another process than the named one has, and its name."""
    owners = {port: owner(inodes) for port in ports if (inodes := listening(int(port)))}
    return {port: name for port, name in owners.items() if name != ports[port]}


def answered_by(address: str, seconds: float = 10) -> str:
    """Return the link address of the other machine that has an address of this network, or nothing."""
    if not address:
        return ""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as asking:
            asking.settimeout(4)  # a search for nobody takes three
            asking.connect_ex(
                (address, 9)
            )  # whatever the port says: the kernel has to know whose the address is
        shown = subprocess.run(
            ["ip", "-json", "-4", "neighbour", "show", "to", address],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        found = (json.loads(shown or "[]") or [{}])[0]
        state = (found.get("state") or ["NONE"])[0]
        # Of one that it knew before, the kernel first asks again.
        if state not in {"STALE", "DELAY", "PROBE", "INCOMPLETE"}:
            return str(found.get("lladdr", "")) if state in {"REACHABLE", "PERMANENT"} else ""
        time.sleep(0.5)
    return ""


def existing(folder: Path) -> Path:
    """Return a folder, or the nearest that is there and that it will be in."""
    return next(one for one in (folder, *folder.parents) if one.exists())


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    away = unreached(module.params)
    disk = os.statvfs(existing(Path(module.params["folder"])))
    identity = Path("/etc/machine-id")
    module.exit_json(
        changed=False,
        time=time.time(),
        asked=module.params["asked"],
        machine_id=identity.read_text().strip() if identity.is_file() else "",
        lasting=lasting(Path("/")),
        disk_gb=disk.f_bavail * disk.f_frsize // 10**9,
        folder=module.params["folder"],
        ports=module.params["ports"],
        taken=taken(module.params["ports"]),
        virtual_address=module.params["virtual_address"],
        answered_by=answered_by(module.params["virtual_address"]),
        away=away,
    )


if __name__ == "__main__":
    main()
