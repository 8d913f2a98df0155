"""What the nodes have said of themselves: every node and every fault in one go."""

from __future__ import annotations

import ipaddress
from typing import Any

Variables = dict[str, Any]


def judge(host: str, facts: Variables, probe: Variables, bounds: Variables) -> list[str]:
    """Return what is wrong with one node."""
    if facts.get("unreachable"):
        return [f"{host}: cannot be reached over SSH: {first_line(facts)}; try `ssh {host}`, then run again"]
    if facts.get("failed"):
        text = first_line(facts)
        hint = "install python3 on it" if "python" in text.lower() else "see the line above"
        return [f"{host}: cannot be asked: {text}; {hint}, then run again"]
    known = facts["ansible_facts"]
    wrong = []
    name, version = known["ansible_distribution"], known["ansible_distribution_version"]
    # Debian's versions have a third place, Ubuntu's do not.
    if not any(version == one or version.startswith(f"{one}.") for one in bounds["supported"].get(name, [])):
        allowed = ", ".join(f"{n} {v}" for n, all_of in bounds["supported"].items() for v in all_of)
        wrong.append(f"{host}: {name} {version} is not supported; allowed are {allowed}")
    if known["ansible_architecture"] not in bounds["architectures"]:
        wrong.append(
            f"{host}: {known['ansible_architecture']}; allowed are {', '.join(bounds['architectures'])}"
        )
    for what, found, least in (
        ("CPUs", int(known["ansible_processor_vcpus"]), bounds["min_cpus"]),
        ("MB of memory", int(known["ansible_memtotal_mb"]), bounds["min_memory_mb"]),
        (f"GB of free disk below {probe['folder']}", int(probe["disk_gb"]), bounds["min_disk_gb"]),
    ):
        if found < least:
            wrong.append(f"{host}: {found} {what}; at least {least} are needed")
    # In between lie the asking and the answer, and on a busy machine seconds.
    skew = max(probe["asked"] - probe["time"], probe["time"] - probe["answered"])
    if skew > bounds["max_clock_skew"]:
        allowed = bounds["max_clock_skew"]
        wrong.append(f"{host}: its clock is {skew:.0f} s off, allowed are {allowed}: start its time service")
    wrong += [
        f"{host}: {name} listens on port {port}, "
        f"which {probe['ports'][port]} needs; stop it, or choose another"
        for port, name in probe["taken"].items()
    ]
    wrong += unreached(host, probe["away"])
    return wrong


def unreached(host: str, away: dict[str, str]) -> list[str]:
    """Return which addresses a machine does not reach, and why."""
    return [
        f"{host}: {url} cannot be reached from it: {reason}; check the network, its proxy, or the URL"
        for url, reason in away.items()
    ]


def changed(host: str, probe: Variables, asked: Any) -> list[str]:
    """Return what is asked for otherwise than the cluster stands with."""
    return [
        f"{host}: its cluster was built with {name} {value}, not {asked[name]}, and it cannot be changed "
        f"afterwards; set it to {value}, or build another cluster"
        for name, value in (probe.get("lasting") or {}).items()
        if asked[name] != value
    ]


def first_line(facts: Variables) -> str:
    """Return the cause in a few words."""
    text = str(facts.get("module_stderr") or facts.get("msg") or "no answer").strip()
    return text.splitlines()[0][:200] if text else "no answer"


def twins(probes: dict[str, Variables]) -> list[str]:
    """Return which nodes are copies that were never given an identity of their own."""
    seen: dict[str, str] = {}
    wrong = []
    for host, probe in probes.items():
        identity = probe.get("machine_id")
        if identity and identity in seen:
            wrong.append(
                f"{host}: has the machine-id of {seen[identity]}; on it, run `rm -f /etc/machine-id "
                "/var/lib/dbus/machine-id && systemd-machine-id-setup`, and restart it"
            )
        elif identity:
            seen[identity] = host
    return wrong


def network_of(known: Variables, address: str) -> ipaddress.IPv4Network | None:
    """Return the network in which a machine has an address, from its facts."""
    for fact in known.values():
        if not isinstance(fact, dict) or "device" not in fact:
            continue
        for one in [fact.get("ipv4") or {}, *(fact.get("ipv4_secondaries") or [])]:
            if one.get("address") == address:
                return ipaddress.IPv4Network(f"{address}/{one['netmask']}", strict=False)
    return None


def own_address(known: Variables, given: Variables) -> tuple[str, str]:
    """Return the address of a node in its cluster, empty if nothing says it, and the variable for it."""
    name = f"{'control_plane' if 'control_plane' in given.get('group_names', []) else 'worker'}_node_ip"
    default = (known.get("ansible_default_ipv4") or {}).get("address")
    return str(given.get(name) or default or "").split(",", maxsplit=1)[0], name


def addressed(host: str, known: Variables, given: Variables) -> list[str]:
    """Return what is wrong with the address by which a cluster is to know a node."""
    if "ansible_default_ipv4" not in known:
        return []
    own, name = own_address(known, given)
    if not own:
        reason = "has no default route, by which its address in the cluster is found"
    elif network_of(known, own) is None:
        reason = f"none of its interfaces has {own}"
    else:
        return []
    return [f"{host}: {reason}; set {name} to an address that it has, in the network of the nodes"]


def ends(network: ipaddress.IPv4Network) -> set[str]:
    """Return the addresses of a network that no machine has."""
    return {str(network.network_address), str(network.broadcast_address)}


def virtual_address(hosts: list[str], hostvars: Any) -> list[str]:
    """Return what is wrong with the address that control planes share, from what they have said."""
    wrong, stands, answers = [], False, dict[str, str]()
    for host in hosts:
        known = (hostvars[host].get("validate_facts") or {}).get("ansible_facts") or {}
        probe = hostvars[host].get("validate_probe") or {}
        address = probe.get("virtual_address")
        if not address or "ansible_default_ipv4" not in known:
            continue
        own, _ = own_address(known, hostvars[host])
        network, held = network_of(known, own), network_of(known, address)
        if network and (address in ends(network) or ipaddress.ip_address(address) not in network):
            wrong.append(
                f"{host}: api_endpoint_address {address} lies outside of its network {network}; allowed is a "
                "free address of a network that all control planes share"
            )
        if held and held.prefixlen < 32:
            wrong.append(f"{host}: api_endpoint_address {address} is its own; allowed is a free address")
        # Once it is built, it is one of them that answers.
        stands = stands or bool(held or probe.get("lasting"))
        if probe.get("answered_by"):
            answers[host] = probe["answered_by"]
    if answers and not stands:
        host, link = next(iter(answers.items()))
        wrong.append(
            f"api_endpoint_address: {address} is taken: {link} answers for it, as {host} sees; allowed is a "
            "free address"
        )
    return wrong


def judge_all(hosts: list[str], hostvars: Any, bounds: Variables) -> list[str]:
    """Return every fault of every machine, from what role validate has registered on it.

    Those in `own` of the bounds, hosts with bounds of their own, are no nodes.
    """
    probes, wrong = {}, []
    for host in hosts:
        facts = hostvars[host].get("validate_facts") or {"unreachable": True}
        probe = hostvars[host].get("validate_probe") or {}
        if not facts.get("failed") and not facts.get("unreachable") and "time" not in probe:
            facts = {"failed": True, "msg": probe.get("msg") or "it gave no answer"}
        else:
            probes[host] = probe
            probe = probe | {"answered": float(hostvars[host].get("validate_answered") or 0)}
        wrong += judge(host, facts, probe, bounds | bounds.get("own", {}).get(host, {}))
        wrong += changed(host, probe, hostvars[host])
        if host not in bounds.get("own", {}):
            wrong += addressed(host, facts.get("ansible_facts") or {}, hostvars[host])
    return wrong + twins(probes)
