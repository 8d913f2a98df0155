"""Keeps this machine from those of a lab, all but its bastion and the mirror, as a foreign network does."""

import shlex
import shutil
import subprocess

from quote_platform.lab.errors import LabError
from quote_platform.lab.model import Lab


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["iptables", "--wait", *words], capture_output=True, text=True, check=False)


def _chain(lab: str) -> str:
    return f"LAB-{lab}".upper()


def up(lab: Lab) -> None:
    """Put it up; others go on to reach this machine."""
    if not shutil.which("iptables"):
        raise LabError("a bastion needs iptables: apt-get install iptables, then again")
    chain = _chain(lab.name)
    rules = [["-N", chain]]
    rules += [["-A", chain, "-d", node.address, "-j", "RETURN"] for node in (lab.bastion, lab.mirror)]
    rules += [["-A", chain, "-j", "REJECT"]]
    # What this machine begins; it answers all of them.
    begun = ["-m", "conntrack", "--ctstate", "NEW", "-j", chain]
    rules += [["-I", "OUTPUT", "-d", network, *begun] for network in (lab.subnet, lab.inner)]
    for rule in rules:
        done = _run(*rule)
        if done.returncode != 0:
            down(lab.name)
            raise LabError(f"iptables {' '.join(rule)}: {done.stderr.strip()}")


def down(lab: str) -> None:
    """Take it down, also half of one; without one, nothing."""
    if not shutil.which("iptables"):
        return
    chain = _chain(lab)
    for rule in _run("-S", "OUTPUT").stdout.splitlines():
        if rule.endswith(f"-j {chain}"):
            _run("-D", *shlex.split(rule)[1:])
    _run("-F", chain)
    _run("-X", chain)
