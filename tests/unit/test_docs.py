"""What the documents say about this repository is so: commands, links, paths and variables."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from quote_platform import roledocs
from quote_platform.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Their first lines say how they are called.
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
FOLDERS = "apps|bench|docs|group_vars|inventories|lab|molecule|playbooks|roles|src|tests"
# Written on the user's machine, or by the lab.
GENERATED = {
    "inventories/lab/group_vars/platform/mirror.yml",
    "inventories/aws/group_vars/all/outputs.yml",
    "inventories/aws/rds-bundle.pem",
    "inventories/fleet.yml",
    "inventories/vm",
}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code(page: Path) -> Iterator[str]:
    """Return what stands in code: each line of a block, each text in backticks."""
    text = page.read_text()
    block = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
    for found in block.finditer(text):
        if found[1] != "mermaid":
            yield from (line.strip() for line in found[2].splitlines())
    for found in re.finditer(r"`([^`]+)`", block.sub("", text)):
        yield " ".join(found[1].split())


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", [*PAGES, *PLAYBOOKS], ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_name_an_inventory_and_a_playbook_that_exists(page: Path) -> None:
    lines = code(page) if page.suffix == ".md" else re.findall(r"^# +(.*)$", page.read_text(), re.MULTILINE)
    for line in lines:
        if re.match(r"(playbooks/\S+|site)\.yml ", line):
            pytest.fail(f"`{line}` is called by ansible-playbook -i")
        if found := re.match(r"(ansible|ansible-playbook|ansible-inventory) (.+)", line):
            assert re.search(r"(^| )-i (INVENTORY|inventories/\w+)( |$)", found[2]), f"`{line}` has no -i"
            if found[1] == "ansible-playbook":
                playbook = re.search(r"\S+\.yml", found[2])
                assert playbook and (ROOT / playbook[0]).is_file(), f"`{line}` names no playbook of ours"


def test_a_hint_names_the_inventory() -> None:
    """What a message tells a person to run can be run: without -i, Ansible refuses."""
    call = re.compile(r"ansible-playbook (?!-i )[\w./-]*\.yml|(?<!-i INVENTORY )playbooks/[a-z-]+\.yml -e")
    files = [
        file
        for folder in ("src", "roles", "plugins", "playbooks")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in {".py", ".yml"}
    ]
    assert files
    for file in files:
        hints = call.findall(" ".join(file.read_text().split()))
        assert not hints, f"{file.relative_to(ROOT)}: {hints}"


@pages
def test_commands_of_quote_platform_exist(page: Path) -> None:
    for line in code(page):
        if found := re.match(r"quote-platform ((?:[a-z-]+ ?)+)", line):
            command = typer.main.get_command(app)
            for name in found[1].split():
                if not isinstance(command, TyperGroup):
                    break
                assert name in command.commands, f"`{line}`: no such command"
                command = command.commands[name]


@pages
def test_tables_are_in_one_piece(page: Path) -> None:
    """Rows that do not follow a heading with its line of dashes are shown as text."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    tables = re.findall(r"(?m)^\|.*\n(?:\|.*(?:\n|\Z))*", text)
    broken = [table for table in tables if not re.match(r"\|.*\n\|[ :|-]+\|(\n|\Z)", table)]
    assert not broken, broken[0]


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(file), f"{target}: no such heading"


@pages
def test_paths_and_variables_exist(page: Path) -> None:
    sources = [
        *ROOT.glob("roles/*/*/*.yml"),
        *ROOT.glob("group_vars/all/*.yml"),
        *PLAYBOOKS,
        *ROOT.glob("roles/*/files/**/*.yml"),  # metrics in the rules of alerts
    ]
    known = {name for file in sources for name in re.findall(r"\w+", file.read_text())}
    ours = re.compile(rf"(__)?({'|'.join(role.name for role in roledocs.roles())}|cluster|verify)_\w+")
    for text in code(page):
        for path in re.findall(rf"(?<![\w/.<-])(?:{FOLDERS})/[\w./*-]+", text):
            if not re.search(r"/[A-Z]+(/|$)", path):  # as inventories/NAME
                assert path in GENERATED or any(ROOT.glob(path.rstrip("."))), f"{path} does not exist"
        # cert_manager_acme_* names several.
        for name in re.findall(r"(?<![\w/.-])[a-z_]+[a-z0-9_]*(?![\w(*])", text):
            if ours.fullmatch(name):
                assert name in known, f"{name} is no variable of ours"


def test_every_page_is_found_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)", (ROOT / "README.md").read_text()))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - linked == set()


def test_every_port_that_can_be_set_is_named() -> None:
    page = (ROOT / "docs/ports.md").read_text()
    for role in roledocs.roles():
        for name, value in roledocs.defaults(role).items():
            if name.endswith(("_port", "_ports")):
                rows = [line for line in page.splitlines() if f"`{name}`" in line]
                assert rows, f"{name} is missing"
                if isinstance(value, int):
                    assert any(re.search(rf"\b{value}\b", row) for row in rows), f"{name} is {value}"


def test_every_request_that_can_be_set_is_named() -> None:
    rows = (ROOT / "docs/sizing.md").read_text().splitlines()
    for role in roledocs.roles():
        for name, value in roledocs.defaults(role).items():
            if name.endswith("_resources") and "requests" in value:
                asked = value["requests"]
                assert any(
                    f"`{name}`" in row and f"{asked['cpu']} / {asked['memory']}" in row for row in rows
                ), f"{name} asks for {asked}"
