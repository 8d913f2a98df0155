"""Ansible fails without an inventory that it can read, and without the settings of this project."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no inventory: pass -i inventories/NAME"),
        (["-i", "inventories/mistyped"], "inventories/mistyped"),
        (["-i", "inventories/production", "-i", "inventories/mistyped"], "inventories/mistyped"),
    ],
)
def test_a_command_without_an_inventory_fails(arguments: list[str], message: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ANSIBLE_INVENTORY"}
    command = ["ansible-playbook", *arguments, "site.yml", "--list-hosts"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Completely failed to parse inventory source" in done.stderr
    assert message in done.stderr


def test_another_working_directory_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Links beside the playbooks have Ansible find roles and plugins there, so that they can say it."""
    (tmp_path / "hosts.yml").write_text("masters: {hosts: {master-1: {ansible_host: 10.77.0.11}}}\n")
    environment = {name: value for name, value in os.environ.items() if name != "ANSIBLE_CONFIG"}
    command = ["ansible-playbook", "-i", "hosts.yml", str(ROOT / "playbooks/platform.yml")]

    def said(**more: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment | more, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        return done.stdout

    sentence = (
        "1 mistake; nothing was touched.\\nansible.cfg: the project's own is not in effect; "
        f"run in {ROOT}, or set ANSIBLE_CONFIG={ROOT}/ansible.cfg"
    )
    assert sentence in said()
    assert "masters: not a group of the platform" in said(ANSIBLE_CONFIG=f"{ROOT}/ansible.cfg")


def play(folder: Path, *tasks: dict[str, Any], settings: dict[str, str] | None = None, **more: Any) -> str:
    """Run tasks with the settings of this project on two hosts without a connection; return the output."""
    playbook = folder / "playbook.yml"
    playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks} | more]))
    command = ["ansible-playbook", "-i", "one,two,", str(playbook)]
    env = os.environ | (settings or {})
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_filters_are_loaded_once_and_not_by_the_worker_of_each_task(tmp_path: Path) -> None:
    loads = tmp_path / "loads"
    (tmp_path / "seen.py").write_text(
        f"with open({str(loads)!r}, 'a') as file:\n    file.write('once ')\n\n\n"
        "class FilterModule:\n    def filters(self):\n        return {}\n"
    )
    tasks = [{"ansible.builtin.debug": {"msg": "x"}, "when": "absent | default(false)"}] * 3
    places = {"ANSIBLE_FILTER_PLUGINS": f"{ROOT}/plugins/filter:{tmp_path}"}
    shown = play(tmp_path, *tasks, settings=places)
    assert shown.count("skipped=3") == 2, shown
    assert loads.read_text() == "once "


def test_files_of_variables_are_read_once_and_not_for_each_task(tmp_path: Path) -> None:
    (tmp_path / "own.yml").write_text("own: as it was\n")
    change = {"content": "own: as it is now\n", "dest": str(tmp_path / "own.yml")}
    shown = play(
        tmp_path,
        {"ansible.builtin.copy": change, "delegate_to": "localhost", "run_once": True},
        {"ansible.builtin.debug": {"msg": "{{ own }}"}},
        vars_files=["own.yml", "{{ absent | default('none.yml') }}"],
    )
    assert (shown.count("msg: as it was"), shown.count("msg: as it is now")) == (2, 0)
    assert "as it is now" in (tmp_path / "own.yml").read_text()


def test_a_template_is_rendered_as_by_ansibles_own_lookup(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/seen.j2").write_text(
        "{{ ansible_managed | comment }}\n"
        "{% if more %}\n{{ more }} {{ of_host }} {{ nested.one }}\n{% endif %}\n"
    )
    ours, ansibles = (
        f"lookup('{name}', 'seen.j2', template_vars={{'more': 1}})"
        for name in ("rendered", "ansible.builtin.template")
    )
    shown = play(
        tmp_path,
        {"ansible.builtin.debug": {"msg": f"{{{{ {ours} }}}}"}},
        {"ansible.builtin.assert": {"that": f"{ours} == {ansibles}"}},
        vars={"of_host": "{{ inventory_hostname }}", "nested": {"one": "{{ of_host }}!"}},
    )
    assert "1 one one!" in shown
    assert "1 two two!" in shown


def test_no_role_renders_by_the_lookup_that_copies_every_variable() -> None:
    files = [file for file in (ROOT / "roles").rglob("*") if file.suffix in {".yml", ".j2"}]
    assert [file for file in files if "lookup('ansible.builtin.template'" in file.read_text()] == []


def test_filters_load_nothing_that_takes_long() -> None:
    """Every playbook loads them."""
    names = [file.stem for file in (ROOT / "plugins" / "filter").glob("*.py")]
    script = f"import sys, {', '.join(names)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(ROOT / "plugins" / "filter")},
        capture_output=True,
        text=True,
        check=True,
    )
    heavy = {"ansible", "boto3", "cryptography", "httpx", "jinja2", "kubernetes", "pydantic", "yaml"}
    assert not heavy & set(done.stdout.split())
