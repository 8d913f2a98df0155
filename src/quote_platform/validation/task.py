"""What the tasks validate_input and validate_nodes are given, read and return."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible import constants
from ansible.parsing.dataloader import DataLoader
from ansible.utils.vars import load_extra_vars

from quote_platform import validation
from quote_platform.validation import call, capacity, hosts, nodes, specs

# plugins/modules has what each means.
INPUT: dict[str, Any] = {
    "judged": {"type": "bool", "default": False},
    "together": {"type": "bool", "default": True},
    "limit_allowed": {"type": "bool", "default": False},
}
NODES: dict[str, Any] = {
    "hosts": {"type": "list", "elements": "str", "required": True},
    "bounds": {"type": "dict", "required": True},
}


def judge_input(
    asked: dict[str, Any], variables: dict[str, Any], templar: Any, loader: Any
) -> dict[str, Any]:
    """Judge the call and then all input; `variables` are the task's own, in a role of the project."""
    project = Path(variables["role_path"]).resolve().parents[1]
    wrong = call.judge(_call(project, asked, variables, templar.template))
    if not wrong and not asked["judged"]:
        wrong = validation.judge(_input(project, variables, templar, loader), together=asked["together"])
    return verdict(wrong, "mistake", "touched")


def judge_nodes(asked: dict[str, Any], variables: dict[str, Any], templar: Any) -> dict[str, Any]:
    """Judge what all nodes have said."""
    wrong = nodes.judge_all(asked["hosts"], variables["hostvars"], asked["bounds"])
    return verdict(wrong + _capacity(variables, templar), "fault", "changed")


def _capacity(variables: dict[str, Any], templar: Any) -> list[str]:
    """Judge what the components request, once every node has said what it has."""
    facts: dict[str, dict[str, Any]] = {
        group: {
            host: (variables["hostvars"][host].get("validate_facts") or {}).get("ansible_facts")
            for host in variables["groups"].get(group, [])
        }
        for group in ("control_plane", "workers")
    }
    if not all(all(known.values()) for known in facts.values()):
        return []  # said of the node already
    known = resolved(
        ("__validate_workloads", "control_plane_kubelet_extra", "control_plane_schedulable"),
        variables,
        templar,
    )
    return capacity.judge(known[0], facts, known[1], known[2])


def resolved(names: tuple[str, ...], variables: dict[str, Any], templar: Any) -> list[Any]:
    """Return variables as they are with the defaults of all roles; `variables` are a task's own."""
    role, host = Path(variables["role_path"]).resolve(), variables["inventory_hostname"]
    known = (
        specs.defaults(role.parent)
        | DataLoader().load_from_file(str(role / "vars/workloads.yml"), trusted_as_template=True)
        | variables["hostvars"].raw_get(host)
        | {"hostvars": variables["hostvars"], "groups": variables["groups"], "inventory_hostname": host}
    )
    template = templar.copy_with_new_env(available_variables=known).template
    return [validation.plain(template(known[name])) for name in names]


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
