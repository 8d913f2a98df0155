"""Pins against what registries and publishers have: tags, digests, checksums, and what is newer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

import httpx

from quote_platform.delivery import DeliveryError, NotThereError, signature
from quote_platform.delivery.registry import Access, Repository
from quote_platform.delivery.versions import Image, Manifest, Versions

AT_ONCE = 8
BUNDLE = "application/vnd.dev.sigstore.bundle"  # cosign's, since its version 3
MANIFEST_SECONDS = 30.0
NUMBERS = re.compile(r"(v?)(\d+(?:\.\d+)*)(.*)", re.DOTALL)


class Within(StrEnum):
    """How far a newer tag may be: no other tag, the same major and minor version, the same major version."""

    DIGEST = "digest"
    PATCH = "patch"
    MINOR = "minor"


class State(StrEnum):
    """What a registry or publisher has, beside what is pinned."""

    SAME = "same"
    UNPINNED = "unpinned"  # by tag only
    MOVED = "moved"  # the tag stands for another image than the pinned one
    CHANGED = "changed"  # the URL serves another content than the pinned one
    GONE = "gone"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Row:
    """One pin and what was found."""

    kind: str  # image, manifest
    variable: str
    pinned: str
    state: State
    found: str = ""  # the digest or checksum that is there
    newer: str = ""  # a tag
    note: str = ""
    signed: str = ""  # whether a signature is attached, and by whom

    @property
    def differs(self) -> bool:
        """Tell whether somebody should look at it."""
        return self.state is not State.SAME or bool(self.newer)

    def data(self) -> dict[str, Any]:
        """Return it for programs."""
        return asdict(self) | {"differs": self.differs}


def scheme(tag: str) -> tuple[str, tuple[int, ...], str] | None:
    """Return prefix, numbers and suffix of a tag, None where it has no version.

    A suffix that is a number only (3.6.14-0, a rebuild) is the last of the numbers.
    """
    if not (found := NUMBERS.fullmatch(tag)):
        return None
    prefix, numbers, suffix = found.groups()
    parts = tuple(int(number) for number in numbers.split("."))
    if rebuild := re.fullmatch(r"-(\d+)", suffix):
        return prefix, (*parts, int(rebuild[1])), "-"
    return prefix, parts, suffix


def newest(tag: str, tags: Iterable[str], within: Within) -> str:
    """Return the newest tag of the same scheme that is newer, or an empty text.

    The scheme is all but the numbers: `v`, their count, and what follows, such as -standard-trixie.
    """
    own = scheme(tag)
    if own is None or within is Within.DIGEST or len(own[1]) < 2:
        return ""
    # 17.12-standard-trixie has its patch version second.
    fixed = 1 if within is Within.MINOR else min(2, len(own[1]) - 1)
    best, chosen = own[1], ""
    for other in tags:
        one = scheme(other)
        same = one is not None and (one[0], len(one[1]), one[2]) == (own[0], len(own[1]), own[2])
        if one and same and one[1][:fixed] == own[1][:fixed] and one[1] > best:
            best, chosen = one[1], other
    return chosen


@dataclass(frozen=True)
class Signatures:
    """Who has signed images, as far as that can be known: by a key, or by anybody."""

    key: signature.Public | None = None

    def of(self, repository: Repository, digest: str) -> str:
        """Return `by the key`, `attached` (somebody has signed it, who is not known here), or `none`."""
        if self.key and signature.is_signed(repository, digest, self.key, repository.name):
            return "by the key"
        kinds = [str(entry.get("artifactType")) for entry in repository.referrers(digest)]
        try:
            repository.resolve(signature.tag_of(digest))
        except NotThereError:
            return "attached" if any(kind.startswith(BUNDLE) for kind in kinds) else "none"
        return "attached"


class Pins:
    """Looks pins up. With a base URL, manifests are asked for there under their path, as Ansible does."""

    def __init__(
        self,
        versions: Versions,
        access: Access,
        manifest_base_url: str = "",
        signatures: Signatures | None = None,
    ) -> None:
        self.versions, self.access, self.base_url = versions, access, manifest_base_url
        self.signatures = signatures

    def check(self, within: Within = Within.MINOR, only: Iterable[str] = ()) -> list[Row]:
        """Return a row for each image and manifest, or for those with a word in their variable's name."""
        words = list(only)
        jobs: list[Callable[[], Row]] = []
        for image in self.versions.images():
            if not words or any(word in image.variable for word in words):
                jobs.append(lambda image=image: self.image(image, within))  # type: ignore[misc]
        for manifest in self.versions.manifests():
            if not words or any(word in manifest.variable for word in words):
                jobs.append(lambda manifest=manifest: self.manifest(manifest))  # type: ignore[misc]
        if not jobs:
            raise DeliveryError(f"no pin has {' or '.join(words)} in its name")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return [job.result() for job in [pool.submit(job) for job in jobs]]

    def image(self, image: Image, within: Within) -> Row:
        """Look an image up."""
        reference, pinned = image.reference, str(image.reference)

        signed = ""

        def row(state: State, found: str = "", newer: str = "", note: str = "") -> Row:
            return Row("image", image.variable, pinned, state, found, newer, note, signed)

        try:
            with self.access.repository(reference.registry, reference.repository) as repository:
                newer = ""
                if within is not Within.DIGEST:
                    newer = newest(reference.tag, repository.tags(), within)
                try:
                    found = repository.resolve(reference.tag)
                    if self.signatures:
                        signed = self.signatures.of(repository, reference.digest or found)
                except NotThereError:
                    return row(State.GONE, newer=newer, note="the registry does not have this tag")
        except NotThereError:
            return row(State.GONE, note="the registry has no such repository")
        except DeliveryError as error:
            return row(State.UNREACHABLE, note=str(error))
        note = "its tag comes from another variable" if newer and image.templated else ""
        if not reference.digest:
            return row(State.UNPINNED, found, newer, note)
        return row(State.SAME if found == reference.digest else State.MOVED, found, newer, note)

    def manifest(self, manifest: Manifest) -> Row:
        """Look a manifest up."""

        def row(state: State, found: str = "", note: str = "") -> Row:
            return Row("manifest", manifest.variable, manifest.url, state, found, note=note)

        try:
            found = self.checksum(manifest.url)
        except NotThereError as error:
            return row(State.GONE, note=str(error))
        except DeliveryError as error:
            return row(State.UNREACHABLE, note=str(error))
        return row(State.SAME if found == manifest.sha256 else State.CHANGED, found)

    def checksum(self, url: str) -> str:
        """Return the SHA-256 of what a URL serves."""
        target = f"{self.base_url.rstrip('/')}{urlsplit(url).path}" if self.base_url else url
        sha = hashlib.sha256()
        try:
            with (
                self.access.client(MANIFEST_SECONDS) as client,
                client.stream("GET", target, follow_redirects=True) as answer,
            ):
                if answer.status_code == 404:
                    raise NotThereError(f"{target}: not there")
                answer.raise_for_status()
                for piece in answer.iter_bytes():
                    sha.update(piece)
        except httpx.HTTPError as error:
            raise DeliveryError(f"{target}: {error}") from error
        return sha.hexdigest()

    def update(
        self, within: Within = Within.DIGEST, only: Iterable[str] = ()
    ) -> tuple[list[Row], dict[str, str]]:
        """Pin each image to the digest of its tag, or of a newer one; return the rows and what was written.

        Manifests whose URL names the version of an image of the same component follow it, with the checksum
        of what is served there. One that differs from its checksum under its own URL is left: somebody has to
        look.
        A tag that has moved is pinned anew only when it is asked for by the name of its variable.
        """
        rows = self.check(within, only)
        named = set(only)
        images: dict[str, str] = {}
        manifests: dict[Manifest, tuple[str, str]] = {}
        for row in rows:
            if row.kind != "image" or not (row.found or row.newer):
                continue
            image = self.versions.image(row.variable)
            if row.newer and not image.templated:
                followers = self._followers(image, row.newer)
                images[row.variable] = self.versions.pinned(image, self._digest(image, row.newer), row.newer)
                manifests |= followers
            elif row.state is State.UNPINNED or (row.state is State.MOVED and row.variable in named):
                images[row.variable] = self.versions.pinned(image, row.found)
        self.versions.edit(images, manifests)
        return rows, images | {manifest.url: url for manifest, (url, _) in manifests.items()}

    def _digest(self, image: Image, tag: str) -> str:
        with self.access.repository(image.reference.registry, image.reference.repository) as repository:
            return repository.resolve(tag)

    def _followers(self, image: Image, tag: str) -> dict[Manifest, tuple[str, str]]:
        """Return the manifests of a component that carry its image's version: next URL and checksum."""
        old, new = image.reference.tag.removeprefix("v"), tag.removeprefix("v")
        exactly = re.compile(rf"(?<![\d.]){re.escape(old)}(?![\d]|\.\d)")
        found = {}
        for manifest in self.versions.manifests():
            component = manifest.variable.removesuffix("manifests")
            if image.variable.startswith(component) and exactly.search(manifest.url):
                url = exactly.sub(new, manifest.url)
                found[manifest] = (url, self.checksum(url))
        return found
