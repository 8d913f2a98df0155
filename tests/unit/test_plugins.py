"""What roles use of ours is found by Ansible, and documented as it is."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from plugins.filter import digests, drills, proxies
from plugins.modules import probe_node, write_node_files
from quote_platform import (
    aws,
    certificates,
    component,
    history,
    log_archive,
    node_settings,
    object_store,
    upgrade,
    vault,
)
from quote_platform.validation import task

ROOT = Path(__file__).resolve().parents[2]
SPECS: dict[str, dict[str, Any]] = {
    "apply_aws": aws.APPLY,
    "apply_component": component.SPEC,
    "await_workloads": upgrade.WAIT,
    "commit_objects": history.SPEC,
    "destroy_aws": aws.DESTROY,
    "hold_cluster": upgrade.HOLD,
    "issue_certificate": certificates.SPEC,
    "prune_components": component.PRUNE,
    "plan_upgrade": upgrade.PLAN,
    "probe_node": probe_node.SPEC,
    "search_logs": log_archive.SPEC,
    "set_node_settings": node_settings.SPEC,
    "use_object_store": object_store.SPEC,
    "use_vault": vault.SPEC,
    "validate_input": task.INPUT,
    "validate_nodes": task.NODES,
    "write_node_files": write_node_files.SPEC,
}
# What documentation has of an option, but for options of its own.
KEYS = ("type", "elements", "required", "default", "choices")


@pytest.fixture(scope="module")
def documented() -> dict[str, Any]:
    """Return what ansible-doc says of each, by the project's ansible.cfg alone."""
    command = ["ansible-doc", "--type", "module", "--json", *SPECS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_each_is_named_here() -> None:
    assert {file.stem for file in (ROOT / "plugins/modules").glob("*.py")} == set(SPECS)
    assert {file.stem for file in (ROOT / "plugins/action").glob("*.py")} < set(SPECS)


def options(documented: dict[str, Any]) -> dict[str, Any]:
    """Return documented options as an argument spec has them."""
    found = {}
    for name, option in documented.items():
        found[name] = {key: option[key] for key in KEYS if key in option}
        if "suboptions" in option:
            found[name]["options"] = options(option["suboptions"])
    return found


def plain(spec: dict[str, Any]) -> dict[str, Any]:
    """Return an argument spec without what no documentation has."""
    found = {}
    for name, option in spec.items():
        found[name] = {key: value for key, value in option.items() if key in KEYS}
        if "options" in option:
            found[name]["options"] = plain(option["options"])
    return found


@pytest.mark.parametrize("name", SPECS)
def test_its_documentation_is_true(name: str, documented: dict[str, Any]) -> None:
    doc = documented[name]["doc"]
    assert Path(doc["filename"]) == ROOT / "plugins/modules" / f"{name}.py"
    assert options(doc["options"]) == plain(SPECS[name])
    assert all(option["description"] for option in doc["options"].values())


def test_each_filter_is_used() -> None:
    files = [*ROOT.glob("roles/*/vars/*.yml"), *ROOT.glob("roles/*/t*/*.*")]
    text = "".join(file.read_text() for file in files)
    for name in [name for module in (digests, drills, proxies) for name in module.FilterModule().filters()]:
        assert f"| {name}" in text or f"map('{name}'" in text, name


def test_no_role_brings_its_own() -> None:
    assert [*ROOT.glob("roles/*/library/*.py"), *ROOT.glob("roles/*/*_plugins/*.py")] == []


def test_what_a_task_shows_of_a_change_is_made_by_one_piece() -> None:
    """What runs on nodes has no package."""
    found = [
        file.name for file in (ROOT / "src").rglob("*.py") if re.search(r'"before_header":', file.read_text())
    ]
    assert found == ["difference.py"]
