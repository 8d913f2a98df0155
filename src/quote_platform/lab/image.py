"""The images of nodes and of the mirror's host: made once, named by the hash of their recipe."""

from pathlib import Path

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


def _folder() -> Path:
    return paths.repository() / "lab" / "node"


def ensure(mirror: bool) -> str:
    """Return the name of the image, building it first if nobody has."""
    with host.lock("image-mirror" if mirror else "image-node"):
        return _ensure(mirror)


def _ensure(mirror: bool) -> str:
    recipe = yaml.safe_load((_folder() / "node.yml").read_text())
    kind = "mirror" if mirror else "node"
    packages = recipe["packages"] + (recipe["mirror_packages"] if mirror else [])
    trees = [_folder() / "rootfs", *([_folder() / "mirror"] if mirror else [])]
    disabled = DISABLED + (DISABLED_ON_MIRROR if mirror else [])
    key = digest(recipe["suite"], packages, disabled, MASKED, EMPTY, Path(__file__), *trees)
    name = f"localhost/quote-platform-{kind}:{key}"
    if podman.rows("images", "--filter", f"reference={name}"):
        return name
    tar = paths.cache() / "lab" / f"{name.rsplit(':', 1)[1]}.tar"
    if not tar.is_file():
        tar.parent.mkdir(parents=True, exist_ok=True)
        part = tar.with_name(f".{tar.name.removesuffix('.tar')}.part.tar")
        hooks = [
            *(f'--customize-hook=cp -r {tree}/. "$1"/' for tree in trees),
            f'--customize-hook=chroot "$1" systemctl disable {" ".join(disabled)}',
            f'--customize-hook=chroot "$1" systemctl mask {" ".join(MASKED)}',
            '--customize-hook=rm -rf "$1"/etc/ssh/ssh_host_* "$1"/etc/apt/sources.list',
            '--customize-hook=rm -rf "$1"/var/lib/apt/lists/*',
            *(f'--customize-hook=rm -f "$1"{path} && : > "$1"{path}' for path in EMPTY),
        ]
        command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(packages)}"]
        trim = ["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"]
        run([*command, *trim, *hooks, recipe["suite"], part], paths.state() / "logs" / f"image-{kind}.log")
        part.replace(tar)
    podman.run(
        "import", "--quiet", "--change", 'CMD ["/sbin/init"]', "--change", "STOPSIGNAL SIGRTMIN+3", tar, name
    )
    return name
