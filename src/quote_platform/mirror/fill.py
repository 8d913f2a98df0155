"""Fill the mirror: each artifact once, from upstream or from source, resumable at any point."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from quote_platform import paths
from quote_platform.images import untagged
from quote_platform.mirror import availability, charts, progress, publish, storage, upstream
from quote_platform.mirror import catalogue as cat
from quote_platform.mirror.source import Source, run
from quote_platform.mirror.storage import MirrorError, RefusedError

# Go's caches may grow so large before a fill empties them: all of it from source leaves more than thirty.
CACHE_GB = 10.0
OLD = ".old-"  # prefix of those that are set aside


class Provider(StrEnum):
    """Where artifacts come from."""

    AUTO = "auto"
    UPSTREAM = "upstream"
    SOURCE = "source"


@dataclass(frozen=True)
class Artifact:
    """One thing the mirror serves."""

    kind: str  # package, image, manifest
    name: str
    version: str
    host: str  # of upstream
    component: str  # what cannot be installed without it
    key: Callable[[], str]  # hash of its recipe
    there: Callable[[], bool]  # is it still served
    fetch: Callable[[str], None]  # from upstream
    build: Callable[[str], None] | None  # from source
    parts: tuple[cat.Part, ...] = (cat.Part.CORE,)
    needs: Callable[[], frozenset[str]] = frozenset  # builds that it waits for
    beside: bool = False  # does it stand beside the version of versions.yml

    @property
    def record(self) -> Path:
        """Return the file that says what the mirror holds of it."""
        name = f"{self.kind}-{self.name}{f'-{self.version}' if self.beside else ''}"
        return storage.root() / "state" / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)}.json"

    @property
    def step(self) -> str:
        """Return its name among the steps of a fill: the same for every version."""
        return f"{self.kind} {self.name.replace(self.version, '')}"

    def held(self) -> dict[str, str]:
        """Return what was recorded when it was put there, empty if it is not."""
        if not self.record.is_file() or not self.there():
            return {}
        return dict(json.loads(self.record.read_text()))

    def state(self) -> str:
        """Tell whether the mirror has it as the catalogue wants it."""
        held = self.held()
        if not held:
            return "missing"
        return "ready" if held["key"] == self.key() else "outdated"


@dataclass
class Report:
    """What a fill did."""

    ready: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    unavailable: list[availability.Unavailable] = field(default_factory=list)


def artifacts(catalogue: cat.Catalogue, source: Source) -> list[Artifact]:
    """Return all artifacts of the catalogue: what a cluster needs first comes first."""
    found = []
    for name, package in catalogue.packages.items():
        found.append(_package(catalogue, source, name, package))
    for image in catalogue.images:
        found.append(_image(source, image))
    for component, names in catalogue.unbuildable_images.items():
        parts = catalogue.unbuildable[component].part
        found += [_image(None, cat.Image(image=name, part=parts), component) for name in names]
    for manifest in catalogue.release_manifests:
        found.append(_manifest(catalogue, source, manifest))
    return found


def _package(catalogue: cat.Catalogue, source: Source, name: str, package: cat.Package) -> Artifact:
    repository = catalogue.repositories[package.repository]

    def fetch(_: str) -> None:
        file, content = upstream.package(repository, name, package.version)
        part = storage.root() / f".{file}"
        part.write_bytes(content)
        publish.add_package(repository, name, part.rename(part.with_name(file)))
        part.with_name(file).unlink()

    return Artifact(
        kind="package",
        name=name,
        version=package.version,
        host=upstream.host_of(repository.upstream),
        component=name,
        key=lambda: source.package_key(name),
        there=(publish.pool(repository) / f"{name}_{package.version}_amd64.deb").is_file,
        fetch=fetch,
        build=lambda _: publish.add_package(repository, name, source.package(name)),
        parts=package.part,
        needs=lambda: source.needs(package.files),
    )


def _image(source: Source | None, image: cat.Image, component: str = "") -> Artifact:
    name, version = untagged(image.image)
    tagged = f"{name}:{version}"

    def build(registry: str) -> None:
        if source:
            source.image(image, f"{registry}/{tagged}")

    return Artifact(
        kind="image",
        name=name,
        version=version,
        host=upstream.host_of(name),
        component=component or name,
        key=lambda: source.image_key(image) if source else cat.digest(image),
        there=lambda: publish.image_in(storage.root() / "registry", tagged),
        fetch=lambda registry: upstream.image(image.image, f"{registry}/{tagged}"),
        build=build if source else None,
        parts=image.part,
        needs=lambda: (
            source.needs(image.files, image.root, image.archives.values()) if source else frozenset()
        ),
    )


def place(manifest: cat.Manifest) -> tuple[str, str, str]:
    """Return of a manifest, by its URL: OWNER/PROJECT, tag, and the file in that or among its release's."""
    path = urlsplit(manifest.url).path.lstrip("/").replace("/releases/download/", "/")
    owner, project, tag, file = path.split("/", 3)
    return f"{owner}/{project}", tag, file


def manifest_content(catalogue: cat.Catalogue, source: Source, manifest: cat.Manifest) -> bytes:
    """Return a manifest from the sources of its module; its checksum is for the caller to judge."""
    where, _, file = place(manifest)
    origin = catalogue.manifests[where]
    module = source.module(origin.recipe, origin.module)
    if chart := origin.charts.get(file):
        return charts.make(source.helm(), module, cat.module_version(origin.recipe), chart)
    # A module's zip is the repository at its tag, so what lies in it has upstream's checksum.
    return (module / file).read_bytes()


def _manifest(catalogue: cat.Catalogue, source: Source, manifest: cat.Manifest) -> Artifact:
    where, tag, _ = place(manifest)
    origin = catalogue.manifests.get(where)

    def build(_: str) -> None:
        publish.add_manifest(manifest, manifest_content(catalogue, source, manifest))

    return Artifact(
        kind="manifest",
        name=manifest.url,
        version=tag,
        host=upstream.host_of(manifest.url),
        component=where.partition("/")[2],
        key=lambda: cat.digest(manifest),
        there=lambda: publish.manifest_file(manifest.url).is_file(),
        fetch=lambda _: publish.add_manifest(manifest, upstream.manifest(manifest.url)),
        build=build if origin else None,
        parts=origin.part if origin else (cat.Part.CORE,),
    )


def fill(
    provider: Provider,
    only: list[str],
    jobs: int,
    say: Callable[[str], None],
    *,
    parts: Collection[cat.Part] = cat.USUAL,
    kubernetes: str = "",
    work: progress.Work | None = None,
) -> Report:
    """Bring the mirror to what the catalogue says, or to what some parts of the platform need of it.

    With another version of Kubernetes, to what carries its number, beside what is there.
    """
    report = Report()
    work = work or progress.Work()
    work.doing = "waiting for another fill to end"
    with storage.lock():
        work.doing = "looking at what is there"
        catalogue = cat.other(kubernetes) if kubernetes else cat.load()
        source = Source(catalogue, say, work)
        every = artifacts(catalogue, source)
        wanted = [
            replace(one, beside=bool(kubernetes))
            for one in every
            if set(parts).intersection(one.parts) and (not only or any(word in one.name for word in only))
        ]
        missing = [one for one in wanted if one.state() != "ready"]
        report.ready = [one.name for one in wanted if one not in missing]
        say(f"{len(report.ready)} of {len(wanted)} artifacts are there")
        if missing:
            _get_all(missing, provider, jobs, source, report)
        work.doing = "signing the repositories"
        # Not only after a change: the run that made it may have been killed before it came to sign.
        unsigned = [one for one in catalogue.repositories.values() if not publish.is_signed(one)]
        for repository in unsigned:
            publish.sign_repository(repository)
        if unsigned:
            publish.stop_signing()
        if missing:
            work.doing = "measuring Go's caches"
            for name in set_aside(CACHE_GB):
                say(f"emptying {name}, which has grown past {CACHE_GB:g} GB, beside what comes next")
        discard()
        if not only and not kubernetes:
            # A line for each component, however many of its artifacts are missing; others' lines stay.
            looked_at = {one.component for one in wanted}
            kept = [entry for entry in availability.unavailable() if entry.name not in looked_at]
            report.unavailable = list({entry.name: entry for entry in report.unavailable}.values())
            availability.record(kept + report.unavailable)
        work.record()
    return report


def _get_all(missing: list[Artifact], provider: Provider, jobs: int, source: Source, report: Report) -> None:
    """Get what is missing, some of it at the same time."""
    say, work = source.say, source.work

    def get(one: Artifact, registry: str) -> tuple[str, progress.Cost]:
        with work.step(one.step) as step:
            origin = _get(one, provider, registry, source.catalogue)
        return origin, step.cost

    work.plan({one.step: one.needs() if one.build else frozenset() for one in missing})
    with publish.registry() as registry, ThreadPoolExecutor(max_workers=jobs) as pool:
        running = {pool.submit(get, one, registry): one for one in missing}
        for number, future in enumerate(as_completed(running), 1):
            one = running[future]
            place = f"{number}/{len(missing)} after {progress.duration(work.whole.wall)}"
            try:
                origin, cost = future.result()
            except NotToBeHad as error:
                report.unavailable.append(availability.Unavailable(one.component, str(error)))
                say(f"{place}: cannot have {one.kind} {one.name} {one.version}: {error}")
            except (MirrorError, OSError, ValueError, subprocess.SubprocessError) as error:
                report.failed[one.name] = str(error)
                say(f"{place}: FAILED {one.kind} {one.name} {one.version}: {error}")
            else:
                report.ready.append(one.name)
                say(f"{place}: {one.kind} {one.name} {one.version} from {origin} ({cost})")


class NotToBeHad(Exception):
    """Neither upstream nor a source has it."""


def _get(one: Artifact, provider: Provider, registry: str, catalogue: cat.Catalogue) -> str:
    """Get one artifact and record it; return where it came from."""
    origin = ""
    if provider is not Provider.SOURCE and upstream.reachable(one.host):
        try:
            one.fetch(registry)
            origin = "upstream"
        except RefusedError:
            raise
        except Exception as error:
            if provider is Provider.UPSTREAM or one.build is None:
                raise MirrorError(f"{one.name} {one.version} from {one.host}: {error}") from error
    if not origin:
        if provider is Provider.UPSTREAM:
            raise MirrorError(f"{one.host} cannot be reached: check the network, or use --provider source")
        if one.build is None:
            why = catalogue.unbuildable.get(one.component)
            reason = why.reason if why else "it has no source recipe"
            raise NotToBeHad(f"{one.host} is out of reach and {reason}")
        one.build(registry)
        origin = "source"
    storage.write_json(one.record, {"key": one.key(), "origin": origin, "version": one.version})
    return origin


def lacking(parts: Collection[cat.Part]) -> list[str]:
    """Return the artifacts that some parts of the platform need and a fill has not looked for."""
    catalogue = cat.load()
    known = {entry.name for entry in availability.unavailable()}
    return [
        f"{one.kind} {one.name}"
        for one in artifacts(catalogue, Source(catalogue, lambda _: None))
        if set(parts).intersection(one.parts) and one.component not in known and not one.held()
    ]


def verify() -> list[str]:
    """Recompute every checksum; return what is wrong."""
    wrong = []
    catalogue = cat.load()
    for manifest in catalogue.release_manifests:
        file = publish.manifest_file(manifest.url)
        if file.is_file() and manifest.sha256 and publish.sha256(file) != manifest.sha256:
            wrong.append(f"manifest {manifest.url}: its content is not the pinned one")
    for repository in catalogue.repositories.values():
        if not publish.is_signed(repository):
            wrong.append(f"repository {repository.path}: its signature is older than its packages")
        index = next(publish.apt_folder(repository).rglob("Packages"), None)
        for fields in publish.stanzas(index.read_text()) if index else []:
            file = publish.apt_folder(repository) / fields["Filename"]
            if not file.is_file() or publish.sha256(file) != fields["SHA256"]:
                wrong.append(f"package {fields['Package']}: {file.name} is not the one that the index signs")
    for file, name in publish.blobs(storage.root() / "registry"):
        if publish.sha256(file) != name:
            wrong.append(f"image layer sha256:{name}: its content differs")
    return wrong


def _caches() -> Path:
    return paths.cache() / "go"


def set_aside(limit_gb: float) -> list[str]:
    """Rename each of Go's caches that has grown past the limit, to be deleted by `discard`."""
    found = []
    for cache in (_caches() / "build", _caches() / "mod"):
        if not cache.is_dir():
            continue
        size = run(["du", "--summarize", "--bytes", cache]).split()[0]
        if int(size) > limit_gb * 1e9:
            cache.rename(cache.with_name(f"{OLD}{cache.name}-{time.time_ns()}"))
            found.append(str(cache))
    return found


def discard() -> subprocess.Popen[bytes] | None:
    """Delete what was set aside, now or by a run that was killed: in a process that yields to all others."""
    if not (old := sorted(_caches().glob(f"{OLD}*"))):
        return None
    lock = ["flock", str(_caches() / ".discarding")]
    return subprocess.Popen(
        [*lock, "nice", "-n", "19", "rm", "-rf", *map(str, old)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # it outlives the fill; `settle` waits for it
    )


def settle() -> None:
    """Wait until all that was set aside is deleted."""
    if deleting := discard():
        deleting.wait()


def prune(limit_gb: float) -> list[str]:
    """Delete what no recipe names any more, and Go's caches when they pass the limit."""
    catalogue = cat.load()
    source = Source(catalogue, lambda _: None)
    keep = set[str]()
    for one in (catalogue, *map(cat.other, cat.other_kubernetes())):
        of_it = Source(one, lambda _: None)
        keep |= {f"{name}-{of_it.binaries_key(name)}" for name in one.binaries}
        keep |= {f"{name}-{of_it.package_key(name)}" for name in one.packages}
    keep |= {source.filesystem_name(name) for name in catalogue.roots}
    keep |= {
        source.archive_name(archive) for image in catalogue.images for archive in image.archives.values()
    }
    deleted = []
    with storage.lock():  # a fill builds in these folders
        for kind in ("archives", "binaries", "debs", "roots"):
            folder = source.artifacts / kind
            for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
                if entry.name not in keep:
                    shutil.rmtree(entry)
                    deleted.append(str(entry))
        deleted += source.prune_bases()
        deleted += set_aside(limit_gb)
    settle()
    return deleted
