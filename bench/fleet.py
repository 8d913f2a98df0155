#!/usr/bin/env python3
"""Measure `quote-platform fleet run` over many clusters: a real mesh on this machine, a short playbook each.

python bench/fleet.py 25 50 100 200
"""

import argparse
import contextlib
import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from quote_platform.jobs.process import PR_SET_CHILD_SUBREAPER

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "unit"))

from receptor import Mesh  # noqa: E402 (of the tests)

PLAY = """- name: Work
  hosts: all
  gather_facts: false
  tasks:
    - name: Do something
      ansible.builtin.command: "true"
      changed_when: false
"""
MIB = 1024**2


@dataclass
class Process:
    """What a process of the controller has come to."""

    # Its memory at most, in MiB.
    memory: float = 0
    # Seconds.
    processor: float = 0
    children: int = 0


class Watched:
    """A process whose memory and processor time are looked at until it ends."""

    def __init__(self, pid: int) -> None:
        self.process, self.found = psutil.Process(pid), Process()
        self._before = self._processor()

    def _processor(self) -> float:
        used = self.process.cpu_times()
        return used.user + used.system + used.children_user + used.children_system

    def reset(self) -> None:
        """Begin anew, for a process that is there for longer than a run."""
        # The kernel's own record of the peak: nothing escapes between two looks.
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        self._before, self.found = self._processor(), Process()

    def look(self) -> None:
        """Take in where it stands."""
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            peak = next((one for one in status.splitlines() if one.startswith("VmHWM:")), "")
            if peak:
                self.found.memory = max(self.found.memory, int(peak.split()[1]) / 1024)
                self.found.processor = self._processor() - self._before
            self.found.children = max(self.found.children, len(self.process.children(recursive=True)))


@dataclass
class Measured:
    """One number of clusters."""

    clusters: int
    seconds: float
    command: Process
    receptor: Process
    # Seconds of processor time of all: controller, node, jobs.
    all: float


def used() -> float:
    """Return the processor time of all of our processes that have ended."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


class Bench:
    """A controller and execution nodes, which work on checkouts with a short playbook."""

    def __init__(self, folder: Path, nodes: int, clusters: int) -> None:
        self.folder, self.project = folder, folder / "project"
        for name in ("roles", "playbooks", "inventories"):
            (self.project / name).mkdir(parents=True)
        shutil.copy(ROOT / "ansible.cfg", self.project)
        for name in ("site.yml", "playbooks/work.yml"):
            (self.project / name).write_text(PLAY)
        self.names = [f"c{number:03d}" for number in range(clusters)]
        for name in self.names:
            where = self.project / "inventories" / name
            where.mkdir()
            local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
            hosts = {"hosts": {"here": local}, "vars": {"cluster_name": name}}
            (where / "hosts.yml").write_text(json.dumps({"all": hosts}))
        self.mesh = Mesh(folder)
        self.mesh.start("controller", "receptor-controller.conf")
        self.nodes = [f"node-{number}" for number in range(nodes)]
        for node in self.nodes:
            self.mesh.node(node, self.project, dict(os.environ))
        self.mesh.ready(*self.nodes)
        self.receptor = Watched(self.mesh.nodes["controller"].pid)

    def measure(self, clusters: int, at_once: int) -> Measured:
        """Run the playbook on so many clusters."""
        fleet = {
            "receptor": {"nodes": self.nodes, "socket": str(self.mesh.socket)},
            "clusters": {
                name: {"inventory": f"inventories/{name}", "node": self.nodes[number % len(self.nodes)]}
                for number, name in enumerate(self.names[:clusters])
            },
        }
        (self.project / "inventories" / "fleet.yml").write_text(json.dumps(fleet))
        command = [sys.executable, "-m", "quote_platform.cli", "fleet", "run", "playbooks/work.yml"]
        command += ["--on", "all", "--at-once", str(at_once), "--stop-after", "1"]
        environment = os.environ | {"XDG_STATE_HOME": str(self.folder / f"state-{clusters}")}
        self.receptor.reset()
        nodes = [Watched(self.mesh.nodes[one].pid) for one in self.nodes]
        before, began = used(), time.monotonic()
        with (self.folder / "log").open("a") as log:
            run = subprocess.Popen(command, cwd=self.project, env=environment, stdout=log, stderr=log)
            watched = Watched(run.pid)
            while run.poll() is None:
                watched.look()
                self.receptor.look()
                time.sleep(0.2)
        seconds = time.monotonic() - began
        if run.returncode:
            sys.exit((self.folder / "log").read_text()[-4000:])
        self._settled()
        for node in nodes:
            node.look()
        whole = used() - before + self.receptor.found.processor + sum(one.found.processor for one in nodes)
        return Measured(clusters, seconds, watched.found, self.receptor.found, whole)

    def _settled(self) -> None:
        """Wait until nothing of the jobs is left, and take in what has become ours."""
        living = {one.pid for one in self.mesh.nodes.values()}
        end = time.monotonic() + 60
        while time.monotonic() < end:
            for child in psutil.Process().children():
                if child.pid not in living:
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(child.pid, os.WNOHANG)
            if {one.pid for one in psutil.Process().children(recursive=True)} <= living:
                return
            time.sleep(0.2)


def table(found: list[Measured]) -> str:
    """Return what was measured, and how it grows from the least to the most clusters."""
    lines = [
        "| clusters | time | a job | memory of `fleet run` | of the controller's receptor "
        "| processor time of both | of all |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        both = one.command.processor + one.receptor.processor
        lines.append(
            f"| {one.clusters} | {one.seconds:.0f} s | {one.seconds / one.clusters:.2f} s "
            f"| {one.command.memory:.0f} MiB | {one.receptor.memory:.0f} MiB "
            f"| {both:.1f} s | {one.all:.0f} s |"
        )
    first, last = found[0], found[-1]
    grows = last.seconds / first.seconds / (last.clusters / first.clusters)
    children = max(one.command.children + one.receptor.children for one in found)
    lines += [
        "",
        f"From {first.clusters} to {last.clusters} clusters the time grows {grows:.2f} times as much as "
        "their number.",
        f"Processes below `fleet run` and the controller's receptor, at most: {children}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clusters", type=int, nargs="*", default=[25, 50, 100, 200])
    parser.add_argument("--at-once", type=int, default=5)
    parser.add_argument("--nodes", type=int, default=2)
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    found = []
    with tempfile.TemporaryDirectory() as given:
        bench = Bench(Path(given), options.nodes, max(options.clusters))
        try:
            for number in sorted(options.clusters):
                load = os.getloadavg()[0]
                found.append(bench.measure(number, options.at_once))
                one = found[-1]
                print(f"{number}: {one.seconds:.0f} s; load before {load:.1f}", flush=True)
        finally:
            bench.mesh.stop()
    print(f"{options.at_once} at once, {options.nodes} execution nodes, {os.cpu_count()} cores:\n")
    print(table(found))


if __name__ == "__main__":
    main()
