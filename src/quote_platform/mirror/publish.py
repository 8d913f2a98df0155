"""What is served: signed apt repositories, the image registry's storage, manifests by their path."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import yaml

from quote_platform.images import untagged
from quote_platform.mirror import catalogue as cat
from quote_platform.mirror.source import run
from quote_platform.mirror.storage import MirrorError, RefusedError, root

SIGNER = "Quote Platform mirror"


def sha256(path: Path) -> str:
    """Return the checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- apt ------------------------------------------------------------------------------------------------


def stanzas(index: str) -> Iterator[dict[str, str]]:
    """Yield the one-line fields of each package in an index."""
    for stanza in index.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        if fields:
            yield fields


def apt_folder(repository: cat.Repository) -> Path:
    """Return the folder that a repository's URL shows."""
    return root() / "www" / "apt" / repository.path


def pool(repository: cat.Repository) -> Path:
    """Return where a repository keeps its packages."""
    folder = apt_folder(repository)
    return (
        folder / "dists" / repository.suite / "pool" / repository.component
        if repository.suite
        else folder / "amd64"
    )


def _gpg() -> list[str]:
    home = root() / "gnupg"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return ["gpg", "--homedir", str(home), "--batch", "--yes"]


def signing_key() -> str:
    """Return the armoured public key; the pair is made at the first call."""
    if not run([*_gpg(), "--list-secret-keys", "--with-colons"]).strip():
        made = [
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "",
            "--quick-generate-key",
            SIGNER,
            "rsa3072",
            "sign",
        ]
        run([*_gpg(), *made, "never"])
    return run([*_gpg(), "--armor", "--export"])


def stop_signing() -> None:
    """End the agent that GnuPG has started; it would outlive us."""
    run(["gpgconf", "--homedir", root() / "gnupg", "--kill", "all"])


def add_package(repository: cat.Repository, name: str, file: Path) -> None:
    """Put a package in its repository in place of its other versions, but those that have a recipe."""
    folder = pool(repository)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{file.name}"
    shutil.copyfile(file, part)
    part.replace(folder / file.name)
    kept = tuple(
        f"{name}_{version}-" for version in (cat.versions()["kubernetes_version"], *cat.other_kubernetes())
    )
    for old in folder.glob(f"{name}_*.deb"):
        if old.name != file.name and not old.name.startswith(kept):
            old.unlink()


def is_signed(repository: cat.Repository) -> bool:
    """Tell whether a repository's signature, which is written last, is younger than all its packages."""
    packages = list(pool(repository).glob("*.deb"))
    signature = _release_folder(repository) / "Release.gpg"
    if not packages or not signature.is_file():
        return not packages
    return signature.stat().st_mtime_ns >= max(file.stat().st_mtime_ns for file in packages)


def _release_folder(repository: cat.Repository) -> Path:
    folder = apt_folder(repository)
    return folder / "dists" / repository.suite if repository.suite else folder


def sign_repository(repository: cat.Repository) -> None:
    """Write the index of a repository and sign it."""
    folder = apt_folder(repository)
    if not pool(repository).is_dir():
        return
    (folder / repository.key).write_text(signing_key())
    release = _release_folder(repository)
    if repository.suite:
        index = release / repository.component / "binary-amd64"
        options = {
            "Suite": repository.suite,
            "Codename": repository.suite,
            "Components": repository.component,
        }
        where = Path("dists") / repository.suite / "pool"
    else:
        index = folder
        options = {"Suite": "/"}
        where = Path("amd64")
    index.mkdir(parents=True, exist_ok=True)
    packages = run(["apt-ftparchive", "packages", where], cwd=folder)
    (index / "Packages").write_text(packages)
    for old in ("Release", "InRelease", "Release.gpg"):
        (release / old).unlink(missing_ok=True)
    options |= {"Origin": SIGNER, "Label": SIGNER, "Architectures": "amd64"}
    settings = [
        word for key, value in options.items() for word in ("-o", f"APT::FTPArchive::Release::{key}={value}")
    ]
    (release / "Release").write_text(run(["apt-ftparchive", *settings, "release", "."], cwd=release))
    run([*_gpg(), "--clearsign", "--output", release / "InRelease", release / "Release"])
    run([*_gpg(), "--armor", "--detach-sign", "--output", release / "Release.gpg", release / "Release"])


# --- manifests ------------------------------------------------------------------------------------------


def manifest_file(url: str) -> Path:
    """Return where a manifest lies: scheme and host go, the path stays."""
    return root() / "www" / "manifests" / urlsplit(url).path.lstrip("/")


def add_manifest(manifest: cat.Manifest, content: bytes) -> None:
    """Keep a manifest if it is the one that was pinned."""
    found = hashlib.sha256(content).hexdigest()
    target = manifest_file(manifest.url)
    if manifest.sha256 and found != manifest.sha256:
        kept = "; the good one in the mirror stays" if target.is_file() else ""
        raise RefusedError(f"{manifest.url}: sha256 is {found}, pinned is {manifest.sha256}: refused{kept}")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}")
    part.write_bytes(content)
    part.replace(target)


# --- images ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def registry() -> Iterator[str]:
    """Run the registry on loopback while the mirror is filled; yield host:port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    storage = root() / "registry"
    storage.mkdir(parents=True, exist_ok=True)
    settings = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.safe_dump(settings, file)
        file.flush()
        # Debian's build looks its log's target up in the environment.
        process = subprocess.Popen(
            ["docker-registry", "serve", file.name],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OTEL_TRACES_EXPORTER": "none"},
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/v2/", process)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=2).status_code == 200:
                return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise MirrorError("docker-registry does not start: run `docker-registry serve` by hand to see why")


def image_in(registry_storage: Path, image: str) -> bool:
    """Tell whether the registry's storage holds an image's tag."""
    return _link(registry_storage, image).is_file()


def digest_in(registry_storage: Path, image: str) -> str:
    """Return the digest of an image's tag in the registry's storage, empty if it is not there."""
    link = _link(registry_storage, image)
    return link.read_text().strip() if link.is_file() else ""


def _link(registry_storage: Path, image: str) -> Path:
    name, tag = untagged(image)
    return (
        registry_storage / "docker/registry/v2/repositories" / name / "_manifests/tags" / tag / "current/link"
    )


def take_program(image: str, target: Path) -> None:
    """Write the program that an image runs to a file."""
    if not image_in(root() / "registry", image):
        raise MirrorError(f"the mirror does not hold {image}: run `quote-platform mirror fill`")
    part = target.with_name(f".{target.name}.part")
    with registry() as address, tempfile.TemporaryDirectory() as scratch:
        # Only it and its like read every compression that an image may have.
        copy = ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--dest-decompress"]
        run([*copy, f"docker://{address}/{':'.join(untagged(image))}", f"dir:{scratch}"])

        def blob(entry: dict[str, str]) -> Path:
            return Path(scratch, entry["digest"].removeprefix("sha256:"))

        manifest = json.loads(Path(scratch, "manifest.json").read_text())
        settings = json.loads(blob(manifest["config"]).read_text())["config"]
        program = Path((settings.get("Entrypoint") or settings["Cmd"])[0])
        for layer in reversed(manifest["layers"]):
            with tarfile.open(blob(layer)) as tar:
                for member in tar:
                    if Path("/", member.name) == program and (content := tar.extractfile(member)):
                        part.write_bytes(content.read())
                        part.chmod(0o755)
                        part.replace(target)
                        return
    raise MirrorError(f"{image}: its program {program} is in none of its layers")


def blobs(registry_storage: Path) -> Iterator[tuple[Path, str]]:
    """Yield each blob of the registry's storage and the checksum it is named by."""
    for file in sorted((registry_storage / "docker/registry/v2/blobs/sha256").glob("*/*/data")):
        yield file, file.parent.name
