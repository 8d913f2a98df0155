"""Running clusters are upgraded by a minor version, in labs of their own, while the application serves."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from quote_platform.mirror import catalogue

from .conftest import Application, gone_before_and_after, load, repeated, sql, stored

WORKERS = ("worker-1", "worker-2", "worker-3")
FROM, TO = "1.35.4", catalogue.versions()["kubernetes_version"]
# In the order in which runs come to them: the first three on the control plane, the others on a worker.
KILLED_IN = (
    "kubernetes_packages : Install kubeadm",
    "control_plane : Upgrade the static pods",
    "upgrade : Wait until what lived on the node is well",
    "upgrade : Drain the node",
    "kubernetes_packages : Restart the kubelet",
)
UPGRADE = ("playbooks/upgrade.yml", "-e", json.dumps({"upgrade_without_snapshot": True}))
SECONDS_OF_A_SECOND_RUN = 60

pytestmark = pytest.mark.proof(minutes=25)


@dataclass(kw_only=True)
class Old(Application):
    """A lab with the core of the platform at the version before."""

    subnet: str
    masters: list[str]
    # Where the API server is reached.
    endpoint: str
    # How long it may be away at a time.
    seconds_without_api: float
    # Tasks in which the upgrade is killed.
    killed_in: tuple[str, ...]
    lab_up: tuple[str, ...] = ()


def old_cluster(name: str, network: str, masters: int, api: str, **more: Any) -> Old:
    """Return a lab; `network` is the beginning of its addresses, `api` the rest of that of the API server."""
    return Old(
        name=name,
        subnet=f"{network}.0/24",
        workers=[f"{network}.{20 + number}" for number in (1, 2, 3)],
        masters=[f"master-{number}" for number in range(1, masters + 1)],
        endpoint=f"https://{network}.{api}",
        **more,
    )


CLUSTERS = {
    "one-control-plane": lambda: old_cluster(
        "e2e-upgrade", "10.89.44", 1, "11:6443", seconds_without_api=30, killed_in=KILLED_IN
    ),
    "three-control-planes": lambda: old_cluster(
        "e2e-upgrade-3",
        "10.89.52",
        3,
        "10:8443",
        seconds_without_api=5,
        killed_in=("control_plane : Upgrade the static pods", "upgrade : Drain the node"),
        lab_up=("--virtual-ip", "--control-planes=3", "--control-plane-memory=2500m", "--worker-memory=3g"),
    ),
}


@pytest.fixture(scope="module", params=CLUSTERS)
def old(request: pytest.FixtureRequest) -> Iterator[Old]:
    """Return a lab; E2E_KEEP=1 keeps it."""
    with gone_before_and_after(CLUSTERS[request.param]()) as found:
        found.command("quote-platform", "mirror", "fill", "--kubernetes", FROM, seconds=1800)
        up = ("quote-platform", "lab", "up", "--name", found.name, "--subnet", found.subnet)
        found.command(*up, "--components", "core", *found.lab_up)
        yield found


@contextmanager
def api_away(lab: Old) -> Iterator[list[float]]:
    """Yield how long the API server was away each time, while the block runs."""
    gaps, since = list[float](), [0.0]
    client = httpx.Client(verify=False, timeout=2)  # noqa: S501

    def look() -> None:
        try:
            well = client.get(f"{lab.endpoint}/livez").status_code == httpx.codes.OK
        except httpx.HTTPError:
            well = False
        if not well and not since[0]:
            since[0] = time.monotonic()
        elif well and since[0]:
            gaps.append(time.monotonic() - since[0])
            since[0] = 0.0

    with repeated(look, 0.2):
        yield gaps


def versions(lab: Old) -> set[str]:
    """Return the versions of all kubelets, and whether a node takes no pods."""
    columns = "jsonpath={range .items[*]}{.status.nodeInfo.kubeletVersion}{.spec.unschedulable} {end}"
    return set(lab.kubectl(f"get nodes -o '{columns}'").split())


def test_a_cluster_of_the_version_before_comes_up(old: Old) -> None:
    pins = catalogue.other_kubernetes()[FROM]
    run = old.play("the version before", "site.yml", "-e", json.dumps(pins))
    assert run.status == 0, run.output[-6000:]
    assert versions(old) == {f"v{FROM}"}


def test_other_playbooks_leave_it_alone(old: Old) -> None:
    run = old.play("site of the new version", "site.yml")
    assert run.status != 0
    assert "A running node is taken out of service before its packages are replaced" in run.output
    assert set(run.changed.values()) == {0}
    assert versions(old) == {f"v{FROM}"}


def test_the_plan_is_shown_and_nothing_changed(old: Old) -> None:
    run = old.play("plan", *UPGRADE, "--check")
    assert run.status == 0, run.output[-6000:]
    lines = " ".join(run.output.split())
    for number, name in enumerate((*old.masters, *WORKERS), 1):
        assert (
            f"{number}. {old.name}-{name}, drained: kubelet, kubeadm, kubectl {FROM}-1.1 -> {TO}-1.1" in lines
        )
    assert versions(old) == {f"v{FROM}"}


def test_an_upgrade_is_killed_and_goes_on_while_the_application_serves(old: Old) -> None:
    # Longer than the application waits for a primary that moves.
    with load(old, "upgrade", timeout=30) as answers, api_away(old) as gaps:
        for task in old.killed_in:
            old.play_until(f"upgrade killed in {task.split(' : ')[1]}", task, *UPGRADE)
        run = old.play("upgrade", *UPGRADE, seconds=1800)
    print(f"\nseconds without API: {[round(gap) for gap in gaps]}")
    assert run.status == 0, run.output[-6000:]
    assert versions(old) == {f"v{TO}"}
    answers.none_failed()
    assert answers.acknowledged == stored(old, "upgrade")
    assert max(gaps, default=0) <= old.seconds_without_api


def test_a_second_run_changes_nothing(old: Old) -> None:
    for title, arguments in (("second upgrade", UPGRADE), ("site after it", ("site.yml",))):
        run = old.play(title, *arguments)
        assert run.status == 0, run.output[-6000:]
        assert set(run.changed.values()) == {0}, run.output[-6000:]
        assert arguments != UPGRADE or run.seconds < SECONDS_OF_A_SECOND_RUN


def test_all_of_it_is_of_the_version(old: Old) -> None:
    template = "{range .items[*].spec.containers[*]}{.image} {end}"
    images = old.kubectl(f"get pods -n kube-system -o 'jsonpath={template}'").split()
    tags = {image.rsplit(":", 1)[1] for image in images if "/kube-" in image and "kube-router" not in image}
    assert tags == {f"v{TO}"}
    assert old.kubectl("version -o json").count(f'"gitVersion": "v{TO}"') == 2
    run = old.play("verify", "playbooks/verify.yml")
    assert run.status == 0, run.output[-6000:]
    assert sql(old, "select 1") == "1"
