"""The README of each role, generated from its argument spec and its defaults."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from quote_platform import paths

app = typer.Typer(no_args_is_help=True)


@app.callback()
def main() -> None:
    """Group of commands."""


def specs(role: Path) -> dict[str, Any]:
    """Return the entry points of a role."""
    read: dict[str, Any] = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())
    return dict(read["argument_specs"])


def defaults(role: Path) -> dict[str, Any]:
    """Return the defaults of a role."""
    file = role / "defaults" / "main.yml"
    return dict(yaml.safe_load(file.read_text()) or {}) if file.is_file() else {}


def options(role: Path) -> dict[str, Any]:
    """Return the variables of a role, over all its entry points."""
    return {
        name: option
        for entry in specs(role).values()
        for name, option in (entry.get("options") or {}).items()
    }


def text_of(value: Any) -> str:
    """Return a description as one paragraph."""
    return " ".join(str(part).strip() for part in (value if isinstance(value, list) else [value]))


def variable(name: str, option: dict[str, Any], known: dict[str, Any]) -> list[str]:
    """Return the section of a variable."""
    kind = option.get("type", "str") + (f" of {option['elements']}" if "elements" in option else "")
    facts = [kind, "required" if option.get("required") else "optional"]
    if "choices" in option:
        facts.append("one of " + ", ".join(f"`{choice}`" for choice in option["choices"]))
    lines = [f"### `{name}`", "", f"{'; '.join(facts)}. {text_of(option.get('description', ''))}", ""]
    if name in known:
        shown = yaml.safe_dump({name: known[name]}, sort_keys=False, width=110).rstrip()
        lines += ["```yaml", shown, "```", ""]
    for inner, part in option.get("options", {}).items():
        needed = ", required" if part.get("required") else ""
        lines.append(
            f"* `{inner}` ({part.get('type', 'str')}{needed}): {text_of(part.get('description', ''))}"
        )
    return [*lines, ""] if option.get("options") else lines


def readme(role: Path) -> str:
    """Return the README of a role."""
    entries, known = specs(role), defaults(role)
    first = entries["main"] if "main" in entries else next(iter(entries.values()))
    lines = [
        f"# {role.name}",
        "",
        f"{first['short_description']}.",
        "",
        text_of(first.get("description", "")),
        "",
    ]
    lines += ["## Entry points", "", "| tasks_from | what |", "|---|---|"]
    lines += [f"| `{name}` | {entry['short_description']} |" for name, entry in entries.items()]
    lines += ["", "## Variables", ""]
    for name, option in options(role).items():
        lines += variable(name, option, known)
    lines += [
        "",
        "Written by `quote-platform roles docs` from `meta/argument_specs.yml` and `defaults/main.yml`.",
        "",
    ]
    return "\n".join(lines).replace("\n\n\n", "\n\n")


def roles() -> list[Path]:
    """Return the folders of all roles."""
    return sorted(
        file.parent.parent for file in (paths.repository() / "roles").glob("*/meta/argument_specs.yml")
    )


@app.command()
def docs(check: Annotated[bool, typer.Option(help="Only say which are out of date.")] = False) -> None:
    """Write the README of every role."""
    console = Console()
    outdated = [role for role in roles() if not same(role)]
    for role in outdated:
        console.print(f"roles/{role.name}/README.md is {'out of date' if check else 'written'}")
        if not check:
            (role / "README.md").write_text(readme(role))
    if check and outdated:
        raise typer.Exit(1)


def same(role: Path) -> bool:
    """Tell whether a README is up to date."""
    file = role / "README.md"
    return file.is_file() and file.read_text() == readme(role)
