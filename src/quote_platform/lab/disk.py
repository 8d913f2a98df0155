"""What virtual machines boot from: Ubuntu's own image, or Debian with the packages of the nodes' image."""

import hashlib
import shutil
from pathlib import Path

import httpx

from quote_platform import paths
from quote_platform.lab import host, image
from quote_platform.lab.errors import LabError
from quote_platform.lab.model import System
from quote_platform.mirror import catalogue, upstream
from quote_platform.mirror.source import run

# As large as a machine's disk; what holds nothing takes no room.
SIZE = "20G"
TREE = "machine"
HOOKS = [
    f'chroot "$1" systemctl disable {" ".join(image.DISABLED)}',
    'chroot "$1" systemctl enable systemd-networkd',
]


def folder(system: System) -> Path:
    """Return where its disk lies: base.raw or base.qcow2, and without boot loader vmlinuz and initrd.img."""
    if system is System.UBUNTU:
        key = str(catalogue.versions()["lab_ubuntu_sha256"])[:16]
    else:
        key = catalogue.digest(
            image.recipe(), SIZE, Path(__file__), Path(image.__file__), image.folder() / TREE
        )
    return paths.cache() / "lab" / f"{system}-{key}"


def refuse(system: System) -> None:
    """Refuse a system whose image neither is here nor can be fetched."""
    if system is not System.UBUNTU or folder(system).is_dir() or _brought().is_file():
        return
    url = str(catalogue.versions()["lab_ubuntu_url"])
    if not upstream.reachable(upstream.host_of(url)):
        raise LabError(
            f"{url} cannot be fetched: let this machine reach it, put the file at {_brought()}, "
            f"or use --system {System.DEBIAN}"
        )


def _brought() -> Path:
    """Return where a person puts Ubuntu's image who has it from elsewhere."""
    return paths.cache() / "lab" / str(catalogue.versions()["lab_ubuntu_url"]).rpartition("/")[2]


def ensure(system: System) -> Path:
    """Return the folder of the disk, making it first if nobody has."""
    target = folder(system)
    with host.lock(f"disk-{system}"):
        if not target.is_dir():
            part = target.with_name(f".{target.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            {System.UBUNTU: _fetch, System.DEBIAN: _build}[system](part)
            part.replace(target)
    return target


def _fetch(part: Path) -> None:
    versions = catalogue.versions()
    url, pinned = str(versions["lab_ubuntu_url"]), versions["lab_ubuntu_sha256"]
    target = part / "base.qcow2"
    try:
        if _brought().is_file():
            url = str(_brought())
            shutil.copyfile(url, target)
        else:
            with (
                httpx.stream("GET", url, timeout=60, follow_redirects=True) as answer,
                target.open("wb") as file,
            ):
                answer.raise_for_status()
                file.writelines(answer.iter_bytes())
    except httpx.HTTPError as error:
        raise LabError(f"{url} cannot be fetched: {error}") from error
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != pinned:
        raise LabError(f"{url}: its SHA-256 is {found}, lab_ubuntu_sha256 is {pinned}: refused")


def _build(part: Path) -> None:
    recipe, root = image.recipe(), part / "root"
    hooks = [*HOOKS, f'cp -r {image.folder() / TREE}/. "$1"/']
    packages = recipe["packages"] + recipe["machine_packages"]
    image.bootstrap(recipe["suite"], packages, hooks, root, TREE)
    for path in ("machine-id", "hostname"):
        (root / "etc" / path).write_text("")
    resolver = root / "etc" / "resolv.conf"
    resolver.unlink(missing_ok=True)
    resolver.symlink_to("../run/systemd/resolve/stub-resolv.conf")
    for name in ("vmlinuz", "initrd.img"):
        (newest,) = (root / "boot").glob(f"{name}-*")
        shutil.copyfile(newest, part / name)
    # Whatever is zero is left out of the file, and the machine is not to write it either.
    zeros = "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-m", "1", "-E", zeros]
    run([*command, "-d", root, part / "base.raw", SIZE], paths.state() / "logs" / f"image-{TREE}.log")
    shutil.rmtree(root)
