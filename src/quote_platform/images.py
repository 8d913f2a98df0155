"""Names of images: registry, repository, tag and digest."""

from __future__ import annotations

import re
from dataclasses import dataclass

# The registry of an image whose name has none.
DEFAULT = "docker.io"
PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REPOSITORY = re.compile(rf"{PART}(?:/{PART})*")
TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def registry(image: str) -> str:
    """Return the registry of an image, by the rules of containerd."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else DEFAULT


def untagged(image: str) -> tuple[str, str]:
    """Return name and tag of an image, without a digest."""
    name, _, tag = image.partition("@")[0].rpartition(":")
    return name, tag


@dataclass(frozen=True)
class Reference:
    """An image as versions.yml and manifests name it."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read NAME[:TAG][@sha256:...]; a ValueError says what is wrong with it."""
        name, at, digest = text.partition("@")
        path, colon, tag = name.rpartition(":")
        if not colon or "/" in tag:  # the colon of a port
            path, tag = name, ""
        host = registry(path)
        repository = path.removeprefix(f"{host}/")
        if host == DEFAULT and "/" not in repository:
            repository = f"library/{repository}"
        if not REPOSITORY.fullmatch(repository):
            raise ValueError(
                f"{text}: not an image; allowed is REGISTRY/NAME:TAG or REGISTRY/NAME:TAG@DIGEST"
            )
        if tag and not TAG.fullmatch(tag):
            raise ValueError(f"{text}: not a tag: {tag!r}; allowed are letters, digits, and ._- inside")
        if at and not DIGEST.fullmatch(digest):
            raise ValueError(
                f"{text}: not a digest: {digest!r}; allowed is sha256: and 64 hexadecimal digits"
            )
        return cls(host, repository, tag, digest)

    @property
    def name(self) -> str:
        """Return registry and repository."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{f'@{self.digest}' if self.digest else ''}"
