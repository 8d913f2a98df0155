#!/usr/bin/env python3
"""Measure what a job costs over plain `ansible-playbook`: the same playbook, in turns.

Without options, a play on this machine; with -i INVENTORY and a playbook, that, which should change nothing:

    python bench/jobs.py -i inventories/lab site.yml --rounds 5
"""

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
TASK = {
    "name": "Do something on each host",
    "ansible.builtin.command": {"argv": ["true"]},
    "changed_when": False,
}


def measure(command: list[str], folder: Path, environment: dict[str, str], log: Path) -> tuple[float, float]:
    """Run a command; return its seconds, and those of processor time of all its processes."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with log.open("a") as output:
        done = subprocess.run(command, cwd=folder, env=environment, stdout=output, stderr=output, check=False)
    took = time.monotonic() - began
    # A job's supervisor outlives the command by a moment, and is ours then.
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(log.read_text()[-2000:])
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def make(folder: Path, hosts: int, tasks: int) -> None:
    """Make a checkout with a site.yml of so many tasks."""
    for name in ("roles", "playbooks", "inventories/here"):
        (folder / name).mkdir(parents=True)
    shutil.copy(ROOT / "ansible.cfg", folder)
    play = {"name": "Work", "hosts": "all", "gather_facts": False, "tasks": [TASK] * tasks}
    (folder / "site.yml").write_text(json.dumps([play]))
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    given = {
        "hosts": {f"host-{number}": local for number in range(hosts)},
        "vars": {"cluster_name": "bench"},
    }
    (folder / "inventories/here/hosts.yml").write_text(json.dumps({"all": given}))


def main() -> None:
    """Print the median of both ways, and how much more a job takes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("playbook", nargs="?", default="site.yml")
    parser.add_argument("-i", "--inventory", help="such as inventories/lab")
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    with tempfile.TemporaryDirectory() as given:
        scratch = folder = Path(given)
        environment = os.environ | {"PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
        if options.inventory:
            folder = ROOT
        else:
            make(folder, options.hosts, options.tasks)
            environment["XDG_STATE_HOME"] = str(folder / "state")
        on = ["-i", options.inventory or "inventories/here"]
        ways = {
            "ansible-playbook": ["ansible-playbook", *on, options.playbook],
            "job run": ["quote-platform", "job", "run", options.playbook, *on],
        }
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for turn in range(options.rounds):
            # Each goes first as often as the other, so that a machine that gets busier is so for both.
            for way in list(ways)[:: -1 if turn % 2 else 1]:
                found[way].append(measure(ways[way], folder, environment, scratch / "log"))
        plain, job = (
            [statistics.median(one[which] for one in found[way]) for which in (0, 1)] for way in ways
        )
    for way, values in found.items():
        shown = ", ".join(f"{took:.1f} s ({used:.1f} s of processor time)" for took, used in values)
        print(f"{way}: {shown}")
    what = f"{options.playbook} on {options.inventory}"
    if not options.inventory:
        what = f"{options.hosts} hosts, {options.tasks} tasks"
    print(f"{what}, medians of {options.rounds}:")
    for which, name in enumerate(("time", "processor time")):
        more = job[which] - plain[which]
        shown = (
            f"{plain[which]:.1f} s, as a job {job[which]:.1f} s: {more:+.1f} s, {more / plain[which]:+.1%}"
        )
        print(f"{name}: {shown}")


if __name__ == "__main__":
    main()
