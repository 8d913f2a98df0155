"""The images of nodes and of the mirror's host: made once, named by the hash of their recipe."""

from pathlib import Path
from typing import Any

import yaml

from quote_platform import paths
from quote_platform.lab import host, podman
from quote_platform.mirror.catalogue import digest
from quote_platform.mirror.source import run

# Made new at every boot, or of no use in a container.
EMPTY = ["/etc/machine-id", "/etc/hostname", "/etc/resolv.conf"]
# Installed for a role that configures them first; nobody else's machine runs them.
DISABLED = ["haproxy.service", "keepalived.service"]
# The mirror's host serves names itself.
DISABLED_ON_MIRROR = ["systemd-resolved.service"]
MASKED = ["systemd-udevd.service", "systemd-udev-trigger.service", "getty.target", "console-getty.service"]


def folder() -> Path:
    """Return where recipes and files of nodes lie."""
    return paths.repository() / "lab" / "node"


def recipe() -> dict[str, Any]:
    """Return what nodes have of their distribution."""
    return dict(yaml.safe_load((folder() / "node.yml").read_text()))


def bootstrap(suite: str, packages: list[str], hooks: list[str], target: Path, kind: str) -> None:
    """Install a distribution into an archive or a folder, and change it by commands that find it in $1."""
    hooks = [
        *hooks,
        'rm -rf "$1"/etc/ssh/ssh_host_* "$1"/etc/apt/sources.list',
        'rm -rf "$1"/var/lib/apt/lists/*',
    ]
    command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(packages)}"]
    trim = ["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"]
    log = paths.state() / "logs" / f"image-{kind}.log"
    run([*command, *trim, *(f"--customize-hook={hook}" for hook in hooks), suite, target], log)


def _kind(mirror: bool) -> str:
    return "mirror" if mirror else "node"


def _trees(mirror: bool) -> list[Path]:
    return [folder() / "rootfs", *([folder() / "mirror"] if mirror else [])]


def _packages(mirror: bool) -> list[str]:
    return list(recipe()["packages"] + (recipe()["mirror_packages"] if mirror else []))


def _disabled(mirror: bool) -> list[str]:
    return DISABLED + (DISABLED_ON_MIRROR if mirror else [])


def name(mirror: bool) -> str:
    """Return the name of the image, whether it is there or not."""
    what = (recipe()["suite"], _packages(mirror), _disabled(mirror), MASKED, EMPTY)
    key = digest(*what, Path(__file__), *_trees(mirror))
    return f"localhost/quote-platform-{_kind(mirror)}:{key}"


def ensure(mirror: bool) -> None:
    """Build the image, if nobody has."""
    with host.lock(f"image-{_kind(mirror)}"):
        _ensure(mirror)


def _ensure(mirror: bool) -> None:
    image = name(mirror)
    if podman.rows("images", "--filter", f"reference={image}"):
        return
    tar = paths.cache() / "lab" / f"{image.rsplit(':', 1)[1]}.tar"
    if not tar.is_file():
        tar.parent.mkdir(parents=True, exist_ok=True)
        part = tar.with_name(f".{tar.name.removesuffix('.tar')}.part.tar")
        hooks = [
            *(f'cp -r {tree}/. "$1"/' for tree in _trees(mirror)),
            f'chroot "$1" systemctl disable {" ".join(_disabled(mirror))}',
            f'chroot "$1" systemctl mask {" ".join(MASKED)}',
            *(f'rm -f "$1"{path} && : > "$1"{path}' for path in EMPTY),
        ]
        bootstrap(recipe()["suite"], _packages(mirror), hooks, part, _kind(mirror))
        part.replace(tar)
    podman.run(
        "import", "--quiet", "--change", 'CMD ["/sbin/init"]', "--change", "STOPSIGNAL SIGRTMIN+3", tar, image
    )
