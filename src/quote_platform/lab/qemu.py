"""Machines of a lab as virtual machines, by QEMU: a kernel of their own, on the network that podman made."""

import math
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import yaml

from quote_platform import paths
from quote_platform.lab import access, disk, image, podman
from quote_platform.lab.errors import LabError
from quote_platform.lab.model import Lab, Node

QEMU = "qemu-system-x86_64"
# The program: the package that has it.
NEEDED = {
    QEMU: "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "genisoimage": "genisoimage",
    "mke2fs": "e2fsprogs",
}
# For disks without a boot loader.
APPEND = "root=/dev/vda rw console=ttyS0 systemd.show_status=0 loglevel=4"
SECONDS_FOR_A_BRIDGE = 60


def kvm(device: Path = Path("/dev/kvm"), cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether this machine runs any kernel by KVM; where it does not, it is emulated.

    Without vmx or svm there may be a /dev/kvm as well: for kernels that were made for it, on which ours hang.
    """
    usable = os.access(device, os.R_OK | os.W_OK)
    return usable and bool(re.search(r"^flags\b.* (vmx|svm)( |$)", cpuinfo.read_text(), re.MULTILINE))


def seconds_to_boot() -> int:
    """Return within how long a machine has booted."""
    return 180 if kvm() else 900


def kind() -> str:
    """Say what its machines are."""
    return "virtual machines by KVM" if kvm() else "virtual machines, emulated: minutes"


def refuse(lab: Lab) -> None:
    """Refuse where a program is missing, or an image cannot be had."""
    if missing := [package for program, package in NEEDED.items() if not shutil.which(program)]:
        raise LabError(
            f"driver qemu needs {', '.join(missing)}: `make machine driver=qemu` installs what is missing"
        )
    disk.refuse(lab.system)


def prepare(lab: Lab) -> None:
    """Make or fetch the disk from which machines boot."""
    disk.ensure(lab.system)


def _folder(lab: str, name: str) -> Path:
    return paths.lab(lab) / "machines" / name


def _process(lab: str, name: str) -> psutil.Process | None:
    """Return the process of a machine that runs; another one may have its number by now."""
    file = _folder(lab, name) / "pid"
    with suppress(OSError, ValueError, psutil.NoSuchProcess):
        process = psutil.Process(int(file.read_text()))
        if str(file) in process.cmdline():
            return process
    return None


def states(lab: str) -> dict[str, str]:
    """Return the state of each machine, in the words of podman."""
    names = [folder.name for folder in sorted((paths.lab(lab) / "machines").glob("*"))]
    return {name: "running" if _process(lab, name) else "exited" for name in names}


def tap(lab: str, name: str) -> str:
    """Return the name of a machine's end of the network; the kernel allows 15 characters."""
    return f"qp-{sha256(f'{lab}/{name}'.encode()).hexdigest()[:12]}"


def hardware_address(node: Node) -> str:
    """Return the address of a machine's network card."""
    return ":".join(["52:54", *(f"{int(part):02x}" for part in node.address.split("."))])


def resolvers(
    files: Sequence[Path] = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf")),
) -> list[str]:
    """Return the name servers of this machine that others reach as well."""
    text = next((file.read_text() for file in files if file.is_file()), "")
    return [found for found in re.findall(r"^nameserver (\S+)", text, re.MULTILINE) if found[:4] != "127."]


def seed(lab: Lab, node: Node, keys: Path, authorized: Path) -> dict[str, str]:
    """Return the files that cloud-init reads at the first boot (its data source NoCloud)."""
    user: dict[str, Any] = {
        "hostname": node.name,
        "manage_etc_hosts": "localhost",
        "users": [{"name": "root"}],  # and none that the image would make
        "disable_root": False,
        "ssh_authorized_keys": authorized.read_text().splitlines(),
        "ssh_keys": {
            "ed25519_private": keys.read_text(),
            "ed25519_public": keys.with_suffix(".pub").read_text(),
        },
        # The very file that the image of nodes has.
        "write_files": [
            {
                "path": "/etc/ssh/sshd_config.d/lab.conf",
                "content": (image.folder() / "rootfs/etc/ssh/sshd_config.d/lab.conf").read_text(),
            }
        ],
    }
    card: dict[str, Any] = {
        "match": {"macaddress": hardware_address(node)},
        "addresses": [f"{node.address}/{lab.subnet.rpartition('/')[2]}"],
        "routes": [{"to": "default", "via": lab.address(1)}],
    }
    if servers := resolvers():
        card["nameservers"] = {"addresses": servers}
    return {
        "user-data": "#cloud-config\n" + yaml.safe_dump(user, sort_keys=False),
        # Another disk is another machine.
        "meta-data": yaml.safe_dump({"instance-id": f"{node.name}-{uuid.uuid4()}"}),
        "network-config": yaml.safe_dump({"version": 2, "ethernets": {"lan": card}}, sort_keys=False),
    }


def _said(*words: str | Path) -> None:
    """Run a command; what it complains about is the error."""
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise LabError(f"{words[0]} failed: {' | '.join(lines[-3:])}")


def _make(lab: Lab, node: Node, folder: Path) -> None:
    """Make a machine's disks; the one that it writes comes last, so that with it all are there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in disk.folder(lab.system).iterdir():
        try:  # what is in the cache may be deleted, and a machine needs it as long as it lives
            os.link(file, folder / file.name)
        except OSError:  # another file system
            _said("cp", "--sparse=always", file, folder / file.name)
    written = folder / "seed"
    written.mkdir()
    for name, text in seed(lab, node, access.host_key(lab, node), access.authorized_keys(lab)).items():
        (written / name).write_text(text)
    iso = ["genisoimage", "-quiet", "-volid", "CIDATA", "-joliet", "-rational-rock"]
    _said(*iso, "-output", folder / "seed.iso", written)
    (base,) = folder.glob("base.*")
    overlay = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", base.name, "-F", base.suffix[1:]]
    _said(*overlay, folder / "part.qcow2", disk.SIZE)
    (folder / "part.qcow2").replace(folder / "disk.qcow2")


def _bridge(lab: Lab) -> str:
    """Return the bridge of the lab's network, which podman makes for the first container in it."""
    rows = podman.rows("network", "ls", "--filter", f"name=^{lab.network}$")
    if not rows:
        raise LabError(f"there is no network {lab.network}: `quote-platform lab up` makes it")
    bridge = str(rows[0]["network_interface"])
    deadline = time.monotonic() + SECONDS_FOR_A_BRIDGE
    while not Path("/sys/class/net", bridge).exists():
        if time.monotonic() > deadline:
            raise LabError(f"the network of lab {lab.name} is down: start {lab.mirror.name} first")
        time.sleep(0.2)
    return bridge


def _plug(lab: Lab, node: Node) -> None:
    """Connect a machine to the lab's network."""
    name = tap(lab.name, node.name)
    if not Path("/sys/class/net", name).exists():
        _said("ip", "tuntap", "add", "dev", name, "mode", "tap")
    _said("ip", "link", "set", name, "master", _bridge(lab), "up")


def command(lab: Lab, node: Node, folder: Path) -> list[str]:
    """Return the command that starts a machine."""

    def file(name: str) -> str:
        return str(folder / name).replace(",", ",,")  # as QEMU wants it in a list of options

    fast = kvm()
    words = [
        QEMU,
        "-name",
        node.name,
        "-no-user-config",
        "-nodefaults",
        "-display",
        "none",
        "-machine",
        "q35",
    ]
    words += ["-accel", "kvm" if fast else "tcg,thread=multi", "-cpu", "host" if fast else "max"]
    words += ["-smp", str(min(math.ceil(node.cpus), os.cpu_count() or 1)), "-m", f"{node.mebibytes}M"]
    words += ["-drive", f"file={file('disk.qcow2')},format=qcow2,if=virtio"]
    words += ["-drive", f"file={file('seed.iso')},format=raw,if=virtio,readonly=on"]
    words += ["-netdev", f"tap,id=lan,ifname={tap(lab.name, node.name)},script=no,downscript=no"]
    words += ["-device", f"virtio-net-pci,netdev=lan,mac={hardware_address(node)},romfile="]
    words += ["-device", "virtio-rng-pci"]
    words += [
        "-chardev",
        f"file,id=console,path={file('console.log')},append=on",
        "-serial",
        "chardev:console",
    ]
    if (folder / "vmlinuz").is_file():
        words += [
            "-kernel",
            str(folder / "vmlinuz"),
            "-initrd",
            str(folder / "initrd.img"),
            "-append",
            APPEND,
        ]
    return [*words, "-daemonize", "-pidfile", str(folder / "pid")]


def start(lab: Lab, node: Node) -> None:
    """Make a machine, or start it."""
    if _process(lab.name, node.name):
        return
    folder = _folder(lab.name, node.name)
    if not (folder / "disk.qcow2").is_file():
        _make(lab, node, folder)
    _plug(lab, node)
    _said(*command(lab, node, folder))


def _asked(lab: Lab, node: Node, *words: str) -> str:
    """Return what a machine answers over SSH; nothing while it does not."""
    options = ["-o", "ConnectTimeout=5", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=10"]
    call = access.ssh(lab, node, list(words), options)
    done = subprocess.run(call, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return done.stdout.strip()


def wait(lab: Lab, node: Node) -> None:
    """Wait until cloud-init has done its work, and all has started."""
    seconds, console = seconds_to_boot(), _folder(lab.name, node.name) / "console.log"
    deadline = time.monotonic() + seconds
    while _asked(lab, node, "systemctl", "is-system-running", "--wait") not in {"running", "degraded"}:
        if not _process(lab.name, node.name):
            raise LabError(f"the virtual machine {node.name} has ended: see {console}")
        if time.monotonic() > deadline:
            raise LabError(f"{node.name} has not booted after {seconds} s: see {console}")
        time.sleep(1)
    if "status: error" in _asked(lab, node, "cloud-init", "status"):
        raise LabError(
            f"cloud-init failed on {node.name}: see `quote-platform lab ssh --name {lab.name} {node.name} "
            "cloud-init status --long`"
        )


def kill(lab: str, names: Sequence[str]) -> None:
    """Kill machines, and wait until they have ended."""
    processes = [process for name in names if (process := _process(lab, name))]
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    _, left = psutil.wait_procs(processes, timeout=30)
    if left:
        raise LabError(f"these processes of lab {lab} do not end: {', '.join(str(one.pid) for one in left)}")


def remove(lab: str, name: str) -> None:
    """Remove a machine, also half a one."""
    kill(lab, [name])
    if Path("/sys/class/net", tap(lab, name)).exists():
        _said("ip", "link", "delete", tap(lab, name))
    shutil.rmtree(_folder(lab, name), ignore_errors=True)
