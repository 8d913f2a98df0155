"""Where things live on this machine: the checkout, the caches, the state of labs."""

import contextlib
import os
import threading
from pathlib import Path


def repository() -> Path:
    """Return the checkout: the nearest folder above the working directory (or this file) with a site.yml."""
    for start in (Path.cwd(), Path(__file__).resolve()):
        for folder in (start, *start.parents):
            if (folder / "site.yml").is_file() and (folder / "roles").is_dir():
                return folder
    raise FileNotFoundError("no Quote Platform checkout here: run this inside the repository")


def cache() -> Path:
    """Return the folder of content-addressed caches; anything in it may be deleted at any time."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "quote-platform"


def state() -> Path:
    """Return the folder that holds the state of running labs and logs."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "quote-platform"


def lab(name: str) -> Path:
    """Return where a lab keeps its keys, its disks, and what it was asked for."""
    return state() / "labs" / name


def vault_password(cluster: str) -> Path:
    """Return where the password of Vault's keys lies by default, apart from them."""
    return Path.home() / ".config" / "quote-platform" / f"{cluster}.vault-password"


def secret(file: Path, value: str) -> str:
    """Return what a secret's file has; a missing one gets the value, whole, whoever else makes it too."""
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = file.with_name(f".{file.name}.{os.getpid()}-{threading.get_native_id()}")
        own.touch(mode=0o600)
        own.write_text(f"{value}\n")
        with contextlib.suppress(FileExistsError):
            file.hardlink_to(own)
        own.unlink()
    return file.read_text().strip()
