"""Judge the whole input on the controller, before the first connection: every mistake in one go."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError

from quote_platform.validation import choices, hosts, specs

Variables = dict[str, Any]

# Roles that are handed all they need by others.
INTERNAL = ("component", "node_files")
# Meant for -e NAME=true; their playbooks convert the text.
CONVERTED = {"verify_intrusive"}
# Of a host that is reached, besides ansible_host.
CONNECTION = re.compile(r"ansible_(host|port|user|password|connection|python_interpreter|(ssh|become)_\w+)")
# Why a value cannot be resolved: it cannot be decrypted, or needs what only the node itself knows.
ENCRYPTED = re.compile(r"decrypt", re.IGNORECASE)
OF_A_NODE = re.compile(r"ansible_facts|'ansible_\w+' is undefined")


@dataclass(frozen=True)
class Input:
    """What Ansible knows when a run begins."""

    project: Path
    groups: dict[str, list[str]]
    # Of each host, as written: templates are not resolved yet.
    raw: dict[str, Variables]
    # Returns what resolves the templates in a value by these variables.
    templar: Callable[[Variables], Callable[[Any], Any]]
    # Names of what was given with -e, which wins over all else.
    extra: frozenset[str]
    # What templates may ask for beside the host's own variables.
    hostvars: Any = None


def judge(given: Input, together: bool = True) -> list[str]:
    """Return every mistake, as a line that names what is allowed; on request of each value alone."""
    known = specs.load(given.project / "roles")
    defaults = specs.defaults(given.project / "roles")
    machines = hosts.machines(given.groups)
    resolved = {host: _Values(given, host, known, defaults) for host in machines}
    if not together:
        return list(dict.fromkeys(line for values in resolved.values() for line in values.wrong))
    first = resolved[machines[0]].given if machines else {}
    schedulable = first.get("control_plane_schedulable", False)
    wrong = hosts.groups(given.groups, first.get("validate_own_groups", []))
    wrong += hosts.shape(given.groups, schedulable)
    masters = given.groups.get("control_plane", [])
    if not masters:
        return wrong  # without it most values have no meaning

    addresses = {host: values.given.get("ansible_host") for host, values in resolved.items()}
    wrong += hosts.addresses(addresses)
    names = {name for host in machines for name in given.raw[host]}
    wrong += specs.misspelt(names, known)
    wrong += [
        f"{name}: {playbook} sets it by itself, and what an inventory says has no effect; delete it there"
        for name, playbook in specs.by_playbooks(given.project).items()
        if name in names - given.extra and any(name in options for options in known.values())
    ]
    nodes = len(given.groups.get("workers", [])) + (len(masters) if schedulable else 0)
    for host, values in resolved.items():
        wrong += values.wrong
        wrong += choices.placeholders(values.given)
        if host in given.groups.get("object_store", []) + given.groups.get("vault", []):
            continue
        all_values = values.with_defaults()
        wrong += choices.versions(values.given)
        wrong += hosts.node_ips(values.given)
        wrong += hosts.endpoint(values.given, masters, addresses)
        wrong += choices.urls(all_values)
        wrong += choices.names(all_values)
        wrong += choices.schedules(all_values)
        wrong += choices.parameters(all_values)
        wrong += choices.scale(all_values, nodes)
        wrong += choices.accounts(all_values)
        wrong += choices.issuers(all_values)
        wrong += choices.receivers(all_values)
        wrong += choices.vault(all_values, given.groups.get("vault", []))
        wrong += choices.delivery(all_values)
        wrong += choices.logs(all_values)
        wrong += choices.metrics(all_values)
        wrong += hosts.networks(values.given, addresses)
        wrong += stranger(values.given)
    return list(dict.fromkeys(wrong))


def stranger(given: Variables) -> list[str]:
    """Return whether the kept kubeconfig is another cluster's, which a copied inventory would overwrite."""
    kept = Path(given.get("cluster_kubeconfig") or "")
    if not kept.is_file() or "cluster_endpoint" not in given:
        return []
    try:
        server = yaml.safe_load(kept.read_text())["clusters"][0]["cluster"]["server"]
    except (yaml.YAMLError, LookupError, TypeError):
        return [f"cluster_kubeconfig: {kept} cannot be read; remove it, and it is fetched again"]
    endpoint = given["cluster_endpoint"]
    if server == f"https://{endpoint}":
        return []
    return [
        f"cluster_name: {given.get('cluster_name')} is taken: {kept} is for {server}, not for "
        f"cluster_endpoint {endpoint}; choose another name, or move {kept.parent} away if that cluster "
        "is gone"
    ]


class _Values:
    """The values of a host's variables that can be known now, and what is wrong with each of them alone."""

    def __init__(self, given: Input, host: str, known: dict[str, specs.Options], defaults: Variables) -> None:
        raw = given.raw[host]
        self.wrong: list[str] = []
        self._refused: set[str] = set()
        self.given: Variables = {}
        context = {"hostvars": given.hostvars, "groups": given.groups, "inventory_hostname": host}
        self._defaults, self._context = defaults, defaults | raw | context
        self._template = given.templar(self._context)
        options = {name: option for role in known.values() for name, option in role.items()}
        for name in sorted(map(str, raw)):
            if name in options or CONNECTION.fullmatch(name):
                self._resolve(name, options.get(name))
        unused = {"ingress-nginx": "traefik", "traefik": "ingress_nginx"}.get(
            str(self.given.get("ingress_controller"))
        )
        for role, its in known.items():
            if role not in {unused, *INTERNAL}:
                self.wrong += specs.missing(role, its, self.given | dict.fromkeys(self._refused, True))

    def with_defaults(self) -> Variables:
        """Return the values with what the roles choose for the rest."""
        found = self.given.copy()
        for name in sorted(set(self._defaults) - set(found)):
            try:
                found[name] = self._value(self._defaults[name])
            except AnsibleError:
                continue  # it needs what only a play or the node itself knows
        return found

    def _value(self, value: Any) -> Any:
        return plain(self._template(value))

    def _resolve(self, name: str, option: Variables | None) -> None:
        """Keep a value that can be resolved and is of its type, else what is wrong with it."""
        try:
            value = self._value(self._context[name])
        except AnsibleError as error:
            reason = str(error.message or type(error).__name__).splitlines()[0]
            if ENCRYPTED.search(reason) or not OF_A_NODE.search(f"{reason} {self._context[name]}"):
                self.wrong.append(f"{name}: {cause(reason)}")
                self._refused.add(name)
            return
        wrong = specs.judge(name, option, value) if option and name not in CONVERTED else []
        self.wrong += wrong
        if wrong:
            self._refused.add(name)
        else:
            self.given[name] = value


def cause(reason: str) -> str:
    """Return why a value cannot be resolved, and what to do."""
    if ENCRYPTED.search(reason):
        return "cannot be decrypted; give its password with --vault-password-file or --ask-vault-pass"
    if "is undefined" in reason:
        return f"cannot be resolved: {reason}; define it, or write !unsafe before a value that is no template"
    return f"cannot be resolved: {reason}; write !unsafe before a value with {{{{ or {{% that is no template"


def plain(value: Any) -> Any:
    """Return a value without what Ansible attaches to it."""
    if isinstance(value, dict):
        return {plain(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return value if kind is bool else kind(value)
    return value
