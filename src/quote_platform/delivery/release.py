"""The project's own images: built from a commit, pushed with what goes with them, signed, verified."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml

from quote_platform import paths
from quote_platform.delivery import DeliveryError, NotThereError, RefusedError, documents, oci, signature
from quote_platform.delivery.registry import MANIFEST, Access, Repository, canonical
from quote_platform.delivery.versions import Versions
from quote_platform.images import TAG, Reference
from quote_platform.mirror import catalogue
from quote_platform.mirror.source import Source
from quote_platform.mirror.storage import MirrorError

# What is released: name -> its variable in versions.yml. Each is an entry of lab/mirror/catalogue.yml.
IMAGES = {"quote-app": "quote_app_image", "backup": "snapshots_image"}
# What an application's container file copies.
APPLICATION = ("package.json", "migrations", "src", "node_modules")
INSTALL = ["ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"]
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SNAPSHOTS = "https://snapshot.debian.org/archive/debian/{time}/"
BUILDER = "https://github.com/quote-platform/quote-platform/releases/by-hand"


@dataclass(frozen=True)
class Commit:
    """What is released: a commit of this checkout. Changes that are not committed are not in it."""

    revision: str
    epoch: int

    @property
    def created(self) -> str:
        """Return its time, in UTC."""
        return datetime.fromtimestamp(self.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def archive(self, url: str) -> str:
        """Return the URL of an archive of packages, where {time} stands for its time."""
        moment = datetime.fromtimestamp(self.epoch, UTC).strftime("%Y%m%dT%H%M%SZ")
        if not re.fullmatch(r"https?://[\w.:-]+/[\w./:{}-]*", url):
            raise DeliveryError(f"--debian {url}: allowed is the URL of an archive, such as {SNAPSHOTS}")
        return url.replace("{time}", moment)

    def text(self, path: str) -> str:
        """Return a file of it."""
        return _git("show", f"{self.revision}:{path}").decode()


def _git(*words: str) -> bytes:
    done = subprocess.run(["git", *words], cwd=paths.repository(), capture_output=True, check=False)
    if done.returncode != 0:
        raise DeliveryError(f"git {words[0]}: {' '.join(done.stderr.decode().split())[:200]}")
    return done.stdout


def commit(revision: str = "HEAD") -> Commit:
    """Return a commit by any name that Git knows."""
    if revision.startswith("-"):
        raise DeliveryError(f"--revision {revision}: allowed is the name of a commit")
    found = _git("log", "-1", "--format=%H %ct", f"{revision}^{{commit}}", "--").decode().split()
    return Commit(found[0], int(found[1]))


@dataclass(frozen=True)
class Release:
    """An image with what goes with it."""

    name: str
    variable: str
    tag: str
    built: oci.Built
    sbom: bytes
    commit: Commit
    source: str
    materials: tuple[dict[str, Any], ...]


def described(name: str, made: Commit) -> tuple[catalogue.Image, catalogue.Root, Reference]:
    """Return the recipes of an image and of its root file system, and its name, as a commit has them."""
    if name not in IMAGES:
        raise DeliveryError(f"--image {name}: allowed is {' or '.join(IMAGES)}")
    pins = catalogue.rendered(yaml.safe_load(made.text("group_vars/all/versions.yml")))
    wanted = f"{{{{ {IMAGES[name]} }}}}"
    recipes = yaml.safe_load(made.text("lab/mirror/catalogue.yml"))
    for recipe in recipes["images"]:
        if recipe["image"] == wanted:
            image = catalogue.Image.model_validate(recipe)
            root = catalogue.Root.model_validate(recipes["roots"][image.root])
            return image, root, Reference.parse(pins[IMAGES[name]])
    raise DeliveryError(f"lab/mirror/catalogue.yml has no image {wanted} in {made.revision}")


@contextmanager
def build(
    name: str,
    made: Commit,
    *,
    tag: str = "",
    source: str = "",
    debian: str = "",
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Release]:
    """Build an image from a commit; its layers are there until the end.

    Two builds of one commit on the same root file system are the same image, wherever they are made.
    """
    recipe, root_recipe, reference = described(name, made)
    if debian:
        root_recipe = catalogue.DatedRoot(**root_recipe.model_dump(), archive=made.archive(debian))
    tag = tag or reference.tag
    if not TAG.fullmatch(tag):
        raise DeliveryError(f"--tag {tag!r}: not a tag; allowed are letters, digits, and ._- inside")
    source = source or tomllib.loads(made.text("pyproject.toml"))["project"]["urls"]["Source"]
    labels = {
        "org.opencontainers.image.created": made.created,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.revision": made.revision,
        "org.opencontainers.image.source": source,
        "org.opencontainers.image.title": name,
        "org.opencontainers.image.version": tag,
    }
    with tempfile.TemporaryDirectory(prefix="quote-release-") as temporary:
        work = Path(temporary)
        root = _root(recipe.root, root_recipe, say)
        base = oci.base_layer(root, 0, paths.cache() / "release")
        say(f"{name}: its base is {base.digest}")
        trees, application = _trees(recipe, made, work)
        settings = recipe.settings()
        if not any(pair.startswith("PATH=") for pair in settings.get("Env", [])):
            settings["Env"] = [PATH, *settings.get("Env", [])]
        layers = [base, oci.own_layer(trees, made.epoch, work)]
        built = oci.image(layers, settings, labels, made.created)
        packages = documents.debian(oci.member(root, "var/lib/dpkg/status"))
        sbom = documents.bill(name, tag, made.created, packages, application)
        say(f"{name}: {built.digest}, {len(json.loads(sbom)['components'])} components")
        materials = (
            {"uri": f"git+{source}", "digest": {"gitCommit": made.revision}},
            {
                "name": f"root file system {recipe.root}",
                "digest": {"sha256": base.plain.removeprefix("sha256:")},
            },
        )
        yield Release(name, IMAGES[name], tag, built, sbom, made, source, materials)


def _root(name: str, recipe: catalogue.Root, say: Callable[[str], None]) -> Path:
    try:
        known = catalogue.load().model_copy(update={"roots": {name: recipe}})
        return Source(known, say).filesystem(name)
    except MirrorError as error:
        raise DeliveryError(str(error)) from error


def _trees(recipe: catalogue.Image, made: Commit, work: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    """Return what is put where in an image, and npm's list of it."""
    wanted = [recipe.application] if recipe.application else list(recipe.folders.values())
    with tarfile.open(fileobj=BytesIO(_git("archive", made.revision, "--", *wanted))) as packed:
        packed.extractall(work / "commit", filter="data")
    if not recipe.application:
        return {target: work / "commit" / folder for target, folder in recipe.folders.items()}, {}
    folder = work / "commit" / recipe.application
    documents.npm(folder, *INSTALL)
    trees = {f"/app/{name}": folder / name for name in APPLICATION if (folder / name).exists()}
    return trees, documents.node(folder)


def push(release: Release, repository: Repository, key: signature.Private | None, builder: str = "") -> bool:
    """Push an image with its documents and sign it; tell whether something was there to do.

    A tag that stands for another image is refused: what has been released stays what it was.
    """
    digest = release.built.digest
    try:
        there = repository.resolve(release.tag)
    except NotThereError:
        there = ""
    if there not in ("", digest):
        raise RefusedError(
            f"{repository.name}:{release.tag} is {there} already, and {release.commit.revision[:12]} makes "
            f"{digest}: raise the version in group_vars/all/versions.yml, or give another --tag"
        )
    for layer in release.built.layers:
        if not repository.has_blob(layer.digest):
            repository.put_blob(layer.file.read_bytes())
    repository.put_blob(release.built.config)
    attached = {entry.get("artifactType") for entry in repository.referrers(digest)} if there else set()
    # The tag comes last: who finds it finds all of it.
    repository.put_manifest(release.built.manifest, MANIFEST)
    told = statement(release, repository, builder)
    subject, created = release.built.descriptor, {"org.opencontainers.image.created": release.commit.created}
    changed = there != digest
    if documents.CYCLONEDX not in attached:
        repository.attach(subject, documents.CYCLONEDX, release.sbom, documents.CYCLONEDX, created)
        changed = True
    kind = signature.ENVELOPE if key else signature.STATEMENT
    if (not _told(repository, digest, key.public_key())) if key else kind not in attached:
        content = signature.envelope(told, key) if key else canonical(told)
        notes = created | {"in-toto.io/predicate-type": documents.PROVENANCE}
        repository.attach(subject, kind, content, kind, notes)
        changed = True
    if key:
        changed |= signature.sign(repository, digest, key)
    repository.put_manifest(release.built.manifest, MANIFEST, release.tag)
    return changed


def statement(release: Release, repository: Repository, builder: str = "") -> dict[str, Any]:
    """Return the provenance of a release that is pushed to a repository."""
    asked = {
        "image": release.name,
        "tag": release.tag,
        "revision": release.commit.revision,
        "source": release.source,
    }
    subject = (repository.name, release.built.digest)
    return documents.provenance(subject, asked, list(release.materials), release.sbom, builder or BUILDER)


@dataclass(frozen=True)
class Verified:
    """What is known of an image that was verified."""

    image: str
    revision: str
    builder: str
    components: int


def verify(
    image: Reference, repository: Repository, key: signature.Public, *, name: str = "", layers: bool = True
) -> Verified:
    """Refuse an image that is altered, not signed by the key, or without signed provenance.

    `name` is what it was released as, if it has been copied since; with `layers`, all of them are read.
    """
    digest = image.digest or repository.resolve(image.tag or "latest")
    told = f"{repository.name}@{digest}"
    if image.digest and image.tag and (now := repository.resolve(image.tag)) != digest:
        raise RefusedError(f"{told}: the tag {image.tag} stands for {now}")
    name = name or repository.name
    manifest = json.loads(repository.manifest(digest)[1])
    signature.require(repository, digest, key, name)
    for one in [manifest.get("config", {}), *(manifest.get("layers", []) if layers else [])]:
        repository.blob(str(one.get("digest")))
    found = {entry.get("artifactType"): entry for entry in repository.referrers(digest)}
    if not (provenance := _told(repository, digest, key)):
        raise RefusedError(f"{told}: no provenance of it is attached that this key has signed")
    if documents.CYCLONEDX not in found:
        raise RefusedError(f"{told}: no SBOM is attached")
    sbom = _document(repository, found[documents.CYCLONEDX]["digest"])
    run = provenance["predicate"]["runDetails"]
    if signature.content_digest(sbom) not in [one["digest"] for one in run["byproducts"]]:
        raise RefusedError(f"{told}: its SBOM is not the one that its provenance names")
    revision = provenance["predicate"]["buildDefinition"]["externalParameters"]["revision"]
    return Verified(told, revision, run["builder"]["id"], len(json.loads(sbom)["components"]))


def _told(repository: Repository, digest: str, key: signature.Public) -> dict[str, Any]:
    """Return the provenance of an image that a key has signed, empty if there is none."""
    for entry in repository.referrers(digest):
        if entry.get("artifactType") != signature.ENVELOPE:
            continue
        try:
            found = signature.opened(_document(repository, entry["digest"]), key, entry["digest"])
        except RefusedError:
            continue
        subjects = [one.get("digest") for one in found.get("subject", [])]
        if (
            found.get("predicateType") == documents.PROVENANCE
            and {"sha256": digest.removeprefix("sha256:")} in subjects
        ):
            return found
    return {}


def _document(repository: Repository, manifest: str) -> bytes:
    return repository.blob(json.loads(repository.manifest(manifest)[1])["layers"][0]["digest"])


def target(name: str, to: str, access: Access) -> Repository:
    """Return the repository of an image below REGISTRY/PATH, which may begin with http://."""
    scheme, mark, rest = to.rstrip("/").rpartition("://")
    host, slash, path = rest.partition("/")
    if not slash:
        raise DeliveryError(f"--to {to}: allowed is REGISTRY/PATH or http://REGISTRY/PATH")
    repository = Reference.parse(f"{host}/{path}/{name}").repository
    return access.repository(f"{scheme}{mark}{host}", repository)


def pin(versions: Versions, release: Release, repository: Repository) -> str:
    """Write an image's name, tag and digest into versions.yml; return what stands there."""
    image = versions.image(release.variable)
    text = versions.pinned(image, release.built.digest, release.tag, repository.name)
    versions.edit({image.variable: text})
    return text
