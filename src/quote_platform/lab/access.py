"""SSH to the machines of a lab: keys, and the command."""

import shlex
import subprocess
from pathlib import Path

from quote_platform import paths
from quote_platform.lab.model import Lab, Node, Unkind


def machines(lab: Lab) -> list[Node]:
    """Return what takes SSH."""
    return [node for node in [*lab.services, *lab.nodes] if node.role != "logs"]


def host_key(lab: Lab, node: Node) -> Path:
    """Return the private key by which a machine is known; beside it lies the public one."""
    return paths.lab(lab.name) / f"host-{node.name}"


def authorized_keys(lab: Lab) -> Path:
    """Return the file of who may log in."""
    return paths.lab(lab.name) / "authorized_keys"


def _keygen(file: Path, comment: str) -> str:
    if not file.is_file():
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(file)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return file.with_suffix(".pub").read_text().strip()


def prepare(lab: Lab) -> None:
    """Make the lab's key and each machine's host key, so that known_hosts is whole from the start."""
    home = paths.lab(lab.name)
    authorized_keys(lab).write_text(_keygen(home / "id_ed25519", f"quote-platform lab {lab.name}") + "\n")
    known = []
    for node in machines(lab):
        kind, key, *_ = _keygen(host_key(lab, node), node.name).split()
        known.append(f"{node.address},{node.name} {kind} {key}\n")
    (home / "known_hosts").write_text("".join(known))


def ssh(lab: Lab, node: Node, command: list[str], more: list[str] | None = None) -> list[str]:
    """Return the command that opens a shell on a node, or runs something there; `more` are options of ssh."""
    home = paths.lab(lab.name)
    options = ["-i", str(home / "id_ed25519"), "-o", f"UserKnownHostsFile={home / 'known_hosts'}"]
    if Unkind.BASTION in lab.unkind and node.role not in {"bastion", "mirror"}:
        jump = shlex.join(["ssh", *options, "-W", "[%h]:%p", f"{lab.user}@{lab.bastion.address}"])
        options += ["-o", f"ProxyCommand={jump}"]
    options += ["-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR", *(more or [])]
    return ["ssh", *options, f"{lab.user}@{node.address}", *command]
