"""What every role keeps to."""

import re
from pathlib import Path

import pytest
import yaml

from quote_platform import roledocs

ROOT = Path(__file__).resolve().parents[2]
ROLES = roledocs.roles()
# Judging the inventory's shape is its purpose.
MAY_NAME_GROUPS = {"validate"}


def tasks(role: Path) -> dict[Path, str]:
    return {
        file: file.read_text() for file in role.glob("*/*.yml") if file.parent.name in {"tasks", "handlers"}
    }


def test_there_are_roles() -> None:
    assert len(ROLES) >= 14
    assert {role.name for role in ROLES} == {
        path.name for path in (ROOT / "roles").iterdir() if path.is_dir()
    }


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_are_specified(role: Path) -> None:
    spec, known = roledocs.options(role), roledocs.defaults(role)
    assert set(known) <= set(spec), f"in defaults, not in the spec: {set(known) - set(spec)}"
    required = {name for name, option in spec.items() if option.get("required")}
    assert not required & set(known), "required, and yet with a default"
    for name, option in spec.items():
        assert option.get("description"), name
        if "default" in option:
            assert known[name] == option["default"], f"{name}: the spec says another default"
    if role.name != "validate":  # it specifies the choices of group_vars/all as well
        assert all(name.startswith(f"{role.name}_") for name in spec)
    else:
        choices = yaml.safe_load((ROOT / "group_vars/all/main.yml").read_text())
        specified = {name for one in ROLES for name in roledocs.options(one)}
        assert set(choices) <= specified, "a choice of group_vars/all/main.yml that nothing specifies"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_readme_is_up_to_date(role: Path) -> None:
    assert roledocs.same(role), "run `quote-platform roles docs`"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_templates_say_who_manages_them(role: Path) -> None:
    for template in (role / "templates").glob("*.j2"):
        assert template.read_text().startswith("{{ ansible_managed | comment"), template


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_tasks_keep_the_rules(role: Path) -> None:
    for file, text in tasks(role).items():
        assert "ignore_errors" not in text, file
        assert not re.search(r"when:.*\blab\b", text), file
        if role.name not in MAY_NAME_GROUPS:
            assert not re.search(r"groups\[|groups\.", text), f"{file} names a group"


def test_a_result_is_asked_for_what_is_in_it() -> None:
    """A task that is left out registers a result, too, without what the task would have read."""
    files = [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/**/*.yml")]
    text = "\n".join(file.read_text() for file in files)
    results = set(re.findall(r"^ *register: (\w+)", text, re.MULTILINE))
    asked = set(re.findall(r"\b(\w+) is (?:not )?defined", text))
    assert len(results) > 50
    assert not results & asked, "ask for `.stdout`, `.results` and the like"


def test_no_role_names_the_namespace_of_another() -> None:
    """They may be chosen, so what needs one is told; a default may name what is usual."""
    owners = {
        str(space): role.name
        for role in ROLES
        for name, space in roledocs.defaults(role).items()
        if name.endswith("_namespace") and "{{" not in str(space)
    }
    assert len(owners) >= 8
    named = re.compile(r"""(?:namespaces?|matchNames|metadata\.name)["']?: *\[?["']?([a-z][a-z-]+)""")
    for role in ROLES:
        for file in role.glob("*/**/*.*"):
            if file.parent.name in {"tasks", "handlers", "vars", "templates"}:
                spaces = set(named.findall(file.read_text()))
                others = {space for space in spaces if owners.get(space, role.name) != role.name}
                assert not others, f"{file.relative_to(ROOT)} names {others}"


def test_every_pin_of_an_image_belongs_to_a_role() -> None:
    pins = yaml.safe_load((ROOT / "group_vars/all/versions.yml").read_text())
    known = {name for role in ROLES for name in roledocs.options(role)}
    assert set(pins) - known == {
        "acme_image",
        "verify_image",
        "log_store_image",
        "log_store_url",
        "log_store_sha256",
        "lab_ubuntu_url",
        "lab_ubuntu_sha256",
    }
