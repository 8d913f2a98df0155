"""Machines of a lab as containers with systemd and SSH, by podman: they share this machine's kernel."""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from quote_platform import paths
from quote_platform.lab import access, hostile, image, podman
from quote_platform.lab.errors import LabError
from quote_platform.lab.model import Driver, Lab, Node, Unkind
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


def kind() -> str:
    """Say what its machines are."""
    return "containers"


def refuse(lab: Lab) -> None:
    """Refuse nothing: every lab has containers, and what they need is checked for all."""


def prepare(lab: Lab) -> None:
    """Build the images that nobody has built yet."""
    kinds = {node.role == "mirror" for node in access.machines(lab) if node.driver is Driver.PODMAN}
    with ThreadPoolExecutor() as pool:
        list(pool.map(image.ensure, kinds))


def states(lab: str) -> dict[str, str]:
    """Return the state of each container."""
    return podman.containers(lab)


def start(lab: Lab, node: Node) -> None:
    """Make a container, or start it."""
    match podman.containers(lab.name).get(node.name):
        case "running":
            return
        case "exited" | "stopped" | "configured":
            podman.run("start", node.name)
            return
        case None:
            pass
        case _:  # half made
            remove(lab.name, node.name)
    home = paths.lab(lab.name)
    mounts = [
        f"{access.host_key(lab, node)}:/etc/ssh/ssh_host_ed25519_key:ro",
        f"{access.authorized_keys(lab)}:/root/.ssh/authorized_keys:ro",
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
    podman.run("run", "--detach", *arguments, image.name(node.role == "mirror"), "/sbin/init")


def wait(lab: Lab, node: Node) -> None:
    """Wait until a container takes SSH connections and has booted."""
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


def kill(lab: str, names: Sequence[str]) -> None:
    """Kill containers, and wait until they have ended."""
    podman.run("kill", *names)
    podman.run("wait", *names)


def remove(lab: str, name: str) -> None:
    """Remove a container; on a busy machine its processes may take longer to die than podman waits."""
    command = ("rm", "--force", "--volumes", "--time", "0", name)
    for _ in range(3):
        try:
            podman.run(*command)
        except LabError:
            time.sleep(5)
        else:
            return
    podman.run(*command)
