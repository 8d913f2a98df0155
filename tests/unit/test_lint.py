"""Linters see all Python that there is."""

import os
import subprocess
import tomllib
from pathlib import Path

import ansible_lint

ROOT = Path(__file__).resolve().parents[2]


def output(*command: str) -> list[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def python() -> set[Path]:
    """Return every tracked file in Python, also those without its suffix."""
    found = set()
    for path in (ROOT / name for name in output("git", "ls-files")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                first = file.readline(80)
            if path.suffix == ".py" or (first.startswith(b"#!") and b"python" in first):
                found.add(path)
    return found


def test_mypy_checks_every_file() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["files"]
    chosen = {path for pattern in patterns for path in ROOT.glob(pattern)}
    assert all(any(ROOT.glob(pattern)) for pattern in patterns), "a pattern that finds nothing"
    assert {path for path in python() if not chosen & {path, *path.parents}} == set()


def test_ruff_checks_every_file() -> None:
    assert python() <= set(map(Path, output("ruff", "check", "--show-files")))


def test_a_syntax_check_of_the_lint_says_what_the_command_says(tmp_path: Path) -> None:
    env = os.environ | {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "False"}
    checker = ansible_lint.Checker(env)
    for name, text in {
        "right.yml": "- hosts: all\n  roles: [component]\n",
        "broken.yml": "- hosts: all\n  tasks:\n    - ansible.builtin.no_such_module:\n",
    }.items():
        (tmp_path / name).write_text(text)
        command = [*ansible_lint.CHECK, "-vv", str(tmp_path / name)]
        said = checker.check(command)
        expected = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        assert (said.returncode, said.stdout, said.stderr) == (
            expected.returncode,
            expected.stdout,
            expected.stderr,
        )
    assert expected.returncode != 0
    checker.end()
