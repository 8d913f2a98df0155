"""Start and stop labs."""

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from quote_platform import paths
from quote_platform.lab import acme, fence, host, hostile, image, inventory, logs, podman
from quote_platform.lab.errors import LabError
from quote_platform.lab.model import Lab, Node, Unkind
from quote_platform.mirror import storage

# On a volume: overlay file systems cannot be stacked, and a node that is switched off keeps its disk.
DISKS = [
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/lib/etcd",
    "/opt/local-path-provisioner",
    "/var/lib/versitygw",
    "/var/log",
]
SECONDS_TO_BOOT = 90
# Waits on a node for the greeting of its SSH server, and prints how that begins.
GREETED = """
greeting() { exec 3<>/dev/tcp/127.0.0.1/22 && head --bytes 4 <&3; }
until said=$(greeting 2>/dev/null) && test "$said"; do sleep 0.2; done
echo "$said"
"""


def machines(lab: Lab) -> list[Node]:
    """Return what takes SSH."""
    return [node for node in [*lab.services, *lab.nodes] if node.role != "logs"]


def state(lab: str) -> Path:
    """Return where a lab keeps its keys and what it was asked for."""
    return paths.state() / "labs" / lab


def find(name: str) -> Lab:
    """Return a lab that was started."""
    file = state(name) / "lab.json"
    if not file.is_file():
        known = ", ".join(sorted(path.parent.name for path in (paths.state() / "labs").glob("*/lab.json")))
        raise LabError(
            f"there is no lab {name}; there are: {known or 'none'} (start it: quote-platform lab up)"
        )
    return _read(file)


def _read(file: Path) -> Lab:
    try:
        return Lab.model_validate_json(file.read_text())
    except ValidationError as error:
        name = file.parent.name
        raise LabError(
            f"lab {name} was made by another version of this: `quote-platform lab down --name {name}`"
        ) from error


def up(lab: Lab, say: Callable[[str], None]) -> Path:
    """Start what is missing; return the folder of the inventory."""
    with _alone(lab.name):
        inventory.refuse_foreign(lab.name)
        return _up(lab, say)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Change a lab alone: after others, and after what a killed run has left working."""
    with host.lock(f"lab-{name}"):
        with host.lock(f"podman-{name}"):
            pass
        podman.hold(host.lock_file(f"podman-{name}"))
        yield


def _up(lab: Lab, say: Callable[[str], None]) -> Path:
    before = state(lab.name) / "lab.json"
    if before.is_file():
        old = _read(before)
        if old.subnet != lab.subnet:
            raise LabError(f"lab {lab.name} runs in {old.subnet}: take it down first, or choose another name")
        if dropped := old.components - lab.components:
            raise LabError(
                f"lab {lab.name} has {', '.join(sorted(dropped))}, and a component is added to a lab but not "
                f"taken from it: name it too, or first run `quote-platform lab down --name {lab.name}`"
            )
    home = state(lab.name)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    before.write_text(lab.model_dump_json(indent=2))
    with host.lock("host"):
        host.prepare()
    with ThreadPoolExecutor() as pool:
        fence.down(lab.name)
        say("images of the nodes")
        node_image, mirror_image = pool.map(image.ensure, (False, True))
        _network(lab)
        _keys(lab, home)
        (home / "acme").mkdir(mode=0o700, exist_ok=True)  # mounted, also where it is filled later
        (home / "outside").mkdir(exist_ok=True)
        hostile.prepare(lab, home)
        if acme.wanted(lab):
            acme.prepare(lab, home)
        if lab.logs:
            logs.prepare(lab, home)
            logs.start(lab, home)
        say(f"starting {len(lab.nodes)} nodes and the mirror's host")
        every = machines(lab)
        list(
            pool.map(
                lambda node: _start(lab, node, mirror_image if node.role == "mirror" else node_image), every
            )
        )
        list(pool.map(lambda node: _wait(lab, node), every))
        foreign = [node for node in every if node.role != "mirror"]
        list(pool.map(lambda node: hostile.machine(lab, home, node), foreign))
    if acme.wanted(lab):  # on a host that was started without, they have not started
        podman.execute(lab.mirror.name, ["systemctl", "start", *acme.PROGRAMS])
    wanted = {node.name for node in [*lab.nodes, *lab.services]}
    for gone in set(podman.containers(lab.name)) - wanted:
        podman.run("rm", "--force", "--volumes", "--time", "0", gone)
    if Unkind.BASTION in lab.unkind:
        fence.up(lab)
    more = acme.settings(lab, home) if acme.wanted(lab) else {}
    more |= logs.settings(lab, home) if lab.logs else {}
    return inventory.write(lab, home, more | hostile.settings(lab, home))


def connected(lab: Lab) -> bool:
    """Tell whether the network of a lab is there."""
    return bool(podman.rows("network", "ls", "--filter", f"name=^{lab.network}$"))


def _network(lab: Lab) -> None:
    if connected(lab):
        return
    label = ["--label", f"{podman.LABEL}={lab.name}"]
    if Unkind.NETWORKS in lab.unkind:  # without a way out, and without names
        podman.run("network", "create", "--internal", "--subnet", lab.inner, *label, f"{lab.network}-inner")
    arguments = ["--subnet", lab.subnet, "--gateway", lab.address(1), *label]
    podman.run("network", "create", *arguments, lab.network)


def _keygen(file: Path, comment: str) -> str:
    if not file.is_file():
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(file)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return file.with_suffix(".pub").read_text().strip()


def _keys(lab: Lab, home: Path) -> None:
    """Make the lab's key and each node's host key, so that known_hosts is whole from the start."""
    (home / "authorized_keys").write_text(
        _keygen(home / "id_ed25519", f"quote-platform lab {lab.name}") + "\n"
    )
    known = []
    for node in machines(lab):
        kind, key, *_ = _keygen(home / f"host-{node.name}", node.name).split()
        known.append(f"{node.address},{node.name} {kind} {key}\n")
    (home / "known_hosts").write_text("".join(known))


def _start(lab: Lab, node: Node, image_name: str) -> None:
    match podman.containers(lab.name).get(node.name):
        case "running":
            return
        case "exited" | "stopped" | "configured":
            podman.run("start", node.name)
            return
        case None:
            pass
        case _:  # half made
            _remove(node.name)
    home = state(lab.name)
    mounts = [
        f"{home / f'host-{node.name}'}:/etc/ssh/ssh_host_ed25519_key:ro",
        f"{home / 'authorized_keys'}:/root/.ssh/authorized_keys:ro",
    ]
    if node.role == "mirror":
        for part in ("www", "registry"):
            (storage.root() / part).mkdir(parents=True, exist_ok=True)
            mounts.append(f"{storage.root() / part}:/srv/mirror/{part}:ro")
        mounts.append(f"{home / 'acme'}:/srv/acme:ro")
        mounts.append(f"{home / 'outside'}:/srv/outside:ro")
    else:
        mounts += DISKS + hostile.mounts(lab, home, node)
    arguments = ["--name", node.name, "--hostname", node.name, "--label", f"{podman.LABEL}={lab.name}"]
    arguments += ["--network", f"{lab.network}:ip={node.address}"]
    if Unkind.NETWORKS in lab.unkind and node.role in {"master", "worker"}:
        arguments += ["--network", f"{lab.network}-inner:ip={lab.inner_address(node)}"]
    # All that podman's --systemd brings, but for a mount of the host's tree of control groups (version 1):
    # there the kubelet of one node takes the pods of the others for orphans.
    arguments += ["--systemd", "false", "--stop-signal", "SIGRTMIN+3"]
    # Of a systemd that restarts, a container only ends; one that is killed or stopped stays off.
    arguments += ["--restart", "on-failure"]
    temporary = "/tmp:noexec" if Unkind.NOEXEC in lab.unkind else "/tmp"  # noqa: S108 (the node's)
    for memory in ("/run", "/run/lock", temporary, "/var/log/journal"):
        arguments += ["--tmpfs", memory]
    if Unkind.PROXY in lab.unkind and node.role == "mirror":
        for name in hostile.upstream():
            arguments += ["--add-host", f"{name}:127.0.0.1"]
    arguments += ["--privileged", "--cgroupns", "private", "--pids-limit", "-1"]
    arguments += ["--ulimit", "nofile=20000:20000", "--ulimit", "nproc=20000:20000"]
    arguments += ["--cpus", str(min(node.cpus, os.cpu_count() or 1)), "--memory", node.memory]
    for mount in mounts:
        arguments += ["--volume", mount]
    podman.run("run", "--detach", *arguments, image_name, "/sbin/init")


def _wait(lab: Lab, node: Node) -> None:
    """Wait until a node takes SSH connections and has booted."""
    deadline = time.monotonic() + SECONDS_TO_BOOT
    while time.monotonic() < deadline:
        # From within, since this machine may reach it by a bastion only.
        command = ["timeout", str(SECONDS_TO_BOOT), "bash", "-c", GREETED]
        if podman.execute(node.name, command, check=False).startswith("SSH-"):
            break
        time.sleep(0.3)
    else:
        raise LabError(
            f"node {node.name} takes no SSH connection after {SECONDS_TO_BOOT} s: "
            f"see `podman exec {node.name} journalctl -b`, "
            f"then `quote-platform lab down --name {lab.name}` and up again"
        )
    booted = podman.execute(node.name, ["systemctl", "is-system-running", "--wait"], check=False).strip()
    if booted not in {"running", "degraded"}:
        raise LabError(f"node {node.name} does not finish booting ({booted}): see `podman logs {node.name}`")


def ssh(lab: Lab, node: Node, command: list[str]) -> list[str]:
    """Return the command that opens a shell on a node, or runs something there."""
    home = state(lab.name)
    options = ["-i", str(home / "id_ed25519"), "-o", f"UserKnownHostsFile={home / 'known_hosts'}"]
    if Unkind.BASTION in lab.unkind and node.role not in {"bastion", "mirror"}:
        jump = shlex.join(["ssh", *options, "-W", "[%h]:%p", f"{lab.user}@{lab.bastion.address}"])
        options += ["-o", f"ProxyCommand={jump}"]
    return [
        "ssh",
        *options,
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "LogLevel=ERROR",
        f"{lab.user}@{node.address}",
        *command,
    ]


def node_of(lab: Lab, name: str) -> Node:
    """Return a node by its name, with or without the lab's."""
    every = {node.name: node for node in [*lab.nodes, *lab.services]}
    found = every.get(name) or every.get(f"{lab.name}-{name}")
    if found is None:
        raise LabError(f"lab {lab.name} has no node {name}; it has: {', '.join(every)}")
    return found


def switch_off(lab: Lab, *nodes: Node) -> None:
    """Switch nodes off as a power cut does, all of them at once."""
    found = podman.containers(lab.name)
    if running := [node.name for node in nodes if found.get(node.name) == "running"]:
        podman.run("kill", *running)
        podman.run("wait", *running)


def switch_on(lab: Lab, node: Node) -> None:
    """Switch a node on again; its disk is as it was."""
    if podman.containers(lab.name).get(node.name) != "running":
        podman.run("start", node.name)
    if node in machines(lab):
        _wait(lab, node)


def destroy(lab: Lab, node: Node) -> None:
    """Destroy a node with its disks, as when a machine is lost."""
    if node.name in podman.containers(lab.name):
        _remove(node.name)


def _remove(container: str) -> None:
    """Remove a node; on a busy machine its processes may take longer to die than podman waits."""
    command = ("rm", "--force", "--volumes", "--time", "0", container)
    for _ in range(3):
        try:
            podman.run(*command)
        except LabError:
            time.sleep(5)
        else:
            return
    podman.run(*command)


def down(name: str) -> None:
    """Remove a lab, also half a one: containers, disks, network, keys, inventory, its cluster's secrets."""
    with _alone(name):
        there = podman.containers(name)
        # A name that a person's inventory has, or that no lab ever had: its secrets are not ours to delete.
        ours = inventory.ours(name) and (
            bool(there) or state(name).exists() or (inventory.folder(name) / "hosts.yml").exists()
        )
        with ThreadPoolExecutor() as pool:
            list(pool.map(_remove, there))
        fence.down(name)
        hostile.release(state(name))
        for network in podman.rows("network", "ls", "--filter", f"label={podman.LABEL}={name}"):
            podman.run("network", "rm", "--force", network["name"])
        if ours:
            inventory.remove(name)
            shutil.rmtree(paths.repository() / "secrets" / name, ignore_errors=True)
            paths.vault_password(name).unlink(missing_ok=True)
        shutil.rmtree(state(name), ignore_errors=True)
    with host.lock("host"):
        if not podman.containers() and not any((paths.state() / "labs").glob("*")):
            host.restore()
