"""Keep the recipes at the same versions of what they share, so that Go compiles it once for all of them."""

import re
import shutil
from collections.abc import Callable, Iterable

from quote_platform.mirror import catalogue as cat
from quote_platform.mirror.source import Source, run

INDIRECT = re.compile(r"^(?:require |\t)(\S+) v\S+ // indirect$")
REPLACED = re.compile(r"^(?:replace |\t)(\S+)(?: v\S+)? => (\S+)(?: (v\S+))?$", re.MULTILINE)


def order(version: str) -> tuple[object, ...]:
    """Return what puts versions in their order: https://semver.org, clause 11."""
    core, _, before = version.removeprefix("v").partition("+")[0].partition("-")
    numbers = tuple(int(part) for part in core.split("."))
    parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in before.split("."))
    return (numbers, not before, parts)


def newest(recipes: Iterable[str]) -> dict[str, str]:
    """Return the version at which each module is to be: the highest that a recipe lists."""
    found: dict[str, str] = {}
    subjects = set()
    for recipe in recipes:
        subjects.add(cat.module(recipe)[0])
        for name, version in used(recipe).items():
            found[name] = max(found.get(name, version), version, key=order)
    # What a recipe is about has the version of versions.yml there, whatever others take of it.
    return {name: version for name, version in found.items() if name not in subjects}


def used(recipe: str) -> dict[str, str]:
    """Return the version of each module with which a recipe is built."""
    return {
        name: version
        for name, version in (cat.modules(recipe) | pinned(recipe)).items()
        if version  # not one of another name, or of this checkout
    }


def pinned(recipe: str) -> dict[str, str]:
    """Return the modules that a recipe replaces: with another version, or with another module (empty)."""
    found = REPLACED.findall(cat.go_mod(recipe).read_text())
    return {name: version if name == target else "" for name, target, version in found}


def differing(recipes: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the modules of each recipe of which others have a newer version, with that."""
    recipes = list(recipes)
    wanted = newest(recipes)
    found = {}
    for recipe in recipes:
        kept = pinned(recipe)
        behind = {
            name: wanted[name]
            for name, version in used(recipe).items()
            if name in wanted and version != wanted[name] and name not in kept
        }
        if behind:
            found[recipe] = behind
    return found


def align(source: Source, say: Callable[[str], None]) -> None:
    """Complete each recipe's list, and raise what is behind, until all agree."""
    recipes = list(source.catalogue.binaries)
    for recipe in recipes:
        complete(source, recipe)
    while behind := differing(recipes):
        for recipe, versions in behind.items():
            say(f"{recipe}: {len(versions)} modules")
            text = cat.go_mod(recipe).read_text()
            for name, version in versions.items():
                text = re.sub(
                    rf"^((?:require |\t){re.escape(name)}) v\S+", rf"\1 {version}", text, flags=re.M
                )
            cat.go_mod(recipe).write_text(text)
            complete(source, recipe)


def complete(source: Source, recipe: str) -> None:
    """Leave out modules of a recipe from which nothing is built, and add those that are missing."""
    needed = _modules(source, recipe)
    listed = cat.go_mod(recipe).read_text().splitlines(keepends=True)
    kept = [line for line in listed if not (found := INDIRECT.match(line)) or found[1] in needed]
    # Go builds with what its modules ask for where nothing is listed: others would have another version.
    missing = sorted(needed.keys() - cat.modules(recipe).keys() - pinned(recipe).keys())
    if missing:
        kept += ["\nrequire (\n", *(f"\t{name} {needed[name]} // indirect\n" for name in missing), ")\n"]
    if kept != listed:
        cat.go_mod(recipe).write_text("".join(kept))
        _modules(source, recipe)


def _modules(source: Source, recipe: str) -> dict[str, str]:
    """Return the modules whose packages are built, with versions; Go adds to the lists what it misses."""
    entry = source.catalogue.binaries[recipe]
    with source.edited(recipe) as folder:
        command = [source.go(), "list", "-mod=mod", "-deps", "-tags", ",".join(entry.tags)]
        command += ["-f", "{{with .Module}}{{.Path}} {{.Version}}{{end}}", *entry.packages.values()]
        printed = run(command, cwd=folder, env=source.go_environment(recipe))
        if folder != cat.go_mod(recipe).parent:
            own, kept = list[str](), pinned(recipe)
            for line in (folder / "go.mod").read_text().splitlines(keepends=True):
                start, copied, _ = line.partition(" => ../")
                name = start.split()[-1] if copied else ""
                if not copied:
                    own.append(line)
                elif kept.get(name):  # its version, which the copy's folder has taken the place of
                    own.append(f"{start} => {name} {kept[name]}\n")
            cat.go_mod(recipe).write_text("".join(own).rstrip("\n") + "\n")
            shutil.copyfile(folder / "go.sum", cat.go_mod(recipe).with_name("go.sum"))
    found = (line.split() for line in set(printed.splitlines()))
    return {words[0]: words[1] for words in found if len(words) == 2}  # not the recipe itself
