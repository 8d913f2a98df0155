"""What an environment runs of the project's images: a file of its inventory, a commit for each change."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from quote_platform.delivery import DeliveryError
from quote_platform.delivery.release import IMAGES
from quote_platform.images import Reference

HEADER = (
    "# Written by `quote-platform release promote`; a deployment is a commit. It wins over versions.yml.\n"
)


def file_of(inventory: Path) -> Path:
    """Return the file of an inventory's images."""
    if not inventory.is_dir():
        raise DeliveryError(f"--inventory {inventory}: no such folder")
    return inventory / "group_vars" / "platform" / "images.yml"


def variable(reference: Reference) -> str:
    """Return which variable an image is for, by the last part of its name."""
    name = reference.repository.rpartition("/")[2]
    if name not in IMAGES:
        raise DeliveryError(f"{reference}: allowed is an image named {' or '.join(IMAGES)}")
    return IMAGES[name]


def read(text: str, where: str) -> dict[str, str]:
    """Return the images in a file's text; anything else in it is refused."""
    try:
        given: Any = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise DeliveryError(f"{where}: not YAML") from error
    if not isinstance(given, dict) or not set(given) <= set(IMAGES.values()):
        raise DeliveryError(f"{where}: allowed are {' and '.join(IMAGES.values())}: put the rest elsewhere")
    return {name: str(image) for name, image in given.items()}


def promote(inventory: Path, references: Iterable[Reference]) -> dict[str, str]:
    """Write images into an inventory; return what changed. Those that are not named stay."""
    file = file_of(inventory)
    before = read(file.read_text(), str(file)) if file.is_file() else {}
    after = dict(before)
    for reference in references:
        if not reference.digest or not reference.tag:
            raise DeliveryError(f"{reference}: allowed is REGISTRY/NAME:TAG@DIGEST: a tag alone may change")
        after[variable(reference)] = str(reference)
    return _write(file, before, after)


def rollback(inventory: Path, commit: str = "") -> dict[str, str]:
    """Write what an inventory had before its last change, or at a commit; return what changed."""
    file = file_of(inventory)
    if commit.startswith("-"):
        raise DeliveryError(f"--to {commit}: allowed is the name of a commit")
    if not file.is_file():
        raise DeliveryError(f"{file}: nothing has been promoted there")
    before = read(file.read_text(), str(file))
    for one in [commit] if commit else _git(file.parent, "log", "--format=%H", "--", file.name).split():
        text = _git(file.parent, "show", f"{one}:./{file.name}")
        after = read(text, f"{file} at {one}")
        if after != before:
            return _write(file, before, after)
        if commit:
            return {}
    raise DeliveryError(f"{file}: its history has no other images (is the checkout a shallow one?)")


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DeliveryError(f"git {words[0]}: {' '.join(done.stderr.split())[:200]}")
    return done.stdout


def _write(file: Path, before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    changed = {
        name: after.get(name, "as in versions.yml")
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }
    if changed:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}")
        part.write_text(HEADER + yaml.safe_dump(after, width=200))
        part.replace(file)
    return changed
