"""Virtual machines of a lab: what is asked of QEMU and of cloud-init, and what is refused before that."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from typer.testing import CliRunner

from quote_platform import machine, paths
from quote_platform.lab import (
    access,
    cli,
    containers,
    disk,
    drivers,
    host,
    inventory,
    lifecycle,
    podman,
    qemu,
)
from quote_platform.lab.errors import LabError
from quote_platform.lab.model import Driver, Lab, System
from quote_platform.mirror import catalogue, upstream

ROOT = Path(__file__).resolve().parents[2]
VM: dict[str, Any] = {"name": "vm", "driver": "qemu", "workers": 1, "stores": 0, "vaults": 0, "logs": False}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab of virtual machines, in a cache and a state of its own, with keys; nothing runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(podman, "run", lambda *_, **__: "[]")
    monkeypatch.setattr(host, "prepare", lambda: pytest.fail("something was made"))
    found = Lab.model_validate(VM)
    paths.lab("vm").mkdir(parents=True)
    access.prepare(found)
    return found


def node_folder(lab: Lab, name: str = "vm-master-1") -> Path:
    folder = paths.lab(lab.name) / "machines" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"driver": "xen"}, "'podman' or 'qemu'"),
        ({"driver": "podman", "system": "ubuntu-22.04"}, "ubuntu-22.04 runs in virtual machines only: add"),
        ({"system": "ubuntu-20.04"}, "'debian-12' or 'ubuntu-22.04'"),
        ({"unkind": ["proxy", "clock"]}, r"cannot be unkind \(clock, proxy\): --driver podman can"),
        ({"name": "lab"}, "inventories/lab has the settings of containers: another --name"),
    ],
)
def test_wrong_labs_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Lab.model_validate(VM | asked)


def test_missing_programs_are_named_by_their_packages(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = "driver qemu needs qemu-system-x86, qemu-utils, genisoimage, e2fsprogs: `make machine driver=qemu`"
    with pytest.raises(LabError, match=said):
        lifecycle.up(Lab.model_validate(VM | {"name": "other"}), print)
    assert not paths.lab("other").exists()


def test_what_the_driver_needs_is_installed_for_it_only() -> None:
    listed = (ROOT / "lab/packages-qemu.txt").read_text()
    for program, package in qemu.NEEDED.items():
        assert f"\n{package}" in listed, program
        assert f"\n{package}" not in (ROOT / "lab/packages.txt").read_text()
    for words, options in ((["machine"], "--machine"), (["machine", "driver=qemu"], "--machine --qemu")):
        command = ["make", "--dry-run", "--no-print-directory", *words]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert said.strip() == f"lab/bootstrap.sh {options}"
    proof = subprocess.run(
        ["make", "--dry-run", "proof"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "lab/bootstrap.sh --machine --qemu" in proof.stdout


def test_an_unknown_option_of_bootstrap_is_refused() -> None:
    done = subprocess.run(
        ["lab/bootstrap.sh", "--xen"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no such option: --xen; there are --machine and --qemu" in done.stderr


def test_virtual_machines_take_all_memory_they_are_given() -> None:
    needs = machine.Needs.of_lab(Lab.model_validate(VM), running=False)
    assert needs.memory == (4 + 8 + 0.5) * machine.GIB
    good = machine.Machine(2, 8 * machine.GIB, 60 * machine.GIB, True, True, machine.CGROUPS)
    with pytest.raises(
        machine.Unfit, match=r"8\.0 GiB of memory are free, this lab needs 12: .* machines less"
    ):
        machine.check(good, needs)


def test_a_lab_is_not_moved_to_another_driver(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "refuse", lambda _: None)
    (paths.lab("vm") / "lab.json").write_text(Lab.model_validate(VM | {"driver": "podman"}).model_dump_json())
    with pytest.raises(LabError, match="lab vm is of podman with debian-12: take it down first"):
        lifecycle.up(lab, print)


def test_the_command_names_the_drivers_there_are(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = {"COLUMNS": "200", "NO_COLOR": "1"}
    told = CliRunner().invoke(cli.app, ["up", "--driver", "xen"], env=wide)
    assert told.exit_code == 2
    assert "'xen' is not one of 'podman', 'qemu'" in told.output
    # Unless it is told, a lab of virtual machines has a name of its own, and Ubuntu.
    asked: list[Lab] = []
    monkeypatch.setattr(machine, "check", lambda *_: None)

    def up(wanted: Lab, _: Callable[[str], None]) -> Path:
        asked.append(wanted)
        return Path("inventories")

    monkeypatch.setattr(lifecycle, "up", up)
    for words in (["up", "--driver", "qemu"], ["up"]):
        assert CliRunner().invoke(cli.app, words).exit_code == 0
    assert [(one.name, one.driver, one.system) for one in asked] == [
        ("vm", Driver.QEMU, System.UBUNTU),
        ("lab", Driver.PODMAN, System.DEBIAN),
    ]


# --- Ubuntu's image -------------------------------------------------------------------------------------


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The pins, which name a server that has an image."""

    class Serving(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"an image")

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Serving)
    Thread(target=server.serve_forever, daemon=True).start()
    pins = {
        "lab_ubuntu_url": f"http://127.0.0.1:{server.server_port}/release-1/ubuntu.img",
        "lab_ubuntu_sha256": hashlib.sha256(b"an image").hexdigest(),
    }
    monkeypatch.setattr(catalogue, "versions", lambda: pins)
    yield pins
    server.shutdown()


def test_an_image_is_fetched_once_by_its_pin(lab: Lab, publisher: dict[str, Any]) -> None:
    folder = disk.ensure(System.UBUNTU)
    assert [file.name for file in folder.iterdir()] == ["base.qcow2"]
    publisher["lab_ubuntu_url"] = "http://127.0.0.1:1/ubuntu.img"
    assert disk.ensure(System.UBUNTU) == folder


def test_an_image_that_is_not_the_pinned_one_is_refused(lab: Lab, publisher: dict[str, Any]) -> None:
    publisher["lab_ubuntu_sha256"] = "0" * 64
    with pytest.raises(
        LabError, match=r"release-1/ubuntu.img: its SHA-256 is \w+, lab_ubuntu_sha256 is 0+: r"
    ):
        disk.ensure(System.UBUNTU)
    assert not disk.folder(System.UBUNTU).exists()


def test_an_image_that_was_brought_is_taken_if_it_is_the_pinned_one(
    lab: Lab, publisher: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "reachable", lambda _: False)
    brought = paths.cache() / "lab" / "ubuntu.img"
    with pytest.raises(
        LabError, match=f"cannot be fetched: .* put the file at {brought}, or use --system deb"
    ):
        disk.refuse(System.UBUNTU)
    disk.refuse(System.DEBIAN)
    brought.parent.mkdir(parents=True)
    publisher["lab_ubuntu_url"] = "http://127.0.0.1:1/ubuntu.img"
    brought.write_bytes(b"another")
    disk.refuse(System.UBUNTU)
    with pytest.raises(LabError, match=f"{brought}: its SHA-256 is"):
        disk.ensure(System.UBUNTU)
    brought.write_bytes(b"an image")
    assert (disk.ensure(System.UBUNTU) / "base.qcow2").read_bytes() == b"an image"


# --- what is asked of QEMU and of cloud-init ------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "device", "expected"),
    [
        ("fpu vmx smx", True, True),
        ("fpu svm", True, True),
        ("fpu hypervisor", True, False),
        ("vmx", False, False),
    ],
)
def test_kvm_is_used_where_it_runs_any_kernel(
    tmp_path: Path, flags: str, device: bool, expected: bool
) -> None:
    if device:
        (tmp_path / "kvm").touch()
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\nvmx flags : ept\nbugs : none\n")
    assert qemu.kvm(tmp_path / "kvm", tmp_path / "cpuinfo") is expected


def options(command: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairwise(command):
        if name.startswith("-"):
            found.setdefault(name, []).append(value)
    return found


def test_a_machine_has_its_disk_its_seed_and_the_labs_network(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, folder = lifecycle.node_of(lab, "worker-1"), node_folder(lab, "vm,worker-1")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(qemu, "kvm", lambda: False)
    emulated = options(qemu.command(lab, node, folder))
    where = str(folder).replace(",", ",,")
    assert emulated["-accel"] == ["tcg,thread=multi"]
    assert emulated["-cpu"] == ["max"]
    assert emulated["-smp"] == ["2"], "no more processors than there are"
    assert emulated["-m"] == ["8192M"]
    assert emulated["-drive"] == [
        f"file={where}/disk.qcow2,format=qcow2,if=virtio",
        f"file={where}/seed.iso,format=raw,if=virtio,readonly=on",
    ]
    assert emulated["-netdev"] == [f"tap,id=lan,ifname={qemu.tap('vm', node.name)},script=no,downscript=no"]
    assert "-kernel" not in emulated, "Ubuntu's image has a boot loader"
    monkeypatch.setattr(qemu, "kvm", lambda: True)
    (folder / "vmlinuz").touch()
    fast = options(qemu.command(lab, node, folder))
    assert (fast["-accel"], fast["-cpu"]) == (["kvm"], ["host"])
    assert fast["-kernel"] == [str(folder / "vmlinuz")]
    assert fast["-append"][0].startswith("root=/dev/vda rw console=ttyS0")


def test_machines_differ_in_the_network() -> None:
    lab = Lab.model_validate(VM | {"name": "a-name-of-twenty-let", "workers": 50})
    taps = {qemu.tap(lab.name, node.name) for node in lab.nodes}
    cards = {qemu.hardware_address(node) for node in lab.nodes}
    assert len(taps) == len(cards) == 51
    assert max(map(len, taps)) <= 15, "the kernel's limit"
    assert qemu.hardware_address(lab.nodes[0]) == "52:54:0a:59:2a:0b"


def test_the_seed_has_key_name_and_address(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text(
        "nameserver 127.0.0.53\nsearch example.com\nnameserver 192.0.2.53\n"
    )
    assert qemu.resolvers([tmp_path / "none", tmp_path / "resolv.conf"]) == ["192.0.2.53"]
    node = lab.nodes[0]
    files = qemu.seed(lab, node, access.host_key(lab, node), access.authorized_keys(lab))
    assert files["user-data"].startswith("#cloud-config\n")
    user = yaml.safe_load(files["user-data"])
    assert user["hostname"] == "vm-master-1"
    assert (user["disable_root"], user["users"]) == (False, [{"name": "root"}])
    assert user["ssh_authorized_keys"] == access.authorized_keys(lab).read_text().splitlines()
    known = (paths.lab("vm") / "known_hosts").read_text()
    assert " ".join(user["ssh_keys"]["ed25519_public"].split()[:2]) in known
    # pragma: allowlist nextline secret
    assert user["ssh_keys"]["ed25519_private"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    card = yaml.safe_load(files["network-config"])["ethernets"]["lan"]
    assert card["addresses"] == ["10.89.42.11/24"]
    assert card["routes"] == [{"to": "default", "via": "10.89.42.1"}]
    assert card["match"] == {"macaddress": "52:54:0a:59:2a:0b"}
    again = qemu.seed(lab, node, access.host_key(lab, node), access.authorized_keys(lab))
    assert again["meta-data"] != files["meta-data"], (
        "a machine that is made anew is another one to cloud-init"
    )


def test_a_machine_keeps_its_disk_when_the_cache_is_deleted(lab: Lab, publisher: dict[str, Any]) -> None:
    made: list[list[str]] = []
    ubuntu = lab.model_copy(update={"system": System.UBUNTU})
    base = disk.ensure(System.UBUNTU) / "base.qcow2"
    folder, node = node_folder(lab), lab.nodes[0]

    def said(*words: object) -> None:
        made.append([str(word) for word in words])
        (folder / "part.qcow2").touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qemu, "_said", said)
        qemu._make(ubuntu, node, folder)
    base.unlink()
    assert (folder / "base.qcow2").read_bytes() == b"an image"
    assert {file.name for file in (folder / "seed").iterdir()} == {"user-data", "meta-data", "network-config"}
    assert [words[0] for words in made] == ["genisoimage", "qemu-img"]
    assert made[1][-4:] == ["-F", "qcow2", str(folder / "part.qcow2"), disk.SIZE]
    assert (folder / "disk.qcow2").is_file()


# --- what runs ------------------------------------------------------------------------------------------


def test_a_machine_runs_while_its_process_does(lab: Lab) -> None:
    folder = node_folder(lab)
    assert qemu.states("vm") == {"vm-master-1": "exited"}
    # Another process has the number of one that has ended.
    (folder / "pid").write_text(str(os.getpid()))
    assert qemu.states("vm") == {"vm-master-1": "exited"}
    script = "import time; print(flush=True); time.sleep(60)"
    words = [sys.executable, "-c", script, str(folder / "pid")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline()  # it has begun: before, its words are not to be seen
    (folder / "pid").write_text(str(process.pid))
    try:
        assert drivers.states("vm") == {"vm-master-1": "running"}
        lifecycle.switch_off(lab, lab.nodes[0])
        process.wait(10)
        assert drivers.states("vm") == {"vm-master-1": "exited"}
        lifecycle.switch_off(lab, lab.nodes[0])
    finally:
        process.kill()
    with pytest.raises(
        LabError, match="node vm-worker-1 is not there: `quote-platform lab up --name vm` makes"
    ):
        lifecycle.switch_on(lab, lifecycle.node_of(lab, "worker-1"))
    lifecycle.destroy(lab, lab.nodes[0])
    assert not folder.exists()
    assert drivers.states("vm") == {}


def test_virtual_machines_go_before_the_network_they_are_connected_to(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[str] = []
    monkeypatch.setattr(podman, "containers", lambda name="": {"vm-mirror": "running"} if name else {})
    monkeypatch.setattr(containers, "remove", lambda _, name: gone.append(name))
    monkeypatch.setattr(qemu, "remove", lambda _, name: gone.append(name))
    monkeypatch.setattr(host, "restore", lambda: None)
    monkeypatch.setattr(inventory, "ours", lambda _: False)  # of this checkout, nothing is deleted
    for node in lab.nodes:
        node_folder(lab, node.name)
    lifecycle.down("vm")
    assert {*gone[:2]} == {"vm-master-1", "vm-worker-1"}
    assert gone[2:] == ["vm-mirror"]


def test_its_inventory_has_no_settings_of_containers(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "folder", lambda _: tmp_path / "inventory")
    for system, docker in (
        (System.DEBIAN, "http://10.89.42.2/apt/docker/linux/debian"),
        (System.UBUNTU, None),
    ):
        folder = inventory.write(lab.model_copy(update={"system": system}), Path("/state"))
        platform = folder / "group_vars" / "platform"
        assert [file.name for file in platform.iterdir()] == ["mirror.yml"]
        settings = yaml.safe_load((platform / "mirror.yml").read_text())
        assert settings["verify_intrusive"] is True
        assert settings["kubernetes_packages_repository"] == "http://10.89.42.2/apt/kubernetes/"
        # The mirror has no packages of Docker's for Ubuntu.
        assert settings.get("container_runtime_repository") == docker
