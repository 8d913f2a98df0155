"""Keeps this machine from those of a lab, all but its bastion and the mirror, as a foreign network does."""

import subprocess

from quote_platform.lab.errors import LabError
from quote_platform.lab.model import Lab


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["iptables", "--wait", *words], capture_output=True, text=True, check=False)


def _chain(lab: Lab) -> str:
    return f"LAB-{lab.name}".upper()


def _jumps(lab: Lab) -> list[list[str]]:
    """Return the rules that lead what this machine begins there into the lab's chain."""
    begun = ["-m", "conntrack", "--ctstate", "NEW", "-j", _chain(lab)]
    return [["OUTPUT", "-d", network, *begun] for network in (lab.subnet, lab.inner)]


def up(lab: Lab) -> None:
    """Put it up; others go on to reach this machine."""
    rules = [["-N", _chain(lab)]]
    rules += [["-A", _chain(lab), "-d", node.address, "-j", "RETURN"] for node in (lab.bastion, lab.mirror)]
    rules += [["-A", _chain(lab), "-j", "REJECT"], *(["-I", *jump] for jump in _jumps(lab))]
    for rule in rules:
        done = _run(*rule)
        if done.returncode != 0:
            down(lab)
            raise LabError(f"iptables {' '.join(rule)}: {done.stderr.strip()}")


def down(lab: Lab) -> None:
    """Take it down, also half of one; without one, nothing."""
    if _run("-L", _chain(lab), "-n").returncode != 0:
        return
    for jump in _jumps(lab):
        _run("-D", *jump)
    _run("-F", _chain(lab))
    _run("-X", _chain(lab))
