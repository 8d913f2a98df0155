"""The mesh: receptor itself, as the examples configure it, with certificates and a key made here.

For tests, and for bench/fleet.py.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from quote_platform import paths

ROOT = Path(__file__).resolve().parents[2]
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def binary() -> str:
    """Return the program: that of this machine, or of Debian 13, which is fetched once."""
    if found := shutil.which("receptor"):
        return found
    cache = paths.cache() / "receptor"
    program = cache / "usr" / "bin" / "receptor"
    if not program.exists():
        _fetch(cache)
    return str(program)


def _fetch(cache: Path) -> None:
    """Unpack Debian's package into a folder; nothing of this machine's packages is touched."""
    if not shutil.which("apt-get") or not KEYRING.exists():
        pytest.skip("no receptor here, and no apt that could get Debian's")
    work = cache.with_name(f"receptor.{os.getpid()}")
    for name in ("lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True)
    (work / "sources.list").write_text(
        f"deb [signed-by={KEYRING}] http://deb.debian.org/debian trixie main\n"
    )
    (work / "apt.conf").write_text(
        f'Dir::State "{work}"; Dir::State::Lists "{work}/lists"; Dir::State::status "/dev/null";\n'
        f'Dir::Cache "{work}/cache"; Dir::Etc::SourceList "{work}/sources.list";\n'
        'Dir::Etc::SourceParts "-"; APT::Sandbox::User "root"; Acquire::Languages "none";\n'
    )
    environment = os.environ | {"APT_CONFIG": f"{work}/apt.conf"}
    for command in (["apt-get", "update"], ["apt-get", "download", "receptor"]):
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(work)
            pytest.skip(f"receptor cannot be had here: {done.stderr.strip()[-200:]}")
    (package,) = work.glob("receptor_*.deb")
    subprocess.run(["dpkg-deb", "-x", package, work / "root"], check=True)
    shutil.rmtree(cache, ignore_errors=True)
    (work / "root").rename(cache)
    shutil.rmtree(work)


def free_port() -> int:
    """Return a port of this machine that nobody has."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


class Mesh:
    """A controller, hops and execution nodes: processes of this machine that can be killed and come again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.program = folder, binary()
        self.socket = folder / "receptor.sock"
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._given: dict[str, dict[str, Any]] = {}
        # Where those listen to whom others connect.
        self.ports: dict[str, int] = {}
        self._call("--cert-init", "commonname=mesh", "bits=2048", "outcert=ca.crt", "outkey=ca.key")
        for command in (
            "genpkey -algorithm RSA -out signing.key",
            "pkey -in signing.key -pubout -out signing.pub",
        ):
            subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)

    def _call(self, *arguments: str) -> None:
        subprocess.run([self.program, *arguments], cwd=self.folder, check=True, capture_output=True)

    def certify(self, name: str, *more: str) -> None:
        """Issue the certificate of a node, anew if it has one; `more` is for who signs it."""
        alternative = ("dnsname=localhost", "ipaddress=127.0.0.1", f"nodeid={name}")
        request = ("bits=2048", f"commonname={name}", *alternative)
        self._call("--cert-makereq", *request, f"outreq={name}.req", f"outkey={name}.key")
        signed = ("cacert=ca.crt", "cakey=ca.key", f"outcert={name}.crt", "verify=true")
        self._call("--cert-signreq", f"req={name}.req", *signed, *more)

    def node(self, name: str, checkout: Path, environment: dict[str, str], peer: str = "controller") -> None:
        """Start an execution node that works on a checkout, with records of its own below its name."""
        wrapper = self.folder / "wrapper"
        wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -m quote_platform.cli "$@"\n')
        wrapper.chmod(0o755)
        own = environment | {"XDG_STATE_HOME": str(self.folder / name)}
        self.start(name, "receptor-node.conf", peer=peer, cwd=checkout, program=str(wrapper), env=own)

    def start(self, name: str, example: str, peer: str = "controller", **given: Any) -> None:
        """Start a node by an example, with other paths and addresses; `given` is for its process."""
        if name not in self._given:
            self._given[name] = given | {"example": example, "peer": peer}
            self.ports[name] = free_port()
            if not (self.folder / f"{name}.crt").exists():
                self.certify(name)
        given = {**self._given[name]}
        text = (ROOT / "docs" / "examples" / given.pop("example")).read_text()
        for before, after in (
            ("/etc/receptor/tls/eu-1", f"{self.folder}/{name}"),
            ("/etc/receptor/tls/hop-1", f"{self.folder}/{name}"),
            ("/etc/receptor/tls", str(self.folder)),
            ("eu-1", name),
            ("hop-1", name),
            ("/var/lib/receptor", f"{self.folder}/data-{name}"),
            ("/run/receptor/receptor.sock", str(self.socket)),
            ("0.0.0.0", "127.0.0.1"),  # noqa: S104 (what is replaced)
            ("controller.example.com:27199", f"127.0.0.1:{self.ports[given.pop('peer')]}"),
            ("27199", str(self.ports[name])),
            ("/srv/quote-platform/.venv/bin/quote-platform", given.pop("program", "")),
        ):
            text = text.replace(before, after)
        assert yaml.safe_load(text.split("---\n")[1])
        file = self.folder / f"{name}.conf"
        file.write_text(text)
        log = (self.folder / f"{name}.log").open("ab")
        self.nodes[name] = subprocess.Popen(
            [self.program, "--config", file], stdout=log, stderr=log, stdin=subprocess.DEVNULL, **given
        )

    def again(self, name: str) -> None:
        """Start a node that was killed."""
        self.start(name, "")

    def kill(self, name: str) -> None:
        """Kill the receptor of a node, not what it has started."""
        self.nodes[name].kill()
        self.nodes[name].wait()

    def ready(self, *names: str) -> None:
        """Wait until the controller knows the way to nodes."""
        from receptorctl import ReceptorControl  # noqa: PLC0415

        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                control = ReceptorControl(f"unix:{self.socket}")
                known = control.simple_command("status").get("RoutingTable") or {}
                control.close()
                if set(names) <= set(known):
                    return
            except (OSError, ValueError, RuntimeError):
                pass
            time.sleep(0.1)
        raise AssertionError(f"{names} are not in the mesh: {(self.folder / 'controller.log').read_text()}")

    def stop(self) -> None:
        """End all nodes."""
        for name in self.nodes:
            self.kill(name)
