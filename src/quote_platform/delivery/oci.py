"""Images made of files, the same bytes for the same files: layers, configuration, manifest."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from quote_platform.delivery.registry import CONFIG, MANIFEST, canonical, digest

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
# GNU's gzip has written the same bytes for decades; what zlib writes differs between builds of Python.
GZIP = ["gzip", "--no-name", "-6", "--stdout"]


@dataclass(frozen=True)
class Layer:
    """A packed layer: its content lies in a file."""

    file: Path
    digest: str
    size: int
    plain: str  # digest of the tar that is packed

    @property
    def descriptor(self) -> dict[str, Any]:
        """Return it as a manifest names it."""
        return {"mediaType": LAYER, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class Built:
    """A whole image."""

    manifest: bytes
    config: bytes
    layers: tuple[Layer, ...] = field(default=())

    @property
    def digest(self) -> str:
        """Return what names it."""
        return digest(self.manifest)

    @property
    def descriptor(self) -> dict[str, Any]:
        """Return it as an index or a referrer names it."""
        return {"mediaType": MANIFEST, "digest": self.digest, "size": len(self.manifest)}


def plain(member: tarfile.TarInfo, epoch: int) -> tarfile.TarInfo:
    """Take out of a member what differs between machines: names of owners, and times after the commit."""
    member.uname = member.gname = ""
    member.mtime = min(int(member.mtime), epoch)
    member.pax_headers = {
        key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.")
    }
    return member


def tree(trees: Mapping[str, Path], epoch: int, into: IO[bytes]) -> None:
    """Write folders and files as a tar: sorted, owned by root, of the commit's time, with two modes only."""
    every: dict[PurePosixPath, Path | None] = {}
    for target, source in trees.items():
        place = PurePosixPath(target.lstrip("/"))
        for above in place.parents:
            if above.name:
                every.setdefault(above, None)
        every[place] = source
        if source.is_dir():
            every |= {
                place / path.relative_to(source): path
                for path in source.rglob("*")
                if "__pycache__" not in path.parts
            }
    with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for place, path in sorted(every.items(), key=lambda item: item[0].parts):
            member = tarfile.TarInfo(str(place))
            member.mtime = epoch
            if path and path.is_symlink():
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
                packed.addfile(member)
            elif path is None or path.is_dir():
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                packed.addfile(member)
            else:
                member.size = path.stat().st_size
                member.mode = 0o755 if path.stat().st_mode & 0o111 else 0o644
                with path.open("rb") as content:
                    packed.addfile(member, content)


def filesystem(source: Path, epoch: int, into: IO[bytes]) -> None:
    """Write a root file system's tar without devices, which a container has of its own, in the same order."""
    with (
        tarfile.open(source) as given,
        tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as packed,
    ):
        for member in given:
            if not member.isdev():
                packed.addfile(plain(member, epoch), given.extractfile(member) if member.isreg() else None)


def packed(tar: Path, target: Path) -> Layer:
    """Pack a tar; keep the result."""
    part = target.with_name(f".{target.name}")
    with part.open("wb") as out:
        subprocess.run([*GZIP, tar], stdout=out, check=True)
    part.replace(target)
    return Layer(target, file_digest(target), target.stat().st_size, file_digest(tar))


def file_digest(path: Path) -> str:
    """Return the digest of a file."""
    with path.open("rb") as content:
        return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"


def base_layer(root: Path, epoch: int, cache: Path) -> Layer:
    """Return the layer of a root file system; packing it takes seconds, so it is kept.

    Its members are older than any commit, so that commits share it.
    """
    folder = cache / f"{file_digest(root).removeprefix('sha256:')[:32]}-{epoch}"
    kept = folder / "layer.json"
    if kept.is_file():
        told = json.loads(kept.read_text())
        return Layer(folder / "layer.tar.gz", told["digest"], told["size"], told["plain"])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".tar") as tar:
        filesystem(root, epoch, tar)
        tar.flush()
        layer = packed(Path(tar.name), folder / "layer.tar.gz")
    kept.write_text(json.dumps({"digest": layer.digest, "size": layer.size, "plain": layer.plain}))
    return layer


def own_layer(trees: Mapping[str, Path], epoch: int, folder: Path) -> Layer:
    """Return the layer of our own files."""
    tar = folder / "own.tar"
    with tar.open("wb") as out:
        tree(trees, epoch, out)
    return packed(tar, folder / "own.tar.gz")


def image(
    layers: Iterable[Layer], settings: Mapping[str, Any], labels: Mapping[str, str], created: str
) -> Built:
    """Return an image of layers. `created` is the commit's time, in UTC."""
    layers = tuple(layers)
    config = canonical(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": created,
            "config": {**settings, "Labels": dict(labels)},
            "rootfs": {"type": "layers", "diff_ids": [layer.plain for layer in layers]},
            "history": [{"created": created, "created_by": "quote-platform release"} for _ in layers],
        }
    )
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": digest(config), "size": len(config)},
            "layers": [layer.descriptor for layer in layers],
            "annotations": dict(labels),
        }
    )
    return Built(manifest, config, layers)


def write_layout(built: Built, name: str, folder: Path) -> None:
    """Write an image as a folder of the OCI image layout, which scanners and skopeo read."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    for content in (built.manifest, built.config):
        (blobs / digest(content).removeprefix("sha256:")).write_bytes(content)
    for layer in built.layers:
        (blobs / layer.digest.removeprefix("sha256:")).write_bytes(layer.file.read_bytes())
    entry = built.descriptor | {"annotations": {"org.opencontainers.image.ref.name": name}}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    (folder / "index.json").write_bytes(canonical(index))
    (folder / "oci-layout").write_bytes(canonical({"imageLayoutVersion": "1.0.0"}))


def member(root: Path, name: str) -> bytes:
    """Return the content of a file in a root file system's tar, empty if there is none."""
    with tarfile.open(root) as given:
        for one in given:
            if one.name.lstrip("./") == name and one.isreg() and (content := given.extractfile(one)):
                return content.read()
    return b""
