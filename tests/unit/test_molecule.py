"""Molecule reports success where it finds no tests, so this says that there are some, for every role."""

import ast
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parent.parent.name for path in ROOT.glob("roles/*/tasks/main.yml"))
# By one scenario, since only together they make something.
TOGETHER = {
    "aws": {
        "aws_account",
        "aws_buckets",
        "aws_database",
        "aws_dns",
        "aws_keys",
        "aws_load_balancers",
        "aws_machines",
        "aws_network",
        "aws_registry",
    }
}
SCENARIOS = sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))


def test_every_role_has_a_scenario_and_every_scenario_a_role() -> None:
    assert ROLES, "no roles found: this test looks in the wrong place"
    alone = set(SCENARIOS) - {"default"} - TOGETHER.keys()
    assert alone | {role for roles in TOGETHER.values() for role in roles} == set(ROLES)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_tests_something(scenario: str) -> None:
    folder = ROOT / "molecule" / scenario
    config = yaml.safe_load((folder / "molecule.yml").read_text())
    shared = [folder / name for name in config.get("verifier", {}).get("additional_files_or_dirs", [])]
    functions = [
        node.name
        for file in [*folder.glob("test_*.py"), *shared]
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef)
    ]
    assert any(name.startswith("test_") for name in functions)


def converged(part: Any) -> Iterator[str]:
    """Yield the roles of plays and tasks, and the names of imported playbooks."""
    if isinstance(part, list):
        for item in part:
            yield from converged(item)
    elif isinstance(part, dict):
        for key, value in part.items():
            if key == "role":
                yield value
            elif key in {"ansible.builtin.include_role", "ansible.builtin.import_role"}:
                yield value["name"]
            elif key == "ansible.builtin.import_playbook":
                yield Path(value).stem.replace("-", "_")
            else:
                yield from converged(value)


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "default"])
def test_every_scenario_converges_its_own_role(scenario: str) -> None:
    plays = yaml.safe_load((ROOT / "molecule" / scenario / "converge.yml").read_text())
    assert scenario in set(converged(plays))


def test_the_runner_knows_every_scenario() -> None:
    runner = runpy.run_path(str(ROOT / "tests" / "run.py"))
    listed = [scenario for lane in runner["MOLECULE_LANES"].values() for scenario in lane]
    assert sorted([*listed, *runner["MOLECULE_ASKED"]]) == SCENARIOS


def test_a_dry_run_and_the_verifier_belong_to_the_shared_sequence() -> None:
    config = yaml.safe_load((ROOT / ".config" / "molecule" / "config.yml").read_text())
    sequence = config["scenario"]["test_sequence"]
    assert sequence.index("check") < sequence.index("converge") < sequence.index("idempotence")
    assert sequence.index("idempotence") < sequence.index("verify")
    assert (ROOT / "molecule" / "default" / config["verifier"]["additional_files_or_dirs"][0]).is_file()
