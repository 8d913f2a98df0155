"""The inventory's groups and hosts, their addresses, the networks and the API server's address."""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import ipaddress
import re
from collections.abc import Mapping
from typing import Any

Variables = dict[str, Any]
Groups = dict[str, list[str]]

# Groups in which a host has a purpose.
PURPOSES = ("control_plane", "workers", "object_store", "vault")
OURS = (*PURPOSES, "kube_nodes", "platform", "all", "ungrouped")
# What others call them, in letters that are not near.
ELSEWHERE = {
    "masters": "control_plane",
    "master": "control_plane",
    "controllers": "control_plane",
    "servers": "control_plane",
    "agents": "workers",
    "minions": "workers",
    "cluster": "kube_nodes",
    "s3": "object_store",
    "minio": "object_store",
}
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_NAME = re.compile(rf"(?=.{{1,253}}$){NAME.pattern}(\.{NAME.pattern})*")
# What listens on a control plane besides its HAProxy; docs/ports.md has what each is.
PORTS = [22, 179, 2379, 2380, 2381, 2382, 6443, 9100, 9101, 10248, 10249, 10250, 10256, 10257, 10259]
PORTS += [20241, 20244, 50051]
NODE_PORTS = range(30000, 32768)
# For examples in documents (RFC 5737); no machine has them.
EXAMPLES = [ipaddress.ip_network(text) for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]


def strangers(found: Groups, own: list[str]) -> list[str]:
    """Return which groups are not ours."""
    wrong = []
    for name in sorted(set(found) - set(OURS)):
        if any(fnmatch.fnmatch(name, pattern) for pattern in own):
            continue
        near = ELSEWHERE.get(name) or difflib.get_close_matches(name, OURS[:6], n=1, cutoff=0)[0]
        wrong.append(
            f"{name}: not a group of the platform; did you mean {near}? A group of your own is named in "
            "validate_own_groups"
        )
    return wrong


def unmatched(found: Groups, own: list[str]) -> list[str]:
    """Return why plays of any playbook would match no host."""
    wrong = strangers(found, own)
    if not found.get("control_plane"):
        wrong.append("control_plane: the group has no hosts, and without one there is no cluster")
    return wrong


def groups(found: Groups, own: list[str]) -> list[str]:
    """Return which groups are not ours, and which hosts lie outside of ours."""
    wrong = strangers(found, own)
    placed = {host for group in PURPOSES for host in found.get(group, [])}
    placed |= {
        host
        for name, hosts in found.items()
        for host in hosts
        if name not in OURS and any(fnmatch.fnmatch(name, pattern) for pattern in own)
    }
    for host in sorted(set(found["all"]) - placed - {"localhost"}):
        wrong.append(f"{host}: is in none of the groups {', '.join(PURPOSES)}; add it to one, or remove it")
    nodes = set(found.get("control_plane", [])) | set(found.get("workers", []))
    lost = sorted(nodes - set(found.get("kube_nodes", [])))
    if lost:
        wrong.append(
            f"kube_nodes: the group lacks {', '.join(lost)}; control_plane and workers must be its children"
        )
    return wrong


def shape(found: Groups, allow_no_workers: bool) -> list[str]:
    """Return what is wrong with the numbers, the names and the purposes of hosts."""
    masters, workers = found.get("control_plane", []), found.get("workers", [])
    wrong = []
    if len(masters) not in (1, 3):
        wrong.append(f"control_plane: the group has {len(masters)} hosts; allowed are 1 or 3")
    if not workers and not allow_no_workers:
        wrong.append(
            "workers: the group has no host; at least 1 is needed, or control_plane_schedulable: true"
        )
    for host in sorted(set(masters) & set(workers)):
        wrong.append(f"{host}: is in control_plane and in workers; a host has one role")
    vaults = found.get("vault", [])
    if len(vaults) not in (0, 1, 3):
        wrong.append(f"vault: the group has {len(vaults)} hosts; allowed are 1 or 3, or none")
    for host in sorted(set(vaults) & {*masters, *workers, *found.get("object_store", [])}):
        wrong.append(f"{host}: is in vault and in another group; a host of Vault runs nothing else")
    for host in machines(found):
        if not NAME.fullmatch(host):
            wrong.append(f"{host}: not a node's name; allowed are up to 63 of a-z, 0-9 and - (RFC 1123)")
    return wrong


def machines(found: Groups) -> list[str]:
    """Return every host that has a purpose, nodes first."""
    return list(dict.fromkeys(host for group in PURPOSES for host in found.get(group, [])))


def is_address(text: str) -> bool:
    """Tell whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_example(text: str) -> bool:
    """Tell whether a text is an address that documents have for examples."""
    return is_address(text) and any(ipaddress.ip_address(text) in network for network in EXAMPLES)


def has_ipv6(text: str) -> bool:
    """Tell whether one of the addresses or networks in a text, with commas between them, is of IPv6."""
    for part in text.split(","):
        with contextlib.suppress(ValueError):
            if ipaddress.ip_interface(part.strip().strip("[]")).version == 6:
                return True
    return False


def not_reachable(address: str) -> str:
    """Return why other machines cannot reach an address, or nothing."""
    if has_ipv6(address):
        return "is an IPv6 address, which the platform does not support yet"
    if not is_address(address):
        if re.fullmatch(r"[\d.]+", address):
            return "is not an IP address"
        if address.lower() in ("localhost", "localhost.localdomain"):
            return "is a loopback address"
        return "" if DNS_NAME.fullmatch(address.lower()) else "is not a DNS name"
    known = ipaddress.ip_address(address)
    for fits, reason in (
        (known.is_unspecified, "is the unspecified address"),
        (known.is_loopback, "is a loopback address"),
        (known.is_multicast, "is a multicast address"),
        (known.is_link_local, "is a link-local address"),
        (known.is_reserved, "is a reserved address"),
        (is_example(address), "is reserved for examples in documentation (RFC 5737)"),
    ):
        if fits:
            return reason
    return ""


def addresses(known: dict[str, Any]) -> list[str]:
    """Return what is wrong with each machine's ansible_host."""
    seen: dict[str, str] = {}
    wrong = []
    for host, value in known.items():
        address = str(value or "")
        if not address:
            wrong.append(f"{host}: ansible_host is not set; allowed is an IPv4 address or a DNS name")
            continue
        hint = ""
        if not is_address(address.strip("[]")):
            if "://" in address:
                hint = ", without a scheme"
            elif "@" in address:
                hint = "; the user belongs to ansible_user"
            elif re.search(r":\d+$", address):
                hint = "; the port belongs to ansible_port"
        reason = not_reachable(address.strip("[]"))
        if reason:
            wrong.append(
                f"{host}: ansible_host {address} {reason}; allowed is an IPv4 address or a DNS name{hint}"
            )
        elif address in seen:
            wrong.append(
                f"{host}: ansible_host {address} is that of {seen[address]} as well; each host needs its own"
            )
        seen.setdefault(address, host)
    return wrong


def node_ips(given: Variables) -> list[str]:
    """Return what is wrong with the addresses that nodes have inside the cluster, where they are chosen."""
    wrong = []
    for name in ("control_plane_node_ip", "worker_node_ip"):
        address = str(given.get(name, ""))
        reason = not_reachable(address) or ("" if is_address(address) else "is not an IP address")
        if name in given and reason:
            wrong.append(f"{name}: {address} {reason}; allowed is an IPv4 address")
    return wrong


def networks(given: Variables, known: dict[str, Any]) -> list[str]:
    """Return what is wrong with the networks."""
    wrong, found = [], _networks(given)
    for name in ("cluster_pod_cidr", "cluster_service_cidr"):
        if name not in given:
            continue
        if has_ipv6(str(given[name])):
            wrong.append(
                f"{name}: {given[name]} is IPv6, which the platform does not support yet; allowed is for "
                "example 10.244.0.0/16"
            )
            found.pop(name, None)
        elif name not in found:
            wrong.append(f"{name}: {given[name]!r} is not a network; allowed is for example 10.244.0.0/16")
    if len(found) == 2 and found["cluster_pod_cidr"].overlaps(found["cluster_service_cidr"]):
        wrong.append("cluster_pod_cidr: overlaps cluster_service_cidr; they must not overlap")
    for name, least in (("cluster_pod_cidr", 22), ("cluster_service_cidr", 24)):
        if name in found and found[name].prefixlen > least:
            wrong.append(f"{name}: /{found[name].prefixlen} is too small; allowed is at most /{least}")
    for host, address in known.items():
        for name, network in found.items():
            if is_address(str(address)) and ipaddress.ip_address(str(address)) in network:
                wrong.append(
                    f"{host}: ansible_host {address} lies in {name} {network}; nodes must lie outside of it"
                )
    return wrong


def _networks(given: Mapping[str, Any]) -> dict[str, ipaddress.IPv4Network | ipaddress.IPv6Network]:
    found = {}
    for name in ("cluster_pod_cidr", "cluster_service_cidr"):
        try:
            found[name] = ipaddress.ip_network(str(given.get(name)))
        except ValueError:
            continue
    return found


def endpoint(given: Variables, masters: list[str], known: dict[str, Any]) -> list[str]:
    """Return what is wrong with the address of the API server."""
    if "cluster_endpoint" not in given:
        return []
    text = str(given["cluster_endpoint"])
    match = re.fullmatch(r"(\S+):(\d{1,5})", text)
    if "://" in text or not match or not 0 < int(match[2]) < 65536:
        return [f"cluster_endpoint: {text!r} is not HOST:PORT, such as 10.0.0.10:6443"]
    host = match[1]
    reason = not_reachable(host.strip("[]"))
    if not reason and host != host.lower():
        reason = "has capitals, which Kubernetes refuses"
    for name, network in _networks(given).items():
        if is_address(host) and ipaddress.ip_address(host) in network:
            reason = f"lies in {name} {network}, which only pods reach"
    if reason and host in map(str, known.values()):
        return []  # said of the host already
    if reason:
        return [f"cluster_endpoint: {host} {reason}; allowed is an IPv4 address or a DNS name, and a port"]
    # The control planes' own address has more that is asked of it.
    shared = len(masters) > 1 and given.get("api_endpoint") != "virtual-ip"
    for master in masters if shared else []:
        if host in (master, str(known.get(master))):
            return [
                f"cluster_endpoint: {text} is {master}, one of {len(masters)} control planes, and goes away "
                "with it; set it to the address of a TCP load balancer in front of port 6443 of all of them, "
                "or set api_endpoint: virtual-ip and it to a free address of theirs"
            ]
    return []


def virtual_address(given: Mapping[str, Any], known: dict[str, Any]) -> list[str]:
    """Return what is wrong with the address that the control planes hand on among themselves."""
    if given.get("api_endpoint") != "virtual-ip":
        return []
    name, address = "api_endpoint_address", str(given.get("api_endpoint_address") or "")
    allowed = "allowed is a free IPv4 address of the control planes' network"
    reason = not_reachable(address) or ("" if is_address(address) else "is not an IP address")
    if not reason:
        for what, network in _networks(given).items():
            if ipaddress.ip_address(address) in network:
                reason = f"lies in {what} {network}"
    for host, own in known.items():
        if address == str(own):
            reason = f"is that of {host}"
    for what in ("control_plane_node_ip", "worker_node_ip"):
        if address in str(given.get(what) or "").split(","):
            reason = f"is {what}"
    wrong = (
        [f"{name}: {address} {reason}; {allowed}, by default the host of cluster_endpoint"] if reason else []
    )
    port = given.get("api_endpoint_port")
    taken = {*PORTS, *((80, 443) if given.get("control_plane_schedulable") else ())}
    if port in taken or port in NODE_PORTS:
        wrong.append(
            f"api_endpoint_port: {port} is used by something else on control planes; allowed is any but "
            f"{', '.join(map(str, sorted(taken)))} and 30000 to 32767, such as 8443, by default that of "
            "cluster_endpoint"
        )
    return wrong
