"""What a registry keeps of an image: the newest versions, and whatever is used anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubernetes import client

from quote_platform.delivery import DeliveryError, NotThereError
from quote_platform.delivery.registry import Repository
from quote_platform.images import DIGEST, Reference
from quote_platform.kubeconfig import Unusable, answered, connect

AT_ONCE = 8
SECONDS = 20
# Tags of what is attached to an image: signatures of cosign, and the stand-in for the API of referrers.
ATTACHED = re.compile(r"sha256-([0-9a-f]{64})(\.\w+)?")


@dataclass(frozen=True)
class Used:
    """What is used: digests, and tags by the last part of an image's name."""

    digests: frozenset[str] = frozenset()
    tags: frozenset[tuple[str, str]] = frozenset()

    def __or__(self, other: Used) -> Used:
        return Used(self.digests | other.digests, self.tags | other.tags)


def used(images: Iterable[str]) -> Used:
    """Return what names of images and the nodes' identifiers of them stand for.

    An image may be asked for by another registry's name, a mirror's such as: only the last part counts.
    """
    digests, tags = set[str](), set[tuple[str, str]]()
    for image in images:
        if found := DIGEST.search(image):
            digests.add(found[0])
        try:
            reference = Reference.parse(image.partition("://")[2] or image)
        except ValueError:
            continue
        if reference.tag or not reference.digest:
            tags.add((reference.repository.rpartition("/")[2], reference.tag or "latest"))
    return Used(frozenset(digests), frozenset(tags))


def running(kubeconfig: Path) -> Used:
    """Return what a cluster runs or may run again: pods, and all that makes pods, with its history."""
    try:
        api = connect(kubeconfig)
        with answered():
            pods = client.CoreV1Api(api).list_pod_for_all_namespaces(_request_timeout=SECONDS).items
            apps, batch = client.AppsV1Api(api), client.BatchV1Api(api)
            lists = [
                apps.list_deployment_for_all_namespaces,
                apps.list_replica_set_for_all_namespaces,
                apps.list_stateful_set_for_all_namespaces,
                apps.list_daemon_set_for_all_namespaces,
                batch.list_job_for_all_namespaces,
            ]
            specs = [pod.spec for pod in pods]
            specs += [one.spec.template.spec for ask in lists for one in ask(_request_timeout=SECONDS).items]
            crons = batch.list_cron_job_for_all_namespaces(_request_timeout=SECONDS).items
            specs += [cron.spec.job_template.spec.template.spec for cron in crons]
    except (Unusable, OSError) as error:
        raise DeliveryError(
            f"--kubeconfig {kubeconfig}: what runs there cannot be read, so nothing is deleted: {error}"
        ) from error
    images = [image for spec in specs for image in _images(spec)]
    return used([*images, *(status for pod in pods for status in _identifiers(pod))])


def _images(spec: Any) -> Iterator[str]:
    for kind in ("init_containers", "containers", "ephemeral_containers"):
        for container in getattr(spec, kind, None) or []:
            if container.image:
                yield container.image
    for volume in spec.volumes or []:
        if (image := getattr(volume, "image", None)) and image.reference:
            yield image.reference


def _identifiers(pod: Any) -> Iterator[str]:
    for kind in ("init_container_statuses", "container_statuses", "ephemeral_container_statuses"):
        for status in getattr(pod.status, kind, None) or []:
            yield from (text for text in (status.image_id, status.image) if text)


@dataclass(frozen=True)
class Version:
    """An image of a repository with all its tags."""

    digest: str
    tags: tuple[str, ...]
    created: str
    covers: frozenset[str]  # its own digest, and those of the images that an index covers


@dataclass
class Plan:
    """What stays and why, and what goes."""

    repository: str
    kept: dict[str, str] = field(default_factory=dict)  # tag -> reason
    gone: list[Version] = field(default_factory=list)
    orphans: list[str] = field(
        default_factory=list
    )  # tags of what was attached to an image that is not there

    def data(self) -> dict[str, Any]:
        """Return it for programs."""
        gone = [{"digest": one.digest, "tags": one.tags, "created": one.created} for one in self.gone]
        return {"repository": self.repository, "kept": self.kept, "gone": gone, "orphans": self.orphans}


def versions(repository: Repository, tags: Iterable[str]) -> list[Version]:
    """Return the images that tags stand for, the newest first."""
    names = sorted(tags)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        by_digest: dict[str, list[str]] = {}
        for tag, digest in zip(names, pool.map(repository.resolve, names), strict=True):
            by_digest.setdefault(digest, []).append(tag)
        found = pool.map(lambda item: _version(repository, *item), by_digest.items())
        return sorted(found, key=lambda one: (one.created, one.tags), reverse=True)


def _version(repository: Repository, digest: str, tags: list[str]) -> Version:
    manifest = json.loads(repository.manifest(digest)[1])
    covers = {digest}
    inner = [entry["digest"] for entry in manifest.get("manifests") or []]
    if inner:  # its images have been made together
        covers |= set(inner)
        manifest = json.loads(repository.manifest(inner[0])[1])
    try:
        created = str(json.loads(repository.blob(manifest["config"]["digest"])).get("created") or "")
    except (KeyError, ValueError, AttributeError):
        created = ""
    if not created:
        raise DeliveryError(f"{repository.name}:{tags[0]}: says not when it was made, so nothing is deleted")
    return Version(digest, tuple(tags), created, frozenset(covers))


def plan(repository: Repository, keep: int, in_use: Used) -> Plan:
    """Return what would be deleted: all but the newest KEEP images and those that are used."""
    if keep < 1:
        raise DeliveryError(f"--keep {keep}: allowed is 1 or more")
    every = repository.tags()
    name = repository.name.rpartition("/")[2]
    found = Plan(repository.name)
    there = versions(repository, (tag for tag in every if not ATTACHED.fullmatch(tag)))
    for number, one in enumerate(there):
        if one.covers & in_use.digests or any((name, tag) in in_use.tags for tag in one.tags):
            reason = "used"
        elif number < keep:
            reason = "new"
        else:
            found.gone.append(one)
            continue
        found.kept |= dict.fromkeys(one.tags, reason)
    known = {digest for one in there for digest in one.covers}
    for tag in every:
        if (attached := ATTACHED.fullmatch(tag)) and (subject := f"sha256:{attached[1]}") not in known:
            try:
                repository.resolve(subject)
            except NotThereError:
                found.orphans.append(tag)
    return found


def carry_out(repository: Repository, found: Plan) -> None:
    """Delete what a plan says, each image before what is attached to it; can be repeated after a failure."""
    every = repository.tags()
    for one in found.gone:
        attached = [entry["digest"] for entry in repository.referrers(one.digest)]
        mark = one.digest.replace(":", "-")
        tags = [tag for tag in every if tag == mark or tag.startswith(f"{mark}.")]
        attached += [repository.resolve(tag) for tag in tags]
        for digest in (one.digest, *dict.fromkeys(attached)):
            repository.delete(digest)
    for tag in found.orphans:
        try:
            repository.delete(repository.resolve(tag))
        except NotThereError:
            continue
