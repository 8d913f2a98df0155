"""Judge the whole input on the controller, before the first connection: every mistake in one go."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ansible import constants
from ansible.errors import AnsibleError

from quote_platform import components
from quote_platform.validation import admission, choices, databases, gitops, hosts, labels, outbound, specs

Variables = dict[str, Any]

# Roles that are handed all they need by others.
INTERNAL = ("component", "node_files")
# Meant for -e NAME=true; their playbooks convert the text.
CONVERTED = {"verify_intrusive"}
# Of a host that is reached, besides ansible_host.
CONNECTION = re.compile(r"ansible_(host|port|user|password|connection|python_interpreter|(ssh|become)_\w+)")
# Why a value cannot be resolved: it cannot be decrypted, or needs what only a play or the node itself knows.
ENCRYPTED = re.compile(r"decrypt", re.IGNORECASE)
OF_A_RUN = {*constants.INTERNAL_STATIC_VARS, "ansible_check_mode", "ansible_play_name", "ansible_search_path"}
FACT = re.compile(r"'ansible_(\w+)' is undefined")
# Words by which a template may name a variable: after a dot it is an attribute, after a quote text.
WORDS = re.compile(r"(?<![.\w'\"])[^\W\d]\w*")
# By what a template may read variables that it does not name; of the lookups, only these read none.
UNNAMED = re.compile(
    r"^#jinja2:|\b(include|import|extends)\b"
    r"|\b(lookup|query|q)\b(?!\(\s*['\"](ansible\.builtin\.)?(file|env|password)['\"])"
)


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
    defaults = specs.defaults(given.project / "roles") | components.load(given.project)
    machines = hosts.machines(given.groups)
    shared = _Shared()
    resolved = {host: _Values(given, host, known, defaults, shared) for host in machines}
    first = resolved[machines[0]].given if machines else {}
    others = taken(given, first)
    own = first.get("validate_own_groups", [])
    if not together:
        wrong = hosts.unmatched(given.groups, own)
        wrong += [line for values in resolved.values() for line in values.wrong]
        return list(dict.fromkeys(wrong + others))
    schedulable = first.get("control_plane_schedulable", False)
    wrong = hosts.groups(given.groups, own)
    wrong += hosts.shape(given.groups, schedulable)
    masters = given.groups.get("control_plane", [])
    if not masters:
        return wrong  # without it most values have no meaning

    addresses = {host: values.given.get("ansible_host") for host, values in resolved.items()}
    wrong += hosts.addresses(addresses) + others
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
        wrong += choices.versions(values.given)
        wrong += hosts.node_ips(values.given)
        wrong += labels.judge(values.given)
        wrong += hosts.endpoint(values.given, masters, addresses)
        wrong += hosts.virtual_address(values, addresses)
        wrong += choices.urls(values)
        wrong += outbound.judge(values)
        wrong += choices.names(values, values.given)
        wrong += choices.items(values.given)
        wrong += choices.schedules(values)
        wrong += choices.parameters(values)
        wrong += choices.unobtainable(values)
        wrong += choices.scale(values, nodes)
        wrong += [*admission.judge(values), *gitops.judge(values), *databases.judge(values)]
        wrong += choices.accounts(values)
        wrong += choices.issuers(values)
        wrong += choices.receivers(values)
        wrong += choices.vault(values, given.groups.get("vault", []))
        wrong += choices.delivery(values)
        wrong += choices.logs(values)
        wrong += choices.metrics(values)
        wrong += hosts.networks(values.given, addresses)
        wrong += stranger(values.given)
    return list(dict.fromkeys(wrong))


def taken(given: Input, values: Variables) -> list[str]:
    """Return whether the secrets of the cluster's name are those of another inventory, which is still there.

    roles/validate/tasks/call.yml records it. One that was moved, alone or with the checkout, is not another.
    """
    record = Path(values.get("cluster_secrets_dir", "/nonexistent"), "inventory")
    if not record.is_file():
        return []
    sources = next((raw.get("ansible_inventory_sources") or [] for raw in given.raw.values()), [])
    # A list of hosts, as in -i host, is no file.
    now = [(given.project / source).resolve() for source in sources if "," not in source]
    before = [(given.project / source).resolve() for source in record.read_text().splitlines()]
    # One may name the folder, or the file in it.
    same = any(one in (other, other.parent) or one.parent == other for one in now for other in before)
    left = [str(one) for one in before if one.exists()]
    if same or not left:
        return []
    return [
        f"cluster_name: {values.get('cluster_name')} is taken: {record.parent} has the secrets of the "
        f"inventory {', '.join(left)}; choose another name, or delete {record} if this inventory takes its "
        "place"
    ]


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


class _Shared:
    """What values come to: once for all hosts on which they and all that they name are the same objects."""

    def __init__(self) -> None:
        self._found: dict[frozenset[tuple[str, int]], Any] = {}
        self._named: dict[int, set[str]] = {}

    def resolve(self, value: Any, context: Variables, template: Callable[[Any], Any]) -> Any:
        """Return a value with its templates resolved, or raise why they cannot be."""
        key = self._made_of(value, context)
        if key not in self._found:
            try:
                self._found[key] = plain(template(value))
            except AnsibleError as error:
                self._found[key] = error
        found = self._found[key]
        if isinstance(found, AnsibleError):
            raise found
        return found

    def _made_of(self, value: Any, context: Variables) -> frozenset[tuple[str, int]]:
        # Equal is not enough: 1 equals true, and text equals text that is !unsafe. All of them outlive this.
        found, waiting = {"": id(value)}, [value]
        while waiting:
            for name in self._names(waiting.pop()) & context.keys() - found.keys():
                found[name] = id(context[name])
                waiting.append(context[name])
        return frozenset(found.items())

    def _names(self, value: Any) -> set[str]:
        if id(value) not in self._named:
            names: set[str] = set()
            if isinstance(value, str):
                names.update(WORDS.findall(value))
                if UNNAMED.search(value):
                    names.add("inventory_hostname")  # no two hosts have the same
            elif isinstance(value, (dict, list, tuple)):
                names.update(*map(self._names, value.values() if isinstance(value, dict) else value))
            self._named[id(value)] = names
        return self._named[id(value)]


class _Values(Mapping[str, Any]):
    """The values of a host's variables that can be known now, and what is wrong with each of them alone.

    What the roles choose for the rest is resolved when it is asked for.
    """

    def __init__(
        self, given: Input, host: str, known: dict[str, specs.Options], defaults: Variables, shared: _Shared
    ) -> None:
        raw = given.raw[host]
        self.wrong: list[str] = []
        self._refused: set[str] = set()
        self.given: Variables = {}
        context = {"hostvars": given.hostvars, "groups": given.groups, "inventory_hostname": host}
        self._defaults, self._context, self._shared = defaults, defaults | raw | context, shared
        self._template = given.templar(self._context)
        options = {name: option for role in known.values() for name, option in role.items()}
        for name in sorted(map(str, raw)):
            if name in options or CONNECTION.fullmatch(name):
                self._resolve(name, options.get(name))
        listed = self.get("platform_components", [])
        unused = {one["role"] for one in listed} - {one["role"] for one in listed if one["chosen"]}
        for role, its in known.items():
            if role not in unused and role not in INTERNAL:
                self.wrong += specs.missing(role, its, self.given | dict.fromkeys(self._refused, True))

    def __getitem__(self, name: str) -> Any:
        if name in self.given:
            return self.given[name]
        try:
            return self._value(self._defaults[name])
        except AnsibleError as error:
            raise KeyError(name) from error  # it needs what only a play or the node itself knows

    def __iter__(self) -> Iterator[str]:
        return iter(self.given | self._defaults)

    def __len__(self) -> int:
        return len(self.given | self._defaults)

    def _value(self, value: Any) -> Any:
        return self._shared.resolve(value, self._context, self._template)

    def _resolve(self, name: str, option: Variables | None) -> None:
        """Keep a value that can be resolved and is of its type, else what is wrong with it."""
        try:
            value = self._value(self._context[name])
        except AnsibleError as error:
            reason = str(error.message or type(error).__name__).splitlines()[0]
            if ENCRYPTED.search(reason) or not known_later(reason, self._context[name]):
                self.wrong.append(f"{name}: {cause(reason)}")
                self._refused.add(name)
            return
        wrong = specs.judge(name, option, value) if option and name not in CONVERTED else []
        self.wrong += wrong
        if wrong:
            self._refused.add(name)
        else:
            self.given[name] = value


def known_later(reason: str, written: Any) -> bool:
    """Tell whether a value that cannot be resolved yet, for this reason, can be in a play."""
    fact = FACT.search(reason)
    return "ansible_facts" in f"{reason} {written}" or bool(fact and f"ansible_{fact[1]}" in OF_A_RUN)


def cause(reason: str) -> str:
    """Return why a value cannot be resolved, and what to do."""
    if ENCRYPTED.search(reason):
        return "cannot be decrypted; give its password with --vault-password-file or --ask-vault-pass"
    if fact := FACT.search(reason):
        return f"cannot be resolved: {reason}; define it, or read a fact as ansible_facts['{fact[1]}']"
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
