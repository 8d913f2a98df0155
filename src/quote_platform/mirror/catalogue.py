"""The catalogue: what the mirror holds, in lab/mirror/catalogue.yml, with versions from versions.yml."""

import hashlib
import json
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import jinja2
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from quote_platform import paths
from quote_platform.mirror.storage import MirrorError


class Entry(BaseModel):
    """Base of all entries: a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(StrEnum):
    """A part of the platform that can be left out, and the core, which cannot."""

    CORE = "core"
    BACKUPS = "backups"
    SECRETS = "secrets"
    LOGS = "logs"
    MONITORING = "monitoring"
    CERTIFICATES = "certificates"
    DELIVERY = "delivery"
    CONFORMANCE = "conformance"  # no part of the platform: what judges its cluster


# What a mirror and a lab have where nobody names parts; delivery takes three minutes of processor time.
USUAL = tuple(part for part in Part if part not in {Part.DELIVERY, Part.CONFORMANCE})


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


# Target folder or file -> binaries as recipe/binary; recipe/* is all of a recipe.
Files = dict[str, Annotated[list[str], BeforeValidator(_as_list)]]


def _short_for(key: str) -> BeforeValidator:
    """Take a text for an entry that has only this key."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class Needed(Entry):
    """Base of what only some parts of the platform need."""

    # Not in an artifact's key: what it is made of stays the same.
    part: Annotated[tuple[Part, ...], BeforeValidator(_as_list), Field(exclude=True)] = (Part.CORE,)


class Binaries(Entry):
    """Binaries compiled from one Go module."""

    packages: dict[str, str]
    # `BINARY NAME` counts for that binary only, such as a version of its own.
    variables: dict[str, str] = {}
    tags: list[str] = []
    cgo: bool = False


class Root(Entry):
    """A root file system made of Debian packages."""

    suite: str
    packages: list[str]
    commands: list[str] = []


class DatedRoot(Root):
    """A root file system of the packages that an archive has, such as Debian's at a moment."""

    archive: str


class Repository(Entry):
    """A signed apt repository."""

    path: str
    upstream: str
    key: str
    suite: str = ""
    component: str = ""


class Package(Needed):
    """A Debian package."""

    repository: str
    version: str
    depends: list[str] = []
    provides: list[str] = []
    conflicts: list[str] = []
    files: Files


class Archive(Entry):
    """A zip file as its publisher offers it."""

    url: str
    sha256: str


class Image(Needed):
    """A container image."""

    image: str
    root: str = ""
    files: Files = {}
    archives: dict[str, Archive] = {}  # target folder -> what is unpacked there
    folders: dict[str, str] = {}  # target -> folder of this checkout
    pause: bool = False
    application: str = ""
    entrypoint: list[str] = []
    command: list[str] = []
    environment: dict[str, str] = {}
    user: str = ""
    # Programs that run as their owner, root. Left out of keys where there are none.
    setuid: Annotated[list[str], Field(exclude_if=lambda programs: not programs)] = []

    def settings(self) -> dict[str, Any]:
        """Return how it runs, by OCI's names; an application runs as its container file says."""
        environment, user, entrypoint = dict(self.environment), self.user, self.entrypoint
        found: dict[str, Any] = {}
        if self.application:
            environment["NODE_ENV"] = "production"
            user = user or "1000:1000"
            entrypoint = entrypoint or ["node", "src/main.js"]
            found["WorkingDir"] = "/app"
        if environment:
            found["Env"] = [f"{key}={value}" for key, value in environment.items()]
        if user:
            found["User"] = user
        if entrypoint:
            found["Entrypoint"] = entrypoint
        if self.command:
            found["Cmd"] = self.command
        return found


class Manifest(Entry):
    """A release manifest by URL; without a checksum the first one fetched is the one."""

    url: str
    sha256: str = ""


class Maker(StrEnum):
    """How a publisher makes a release manifest of what Helm renders; mirror/charts.py has each."""

    CONCATENATED = "concatenated"
    WITHOUT_HELM = "without-helm"


class Chart(Entry):
    """The chart of which a release manifest is made, and how Helm is called for it."""

    folder: str
    maker: Maker
    release: str
    namespace: str
    values: list[str] = []  # files of the module
    options: list[str] = []


class Origin(Needed):
    """The recipe with a publisher's release manifests in a module, or the charts of which they are made."""

    recipe: str
    module: str = ""  # if it is not the first
    charts: dict[str, Chart] = {}  # file name of a manifest -> chart; others lie in the module


class Unbuildable(Needed):
    """Why a component has no source that can be built."""

    reason: str


class Catalogue(Entry):
    """All of it."""

    kubernetes: dict[str, dict[str, str]] = {}
    binaries: dict[str, Binaries]
    roots: dict[str, Root]
    repositories: dict[str, Repository]
    packages: dict[str, Package]
    images: list[Image]
    manifests: dict[str, Annotated[Origin, _short_for("recipe")]]
    unbuildable: dict[str, Annotated[Unbuildable, _short_for("reason")]]
    release_manifests: list[Manifest] = []
    unbuildable_images: dict[str, list[str]] = {}


def folder() -> Path:
    """Return lab/mirror of the checkout."""
    return paths.repository() / "lab" / "mirror"


def versions(kubernetes: str = "") -> dict[str, Any]:
    """Return the variables of versions.yml with their templates resolved, or as with that version."""
    path = paths.repository() / "group_vars" / "all" / "versions.yml"
    raw: dict[str, Any] = yaml.safe_load(path.read_text())
    if kubernetes:
        raw |= other_kubernetes()[kubernetes]
    return rendered(raw)


def rendered(raw: dict[str, Any]) -> dict[str, Any]:
    """Return variables with their templates resolved, which name others of them."""
    return {name: _render(value, raw) for name, value in raw.items()}


def _render(value: Any, context: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {_render(key, context): _render(item, context) for key, item in value.items()}
    if isinstance(value, list):
        return [_render(item, context) for item in value]
    if not isinstance(value, str):
        return value
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 (no HTML)
    for _ in range(4):  # a variable may name another
        if "{{" not in value:
            break
        value = environment.from_string(value).render(context)
    return value


def go_mod(recipe: str) -> Path:
    """Return the file that lists a recipe's modules."""
    return folder() / "recipes" / recipe / "go.mod"


def module(recipe: str) -> tuple[str, str]:
    """Return path and version (without v) of the module that a recipe is about: the first required one."""
    text = go_mod(recipe).read_text()
    found = re.search(r"^require (\S+) v(\S+)$", text, re.MULTILINE)
    if not found:
        raise MirrorError(f"lab/mirror/recipes/{recipe}/go.mod: no line `require MODULE vVERSION` of its own")
    return found.group(1), found.group(2)


def modules(recipe: str) -> dict[str, str]:
    """Return the version of each module that a recipe lists."""
    text = go_mod(recipe).read_text()
    return dict(re.findall(r"^(?:require |\t)(\S+) (v\S+)", text, re.MULTILINE))


def other_kubernetes() -> dict[str, dict[str, str]]:
    """Return the versions of Kubernetes beside that of versions.yml, each with the pins that belong to it."""
    raw = yaml.safe_load((folder() / "catalogue.yml").read_text())
    return {version: {"kubernetes_version": version} | pins for version, pins in raw["kubernetes"].items()}


def other(kubernetes: str) -> Catalogue:
    """Return what the mirror holds of another version of Kubernetes: what carries its number."""
    if kubernetes not in other_kubernetes():
        raise MirrorError(
            f"--kubernetes {kubernetes}: allowed is {' or '.join(other_kubernetes())}, "
            "which lab/mirror/catalogue.yml names"
        )
    whole, usual = load(kubernetes).model_dump(), load().model_dump()
    recipe = f"kubernetes-{kubernetes}"

    def renamed(entry: dict[str, Any]) -> dict[str, Any]:
        files = {
            target: [re.sub("^kubernetes/", f"{recipe}/", name) for name in names]
            for target, names in entry["files"].items()
        }
        return entry | {"files": files}

    packages = {
        name: renamed(entry) for name, entry in whole["packages"].items() if entry != usual["packages"][name]
    }
    images = [renamed(entry) for entry in whole["images"] if entry not in usual["images"]]
    wanted = {
        name for entry in [*packages.values(), *images] for names in entry["files"].values() for name in names
    }
    binaries = whole["binaries"]["kubernetes"]
    binaries["packages"] = {
        name: path for name, path in binaries["packages"].items() if f"{recipe}/{name}" in wanted
    }
    return Catalogue.model_validate(
        whole
        | {"binaries": whole["binaries"] | {recipe: binaries}, "packages": packages, "images": images}
        | {"release_manifests": [], "unbuildable_images": {}}
    )


def module_version(recipe: str) -> str:
    """Return the version of a recipe's module."""
    return module(recipe)[1]


def load(kubernetes: str = "") -> Catalogue:
    """Read the catalogue and what versions.yml adds to it: release manifests and images without source."""
    known = versions(kubernetes)
    raw = yaml.safe_load((folder() / "catalogue.yml").read_text())
    for name, recipe in raw["binaries"].items():
        raw["binaries"][name] = _render(recipe, {**known, "module_version": module_version(name)})
    try:
        raw = _render(raw, known)
        raw["release_manifests"] = [
            manifest for name, value in known.items() if name.endswith("_manifests") for manifest in value
        ]
        raw["unbuildable_images"] = {
            component: [
                value
                for name, value in known.items()
                if name.startswith(component.replace("-", "_") + "_") and name.endswith("_image")
            ]
            for component in raw["unbuildable"]
        }
        return Catalogue.model_validate(raw)
    except (ValidationError, jinja2.UndefinedError) as error:
        raise MirrorError(f"lab/mirror/catalogue.yml: {error}") from error


def digest(*parts: Any) -> str:
    """Return a short hash of a recipe: what it says and the files it names."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            for file in sorted(part.rglob("*")) if part.is_dir() else [part]:
                if file.is_file() and not {"node_modules", "__pycache__"} & set(file.parts):
                    sha.update(str(file.relative_to(part)).encode() + file.read_bytes())
        elif isinstance(part, BaseModel):
            sha.update(part.model_dump_json().encode())
        else:
            sha.update(json.dumps(part, sort_keys=True).encode())
        sha.update(b"\0")
    return sha.hexdigest()[:16]
