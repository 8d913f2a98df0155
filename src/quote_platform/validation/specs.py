"""What the roles' argument specs say of a variable: whether it exists, its type, its bounds."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.yaml import yaml_load  # by libyaml, where it is
from ansible.parsing.dataloader import DataLoader

Variables = dict[str, Any]
Options = dict[str, Variables]

# How near a name must be to a known one to be taken for it, misspelt.
NEAR = 0.84
# Options of an argument spec that a validator of modules knows.
KNOWN_KEYS = ("type", "elements", "choices", "required", "options", "no_log")
# Types of Python by those of the specs, and how they are called in messages.
TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text"),
    "path": ((str,), "text"),
    "list": ((list, tuple), "a list"),
    "dict": ((dict,), "a mapping"),
}
# Least and most of whole numbers by name; the first pattern that fits counts.
BOUNDS: tuple[tuple[str, int, int | None], ...] = (
    ("postgres_instances", 1, 9),
    ("postgres_synchronous_replicas", 0, 8),
    ("postgres_restore_parallel", 1, 32),
    ("postgres_vault_port", 1025, 65535),
    ("quote_app_cpu_target", 1, 100),
    ("quote_app_scale_down_seconds", 0, 3600),
    ("logging_queue_mib", 64, None),
    ("logging_line_kib", 16, None),
    ("storage_ebs_iops", 3000, 80000),
    ("storage_ebs_throughput", 125, 2000),
    ("vault_server_key_*", 1, 255),
    ("api_endpoint_router_id", 1, 255),
    ("*_port", 1, 65535),
    # None of these is needed; 0 means none, or no limit.
    *(
        (name, 0, None)
        for name in (
            "control_plane_audit_*",
            "aws_machines_vaults",
            "logging_retention_days",
            "logging_archive_days",
            "logging_replicas",
            "monitoring_*_limit",
            "postgres_dump_archive_days",
            "*_keep.daily",
            "*_keep.weekly",
            "*_keep.monthly",
            "*_drain_seconds",
            "*_close_seconds",
            "validate_*",
        )
    ),
    ("*", 1, None),
)
# What values look like that are numbers or text, and what is allowed.
FORMS = {
    "upgrade_batch": (re.compile(r"[1-9]\d*%?"), "a number such as 2, or a percentage such as 25%"),
}


@functools.cache
def load(roles: Path) -> dict[str, Options]:
    """Return the options of each role, over all its entry points."""
    specs: dict[str, Options] = {}
    for file in sorted(roles.glob("*/meta/argument_specs.yml")):
        options: Options = {}
        for entry in yaml_load(file.read_text())["argument_specs"].values():
            options |= entry.get("options") or {}
        specs[file.parent.parent.name] = options
    return specs


@functools.cache
def defaults(roles: Path) -> Variables:
    """Return the defaults of all roles, as they are written."""
    found: Variables = {}
    for file in sorted(roles.glob("*/defaults/main.yml")):
        found |= DataLoader().load_from_file(str(file), trusted_as_template=True) or {}
    return found


@functools.cache
def by_playbooks(project: Path) -> dict[str, str]:
    """Return the variables that site.yml's playbooks set, which no inventory can; each with its playbook."""
    found: dict[str, str] = {}
    for step in yaml_load((project / "site.yml").read_text()):
        playbook = step["ansible.builtin.import_playbook"]
        waiting: list[Any] = [yaml_load((project / playbook).read_text())]
        while waiting:
            part = waiting.pop()
            if isinstance(part, dict):
                found |= dict.fromkeys(part.get("vars") or {}, playbook)
                files = part.get("vars_files") or []
                for file in [files] if isinstance(files, str) else files:
                    variables = yaml_load((project / playbook).parent.joinpath(file).read_text())
                    found |= dict.fromkeys(variables, playbook)
            waiting += part.values() if isinstance(part, dict) else part if isinstance(part, list) else []
    return found


def misspelt(names: set[str], specs: dict[str, Options]) -> list[str]:
    """Return what is wrong with names that no spec knows."""
    known = {name for options in specs.values() for name in options}
    wrong = []
    for name in sorted(names - known):
        if name.startswith(("ansible_", "_")):
            continue
        role = next(
            (role for role in sorted(specs, key=len, reverse=True) if name.startswith(f"{role}_")), None
        )
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6 if role else NEAR)
        if role and near:
            wrong.append(f"{name}: role {role} knows no such variable; did you mean {near[0]}?")
        elif role:
            wrong.append(f"{name}: role {role} knows no such variable; see roles/{role}/README.md")
        elif near:
            wrong.append(f"{name}: unknown variable; did you mean {near[0]}?")
    return wrong


def missing(role: str, options: Options, given: Variables) -> list[str]:
    """Return what a role requires and has not."""
    # What a playbook hands to a role is not here yet; what has a value must not be emptied.
    return [
        f"{name}: required by role {role} and not set"
        for name, option in options.items()
        if option.get("required") and (role == "validate" or name in given) and not given.get(name)
    ]


def judge(name: str, option: Variables, value: Any) -> list[str]:
    """Return what is wrong with the value of one variable: type, bounds, choices, what is inside."""
    # Ansible's validator converts the text "false" for itself only; the role still sees text, which is true.
    wrong = (
        list(_types(name, option, value)) or list(_bounds(name, option, value)) or list(_forms(name, value))
    )
    if wrong:
        return wrong
    result = ArgumentSpecValidator({name: _for_validator(option)}).validate({name: value})
    return [f"{name}: {text}" for text in result.error_messages]


def _for_validator(option: Variables) -> Variables:
    """Return an option as the validator of modules wants it; what a role requires is looked at apart."""
    kept = {key: option[key] for key in KNOWN_KEYS if key in option and key != "required"}
    if "options" in kept:
        kept["options"] = {
            name: _for_validator(inner) | ({"required": True} if inner.get("required") else {})
            for name, inner in kept["options"].items()
        }
    return kept


def _types(name: str, option: Variables, value: Any) -> Iterator[str]:
    """Yield what is of another type than its spec says."""
    wanted = option.get("type", "str")
    if wanted not in TYPES:
        return
    kinds, allowed = TYPES[wanted]
    if value is None:
        yield f"{name}: has no value; allowed is {allowed}, or delete the line"
        return
    right = isinstance(value, kinds) and (wanted == "bool" or not isinstance(value, bool))
    if not right:
        shown = "" if option.get("no_log") or isinstance(value, (list, dict)) else f" {value!r}"
        yield f"{name}:{shown} is {_called(value)}; allowed is {allowed}{_instead(name, kinds, value)}"
        return
    if wanted == "list":
        elements: Variables = {"type": option.get("elements", "raw"), "options": option.get("options", {})}
        for index, element in enumerate(value):
            yield from _types(f"{name}[{index}]", elements, element)
    if wanted == "dict":
        for key, inner in option.get("options", {}).items():
            if value.get(key) is not None:
                yield from _types(f"{name}.{key}", inner, value[key])


def _called(value: Any) -> str:
    """Return what a value is, as messages say it."""
    if isinstance(value, bool):
        return "true or false"
    names = (called for kinds, called in TYPES.values() if isinstance(value, kinds))
    return next(names, type(value).__name__)


def _instead(name: str, kinds: tuple[type, ...], value: Any) -> str:
    """Return how to write a value that was meant well."""
    if str in kinds:
        return "" if isinstance(value, (list, dict)) else ", in quotes"
    try:
        meant = yaml_load(value) if isinstance(value, str) else None
    except yaml.YAMLError:
        meant = None
    if meant is None or not isinstance(meant, kinds) or (isinstance(meant, bool) and bool not in kinds):
        return ""
    if not name.isidentifier():
        return ", without quotes"
    text = yaml.safe_dump({name: meant}, default_flow_style=True, width=1000).strip()
    return f", without quotes; on the command line -e '{text}'"


def _forms(name: str, value: Any) -> Iterator[str]:
    """Yield what looks otherwise than it must."""
    if name in FORMS:
        form, allowed = FORMS[name]
        if isinstance(value, bool) or not isinstance(value, (int, str)) or not form.fullmatch(str(value)):
            yield f"{name}: {value!r}; allowed is {allowed}"


def _bounds(name: str, option: Variables, value: Any) -> Iterator[str]:
    """Yield which whole numbers are too small or too large."""
    if option.get("type") == "int" and not option.get("choices"):
        least, most = next((low, high) for pattern, low, high in BOUNDS if fnmatch.fnmatch(name, pattern))
        if value < least or (most is not None and value > most):
            allowed = f"is {least} or more" if most is None else f"are {least} to {most}"
            yield f"{name}: {value}; allowed {allowed}"
    for key, inner in option.get("options", {}).items():
        for element in value if option.get("type") == "list" else [value]:
            if element.get(key) is not None:
                yield from _bounds(f"{name}.{key}", inner, element[key])
