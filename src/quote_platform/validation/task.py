"""What the tasks validate_input and validate_nodes are given, read and return."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.parsing.dataloader import DataLoader
from ansible.utils.vars import load_extra_vars

from quote_platform import components, validation
from quote_platform.validation import call, capacity, choices, hosts, nodes, sources, specs

# plugins/modules has what each means.
INPUT: dict[str, Any] = {
    "judged": {"type": "bool", "default": False},
    "together": {"type": "bool", "default": True},
    "limit_allowed": {"type": "bool", "default": False},
}
NODES: dict[str, Any] = {
    "hosts": {"type": "list", "elements": "str", "required": True},
    "bounds": {"type": "dict", "required": True},
    "timeout": {"type": "int", "default": 5},
}


def judge_input(
    asked: dict[str, Any], variables: dict[str, Any], templar: Any, loader: Any
) -> dict[str, Any]:
    """Judge the call and then all input; `variables` are the task's own, in a role of the project."""
    project = Path(variables["role_path"]).resolve().parents[1]
    wrong = call.judge(_call(project, asked, variables, templar.template))
    if not wrong and not asked["judged"]:
        wrong = validation.judge(_input(project, variables, templar, loader), together=asked["together"])
    if wrong or asked["judged"]:
        return verdict(wrong, "mistake", "touched")
    return {"warnings": warnings(project, variables, templar)}


def warnings(project: Path, variables: dict[str, Any], templar: Any) -> list[str]:
    """Return what is allowed, and better otherwise."""
    # The task itself may run for localhost, which has none of the platform's variables.
    hosts_of_vault = variables["groups"].get("vault")
    if not hosts_of_vault:
        return []
    raw = specs.defaults(project / "roles") | variables["hostvars"].raw_get(hosts_of_vault[0])
    raw |= {"groups": variables["groups"], "hostvars": variables["hostvars"]}
    known = templar.copy_with_new_env(available_variables=raw)
    names = ["secrets_backend", "cluster_name", "cluster_secrets_dir"]
    names += ["vault_server_keys_file", "vault_server_password_file"]
    return choices.lies_beside({name: validation.plain(known.template(raw[name])) for name in names})


def judge_nodes(
    asked: dict[str, Any], variables: dict[str, Any], templar: Any, away: dict[str, str]
) -> dict[str, Any]:
    """Judge what all nodes have said; `away` is what the controller does not reach, and why."""
    wrong = nodes.judge_all(asked["hosts"], variables["hostvars"], asked["bounds"])
    wrong += nodes.unreached("the controller", away)
    wrong += nodes.virtual_address(variables["groups"].get("control_plane", []), variables["hostvars"])
    facts = {
        group: {host: facts_of(variables["hostvars"][host]) for host in variables["groups"].get(group, [])}
        for group in ("control_plane", "workers")
    }
    # Of a node that said nothing, that was said already.
    if all(all(known.values()) for known in facts.values()):
        wrong += capacity_faults(facts, variables, templar)
    return verdict(wrong, "fault", "changed")


def facts_of(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a machine said of itself; of one that could not be asked, nothing."""
    known = (variables.get("validate_facts") or {}).get("ansible_facts") or {}
    # Such a one may have a fact nevertheless: where its Python is thought to be.
    return known if "ansible_processor_vcpus" in known else {}


def capacity_faults(facts: dict[str, dict[str, Any]], variables: dict[str, Any], templar: Any) -> list[str]:
    """Judge what the components request against the facts of nodes, by their groups."""
    known = Chosen(variables, templar)
    table = [known.template(row) for row in known.rows("__validate_workloads")]
    kubelet, shared = known["control_plane_kubelet_extra"], known["control_plane_schedulable"]
    return capacity.judge(table, facts, kubelet, shared)


def machine_arguments(variables: dict[str, Any], templar: Any) -> dict[str, Any]:
    """Return what else a machine is probed for, as arguments of the module probe_node."""
    known = Chosen(variables, templar)
    proxies = {scheme: known[f"cluster_{scheme}_proxy"] for scheme in ("http", "https")}
    found: dict[str, Any] = {
        "urls": machine_urls(variables, known),
        "proxies": {scheme: url for scheme, url in proxies.items() if url},
        "no_proxy": known["cluster_no_proxy"],
        "authorities": known["cluster_authorities"],
        "accounts": accounts(known) if "kube_nodes" in variables["group_names"] else {},
    }
    for group in variables["group_names"]:
        more = known.item("__validate_machines", group) or {}
        found |= more | {"ports": found.get("ports", {}) | more.get("ports", {})}
    return found


def machine_urls(variables: dict[str, Any], known: Chosen) -> list[str]:
    """Return from where a machine fetches packages and images; `variables` are a task's own on it."""
    urls = [url for group in variables["group_names"] for url in known.item("__validate_packages", group)]
    if "kube_nodes" in variables["group_names"]:
        images = [
            image for part in known.rows("__validate_parts") for image in known.template(part["images"])
        ]
        mirror, names = known["container_runtime_registry_mirror"], known["container_runtime_registries"]
        urls += sources.registries(images, mirror, names)
    return list(dict.fromkeys(urls))


def accounts(known: Chosen) -> dict[str, str]:
    """Return the accounts of the registries that machine_urls has asked."""
    mirror, names = known["container_runtime_registry_mirror"], known["container_runtime_registries"]
    return sources.accounts(known["container_runtime_registry_credentials"], mirror, names)


def controller_urls(variables: dict[str, Any], templar: Any) -> list[str]:
    """Return from where the controller fetches manifests that it does not have yet."""
    known = Chosen(variables, templar)
    wanted = [
        manifest
        for part in known.rows("__validate_parts")
        for manifest in known.template(part.get("manifests", []))
    ]
    return sources.manifests(wanted, known["component_manifest_base_url"], Path(known["component_cache"]))


class Chosen:
    """What roles/validate/vars/workloads.yml says of a host, by the list of components.

    With the defaults of all roles.

    `variables` are a task's own.
    """

    def __init__(self, variables: dict[str, Any], templar: Any) -> None:
        role, host = Path(variables["role_path"]).resolve(), variables["inventory_hostname"]
        table = DataLoader().load_from_file(str(role / "vars/workloads.yml"), trusted_as_template=True)
        table |= components.load(role.parents[1])
        self._raw = (
            specs.defaults(role.parent)
            | variables["hostvars"].raw_get(host)
            | table
            | {"hostvars": variables["hostvars"], "groups": variables["groups"], "inventory_hostname": host}
        )
        self._resolve = templar.copy_with_new_env(available_variables=self._raw).template
        # Every row asks for some of the conditions: resolved once, since each costs as much as the row.
        self._raw |= {name: self[name] for name, value in table.items() if isinstance(value, str)}
        self._resolve = templar.copy_with_new_env(available_variables=self._raw).template

    def __getitem__(self, name: str) -> Any:
        return self.template(self._raw[name])

    def template(self, value: Any) -> Any:
        """Return a value with its templates resolved."""
        return validation.plain(self._resolve(value))

    def item(self, name: str, key: str) -> Any:
        """Return one value of a mapping, or an empty list; others may ask for what the host has not."""
        return self.template(self._raw[name].get(key, []))

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the rows that are chosen, as they are written."""
        return [row for row in self._raw[name] if self.template(row.get("chosen", True))]


def verdict(wrong: list[str], kind: str, done: str) -> dict[str, Any]:
    """Return the result of a task that fails with all that is wrong, if anything is."""
    if not wrong:
        return {}
    title = f"{len(wrong)} {kind}{'s' * (len(wrong) > 1)}; nothing was {done}."
    return {"failed": True, "msg": "\n".join([title, *wrong])}


def _call(project: Path, asked: dict[str, Any], variables: dict[str, Any], template: Any) -> call.Call:
    wanted = {
        "ansible_python_interpreter": variables["ansible_playbook_python"],
        "ansible_connection": "local",
        "ansible_become": False,
    }
    reached = set(variables["ansible_play_hosts_all"])
    return call.Call(
        project=project,
        precedence=constants.VARIABLE_PRECEDENCE,
        tags=variables["ansible_run_tags"],
        limit="" if asked["limit_allowed"] else variables.get("ansible_limit") or "",
        left_out=[host for host in hosts.machines(variables["groups"]) if host not in reached],
        connection={name: (template(variables[name]), wanted[name]) for name in wanted},
        validates=asked["together"],
        empty=not variables["groups"]["all"],
    )


def _input(project: Path, variables: dict[str, Any], templar: Any, loader: Any) -> validation.Input:
    hostvars, groups = variables["hostvars"], variables["groups"]
    return validation.Input(
        project=project,
        groups=groups,
        raw={host: hostvars.raw_get(host) for host in groups["all"]},
        templar=lambda known: templar.copy_with_new_env(available_variables=known).template,
        extra=frozenset(load_extra_vars(loader)),
        hostvars=hostvars,
    )
