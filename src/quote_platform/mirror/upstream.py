"""The provider `upstream`: the publisher's own packages, images and manifests, verified."""

import gzip
import hashlib
import re
import tempfile
from functools import cache
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx

from quote_platform.mirror import catalogue as cat
from quote_platform.mirror.publish import stanzas
from quote_platform.mirror.source import run
from quote_platform.mirror.storage import MirrorError, RefusedError

REGISTRIES = {"docker.io": "registry-1.docker.io"}


@cache
def reachable(host: str) -> bool:
    """Tell whether a host answers at all; asked once."""
    try:
        httpx.get(f"https://{host}/", timeout=4, follow_redirects=False)
    except httpx.HTTPError:
        return False
    return True


def host_of(target: str) -> str:
    """Return the host behind a URL or an image."""
    if "://" in target:
        return urlsplit(target).hostname or ""
    first = target.split("/", 1)[0]
    return REGISTRIES.get(first, first)


def manifest(url: str) -> bytes:
    """Fetch a manifest."""
    answer = httpx.get(url, timeout=60, follow_redirects=True)
    answer.raise_for_status()
    return answer.content


def image(name: str, destination: str) -> None:
    """Copy an image with its digest unchanged; a pinned digest may be that of all its architectures."""
    source = name if "@" not in name else re.sub(r":[^:@/]+@", "@", name)
    run(
        [
            "skopeo",
            "copy",
            "--preserve-digests",
            *(["--all"] if "@" in name else []),
            "--dest-tls-verify=false",
            f"docker://{source}",
            f"docker://{destination}",
        ]
    )


def package(repository: cat.Repository, name: str, version: str) -> tuple[str, bytes]:
    """Fetch a package by the index of its repository, whose signature is checked against its key."""
    base = repository.upstream
    release_base = urljoin(base, f"dists/{repository.suite}/") if repository.suite else base
    index = f"{repository.component}/binary-amd64/Packages.gz" if repository.suite else "Packages.gz"
    key = manifest(urljoin(base, repository.key))
    signed = manifest(urljoin(release_base, "InRelease"))
    release = _verified(key, signed)
    packed = manifest(urljoin(release_base, index))
    wanted = re.search(rf"^ ([0-9a-f]{{64}}) +\d+ {re.escape(index)}$", release, re.MULTILINE)
    if not wanted or hashlib.sha256(packed).hexdigest() != wanted.group(1):
        raise RefusedError(
            f"{release_base}{index}: its checksum is not the one that InRelease signs: refused"
        )
    for fields in stanzas(gzip.decompress(packed).decode()):
        if (
            fields.get("Package") == name
            and fields.get("Version") == version
            and fields.get("Architecture") == "amd64"
        ):
            content = manifest(urljoin(base, fields["Filename"]))
            if hashlib.sha256(content).hexdigest() != fields["SHA256"]:
                raise RefusedError(f"{name} {version}: its checksum is not the one in {index}: refused")
            return Path(fields["Filename"]).name, content
    raise MirrorError(f"{base} has no {name} {version}")


def _verified(key: bytes, signed: bytes) -> str:
    with tempfile.TemporaryDirectory() as home:
        ring, text, plain = Path(home) / "key.asc", Path(home) / "InRelease", Path(home) / "Release"
        ring.write_bytes(key)
        text.write_bytes(signed)
        run(["gpg", "--homedir", home, "--batch", "--import", ring])
        try:  # not --decrypt, which is content with a message that nobody has signed
            run(["gpg", "--homedir", home, "--batch", "--output", plain, "--verify", text])
        except MirrorError as error:
            raise RefusedError(
                f"InRelease is not signed by the repository's key: refused\n{error}"
            ) from error
        return plain.read_text()
