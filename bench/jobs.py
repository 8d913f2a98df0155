#!/usr/bin/env python3
"""Measure what a job costs over plain `ansible-playbook`: the same play on this machine, in turns."""

import argparse
import contextlib
import ctypes
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from quote_platform.jobs.process import PR_SET_CHILD_SUBREAPER

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = Path(sys.executable).parent
PLAY = [
    {
        "name": "Work",
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {
                "name": "Do something on each host",
                "ansible.builtin.command": {"argv": ["true"]},
                "changed_when": False,
            }
        ],
    }
]


def measure(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Run a command; return its seconds, and those of processor time of all its processes."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with (folder / "log").open("a") as log:
        done = subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log, check=False)
    took = time.monotonic() - began
    # A job's supervisor outlives the command by a moment, and is ours then.
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit((folder / "log").read_text()[-2000:])
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the median of both ways, and how much more a job takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    with tempfile.TemporaryDirectory() as given:
        folder = Path(given)
        for name in ("roles", "playbooks", "inventories/here"):
            (folder / name).mkdir(parents=True)
        shutil.copy(ROOT / "ansible.cfg", folder)
        PLAY[0]["tasks"] = PLAY[0]["tasks"] * options.tasks
        (folder / "site.yml").write_text(json.dumps(PLAY))
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        hosts = {
            "hosts": {f"host-{number}": local for number in range(options.hosts)},
            "vars": {"cluster_name": "bench"},
        }
        (folder / "inventories/here/hosts.yml").write_text(json.dumps({"all": hosts}))
        environment = os.environ | {
            "XDG_STATE_HOME": str(folder / "state"),
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        }
        ways = {
            "ansible-playbook": ["ansible-playbook", "-i", "inventories/here", "site.yml"],
            "job run": ["quote-platform", "job", "run", "converge", "-i", "inventories/here"],
        }
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, command in ways.items():
                found[way].append(measure(command, folder, environment))
        plain, job = (
            [statistics.median(one[which] for one in found[way]) for which in (0, 1)] for way in ways
        )
    for way, values in found.items():
        shown = ", ".join(f"{took:.1f} s ({used:.1f} s of processor time)" for took, used in values)
        print(f"{way}: {shown}")
    print(f"{options.hosts} hosts, {options.tasks} tasks, medians of {options.rounds}:")
    for which, name in enumerate(("time", "processor time")):
        more = job[which] - plain[which]
        shown = (
            f"{plain[which]:.1f} s, as a job {job[which]:.1f} s: {more:+.1f} s, {more / plain[which]:+.1%}"
        )
        print(f"{name}: {shown}")


if __name__ == "__main__":
    main()
