"""Each of what makes a place unkind, alone: a cluster comes up, and a second run changes nothing."""

import json
from pathlib import Path

import pytest

from quote_platform.lab.model import Unkind

from .conftest import Machines, gone_before_and_after
from .test_hostile import arrive, changed
from .test_platform import succeeded

NAME, SUBNET = "e2e-unkind", "10.89.48.0/24"
CHECKS = ["nodes", "pod to pod", "service address", "names"]
SMALL = ("--workers", "1", "--components", "core")

pytestmark = pytest.mark.proof(minutes=5)


@pytest.mark.parametrize("kind", list(Unkind))
def test_it_alone(kind: Unkind, tmp_path: Path) -> None:
    with gone_before_and_after(Machines(name=NAME)) as found:
        found.command(
            "quote-platform", "lab", "up", "--name", NAME, "--subnet", SUBNET, *SMALL, "--unkind", kind
        )
        if kind is Unkind.PROXY:
            arrive(found, tmp_path)
        for title in ("first", "second"):
            run = found.play(f"{title} run, {kind}", "playbooks/cluster.yml")
            succeeded(run)
        assert changed(run) == 0, run.output[-6000:]
        only = json.dumps({"verify_only": CHECKS, "verify_report": str(tmp_path / "report.json")})
        succeeded(found.play(f"verify, {kind}", "playbooks/verify.yml", "-e", only))
