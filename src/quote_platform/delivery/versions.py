"""The file of pins, group_vars/all/versions.yml: read with its templates, changed in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from quote_platform.delivery import DeliveryError
from quote_platform.images import DIGEST, Reference
from quote_platform.mirror import catalogue


@dataclass(frozen=True)
class Image:
    """A variable that names an image."""

    variable: str
    written: str  # as it stands, with templates
    reference: Reference

    @property
    def templated(self) -> bool:
        """Tell whether its tag comes from another variable."""
        return "{{" in self.written.partition("@")[0]


@dataclass(frozen=True)
class Manifest:
    """A manifest by its URL."""

    variable: str
    index: int
    url: str
    sha256: str


class Versions:
    """The pins of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.text = path.read_text()
            self.values: dict[str, Any] = yaml.safe_load(self.text)
            self.rendered = catalogue.rendered(self.values)
        except (OSError, yaml.YAMLError, ValueError) as error:
            raise DeliveryError(f"{path}: cannot be read: {error}") from error

    def images(self) -> list[Image]:
        """Return the variables that name an image of their own."""
        found = []
        for variable, written in self.values.items():
            if not variable.endswith("_image") or str(written).startswith("{{"):
                continue  # one that is another's is pinned with it
            try:
                found.append(Image(variable, str(written), Reference.parse(self.rendered[variable])))
            except ValueError as error:
                raise DeliveryError(f"{self.path}: {variable}: {error}") from error
        return found

    def image(self, variable: str) -> Image:
        """Return one of them by its variable."""
        for one in self.images():
            if one.variable == variable:
                return one
        raise DeliveryError(f"{self.path}: no image {variable}; there are {', '.join(sorted(self.values))}")

    def manifests(self) -> list[Manifest]:
        """Return all manifests."""
        return [
            Manifest(variable, index, entry["url"], entry.get("sha256", ""))
            for variable, entries in self.rendered.items()
            if variable.endswith("_manifests")
            for index, entry in enumerate(entries)
        ]

    def pinned(self, image: Image, digest: str, tag: str = "", name: str = "") -> str:
        """Return what a variable is to say, with this digest and perhaps another tag or name."""
        if not DIGEST.fullmatch(digest):
            raise DeliveryError(f"{image.variable}: {digest!r} is no digest")
        written = image.written.partition("@")[0]
        if tag or name:
            if image.templated:
                raise DeliveryError(f"{image.variable}: its tag comes from a variable: {written}")
            path, _, own = written.rpartition(":")
            written = f"{name or path}:{tag or own}"
        return f"{written}@{digest}"

    def edit(
        self, images: Mapping[str, str], manifests: Mapping[Manifest, tuple[str, str]] | None = None
    ) -> bool:
        """Write what variables are to say, and URL and checksum of manifests; tell whether that was a change.

        Comments, order and quotes stay as they are.
        """
        root = yaml.compose(self.text)
        if not isinstance(root, yaml.MappingNode):
            raise DeliveryError(f"{self.path}: not a mapping of variables")
        nodes = {key.value: value for key, value in root.value}
        places: list[tuple[yaml.ScalarNode, str]] = [(nodes[name], text) for name, text in images.items()]
        for manifest, (url, sha256) in (manifests or {}).items():
            fields = {key.value: value for key, value in nodes[manifest.variable].value[manifest.index].value}
            places += [(fields["url"], url), (fields["sha256"], sha256)]
        text = self.text
        for node, value in sorted(places, key=lambda place: place[0].start_mark.index, reverse=True):
            quote = node.style if node.style in ("'", '"') else ""
            text = f"{text[: node.start_mark.index]}{quote}{value}{quote}{text[node.end_mark.index :]}"
        after = yaml.safe_load(text)
        if after.keys() != self.values.keys() or any(after[name] != value for name, value in images.items()):
            raise DeliveryError(
                f"{self.path}: cannot be edited: write it as it was before, one variable a line"
            )
        if text == self.text:
            return False
        part = self.path.with_name(f".{self.path.name}")
        part.write_text(text)
        part.chmod(self.path.stat().st_mode & 0o777)
        part.replace(self.path)
        return True
