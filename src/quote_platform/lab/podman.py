"""Podman, as far as a lab needs it."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quote_platform.lab.errors import LabError

# crun refuses a host with both cgroup versions, and without systemd there is no journal for events.
PODMAN = ["podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]
LABEL = "quote-platform.lab"


# Held by each podman of this process while it runs, even when this process is killed before.
_children: list[Path] = []


def hold(file: Path) -> None:
    """Let every podman from now on hold this lock, shared."""
    _children[:] = [file]


def run(*arguments: str | Path, check: bool = True, data: bytes | None = None) -> str:
    """Run podman and return what it prints."""
    held = ["flock", "--shared", "--close", str(_children[0])] if _children else []
    done = subprocess.run(
        [*held, *PODMAN, *map(str, arguments)],
        capture_output=True,
        check=False,
        input=data,
        env=os.environ | {"LANG": "C"},
    )
    if check and done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise LabError(f"podman {arguments[0]} failed: {' | '.join(lines[-3:])}")
    return done.stdout.decode(errors="replace")


def rows(*arguments: str) -> list[dict[str, Any]]:
    """Return what podman lists."""
    return list(json.loads(run(*arguments, "--format", "json") or "[]") or [])


def containers(lab: str | None = None) -> dict[str, str]:
    """Return the state of each container of a lab, or of all labs."""
    label = f"label={LABEL}={lab}" if lab else f"label={LABEL}"
    return {row["Names"][0]: str(row["State"]) for row in rows("ps", "--all", "--filter", label)}


def remove_network(row: dict[str, Any]) -> None:
    """Remove a network, and its bridge, which stays if a virtual machine was the last in it."""
    run("network", "rm", "--force", row["name"])
    bridge = str(row.get("network_interface", ""))
    if bridge and Path("/sys/class/net", bridge).exists():
        subprocess.run(["ip", "link", "delete", bridge], check=False, capture_output=True)


def execute(container: str, command: Sequence[str], check: bool = True) -> str:
    """Run a command in a container."""
    return run("exec", container, *command, check=check)
