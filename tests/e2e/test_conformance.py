"""A cluster passes Kubernetes' own conformance tests, but for those that conformance.yml names."""

import os
from collections import Counter

import pytest

from . import conformance
from .conftest import LOGS, ROOT, Machines, gone_before_and_after
from .test_platform import succeeded

NAME, SUBNET = "e2e-conformance", "10.89.50.0/24"
LAB_UP = ("quote-platform", "lab", "up", "--name", NAME, "--subnet", SUBNET, "--components", "core")
# Nothing but the cluster: two nodes that take pods, since some tests want a second one.
SMALL = (
    "--workers",
    "2",
    "--stores",
    "0",
    "--vaults",
    "0",
    "--no-acme",
    "--no-logs",
    "--worker-memory",
    "4g",
)
MINUTES = 75
# A regular expression of some of them, to try; all of them are what counts.
SOME = os.environ.get("E2E_CONFORMANCE", "")

pytestmark = pytest.mark.proof(minutes=MINUTES + 10)


def test_the_cluster_conforms() -> None:
    with gone_before_and_after(Machines(name=NAME)) as found:
        found.command("quote-platform", "mirror", "fill", "--part", "conformance", seconds=1800)
        found.command(*LAB_UP, *SMALL)
        succeeded(found.play("cluster for conformance", "playbooks/cluster.yml"))
        kubeconfig = ROOT / "secrets" / NAME / "kubeconfig"
        outcomes = conformance.run(
            kubeconfig, LOGS / "conformance", SOME or r"\[Conformance\]", minutes=MINUTES
        )
    listed = conformance.excused()
    counts = Counter(outcomes.values())
    print(f"\n{counts['passed']} of {len(outcomes)} conformance tests have passed; the others:")
    for one in listed:
        print(f"  {one.reason}:", *one.tests, sep="\n    ")
    if SOME:
        outcomes = {name: outcome for name, outcome in outcomes.items() if outcome != "not run"}
        listed = [one for one in listed if set(one.tests) <= outcomes.keys()]
    wrong = conformance.judge(outcomes, listed)
    assert not wrong, "\n".join(wrong)
