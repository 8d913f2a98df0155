"""The `quote-platform` command."""

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from quote_platform.locales import use_utf8

# Name: module, its application or function, and what it does.
COMMANDS = {
    "cost": ("quote_platform.aws.cli", "show", None),
    "aws": ("quote_platform.aws.cli", "app", "The rights that making a cluster on AWS needs."),
    "mirror": (
        "quote_platform.mirror.cli",
        "app",
        "Fill and inspect the mirror: apt packages, images, manifests.",
    ),
    "lab": ("quote_platform.lab.cli", "app", "Start, stop and reach labs of real nodes."),
    "verify": (
        "quote_platform.verify.cli",
        "app",
        "Use the functions of a running platform from outside.",
    ),
    "job": ("quote_platform.jobs.cli", "app", "Run playbooks as jobs: start, watch, stop, schedule."),
    "fleet": ("quote_platform.fleet.cli", "app", "Run jobs on many clusters, in waves."),
    "rotate": (
        "quote_platform.rotation",
        "app",
        "Give accounts of the database new credentials, while they are used.",
    ),
    "roles": ("quote_platform.roledocs", "app", "Documentation of the roles."),
    "pins": (
        "quote_platform.delivery.cli",
        "pins",
        "Compare versions.yml with registries and publishers; pin by digest.",
    ),
    "release": (
        "quote_platform.delivery.release_cli",
        "release",
        "Build the project's images from a commit, push, sign, verify.",
    ),
    "registry": (
        "quote_platform.delivery.prune_cli",
        "registry",
        "Keep the newest images of a registry, and what is used.",
    ),
    "proof": (
        "quote_platform.proof",
        "app",
        "Record which claims of the README have been proven, and when.",
    ),
}


class Commands(MutableMapping[str, Any]):
    """Commands by name, each imported when it is asked for: all of them together take most of a second."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = dict.fromkeys(COMMANDS)

    def __getitem__(self, name: str) -> Any:
        if self.known[name] is None:
            module, attribute, text = COMMANDS[name]
            found = getattr(import_module(module), attribute)
            alone = typer.Typer()
            if isinstance(found, typer.Typer):
                alone.add_typer(found, name=name, help=text)
            else:
                alone.command(name=name)(found)
            self.known[name] = typer.main.get_group(alone).commands[name]
        return self.known[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self.known[name] = command

    def __delitem__(self, name: str) -> None:
        del self.known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)


class Root(TyperGroup):
    """The command above all others."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = Commands()


app = typer.Typer(
    cls=Root,
    help="Lab, mirror, jobs and verification of the Quote Platform.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


@app.callback()
def main() -> None:
    """Be called before every command."""
    use_utf8()


if __name__ == "__main__":
    app()
