"""A running cluster is upgraded by a minor version, in a lab of its own, while the application serves."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from quote_platform.mirror import catalogue

from .conftest import Application, gone_before_and_after, load, repeated, sql, stored

NAME, SUBNET = "e2e-upgrade", "10.89.44.0/24"
LAB_UP = ("quote-platform", "lab", "up", "--name", NAME, "--subnet", SUBNET, "--components", "core")
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
SECONDS_WITHOUT_API = 30
SECONDS_OF_A_SECOND_RUN = 60

pytestmark = pytest.mark.proof(minutes=25)


@pytest.fixture(scope="module")
def old() -> Iterator[Application]:
    """Return a lab with the core of the platform at the version before; E2E_KEEP=1 keeps it."""
    workers = [f"10.89.44.{20 + number}" for number in (1, 2, 3)]
    with gone_before_and_after(Application(name=NAME, workers=workers)) as found:
        found.command("quote-platform", "mirror", "fill", "--kubernetes", FROM, seconds=1800)
        found.command(*LAB_UP)
        yield found


@contextmanager
def api_away(lab: Application) -> Iterator[list[float]]:
    """Yield how long the API server was away each time, while the block runs."""
    gaps, since = list[float](), [0.0]
    address = lab.workers[0].rsplit(".", 1)[0] + ".11"
    client = httpx.Client(verify=False, timeout=2)  # noqa: S501

    def look() -> None:
        try:
            well = client.get(f"https://{address}:6443/livez").status_code == httpx.codes.OK
        except httpx.HTTPError:
            well = False
        if not well and not since[0]:
            since[0] = time.monotonic()
        elif well and since[0]:
            gaps.append(time.monotonic() - since[0])
            since[0] = 0.0

    with repeated(look, 0.2):
        yield gaps


def versions(lab: Application) -> set[str]:
    """Return the versions of all kubelets, and whether a node takes no pods."""
    columns = "jsonpath={range .items[*]}{.status.nodeInfo.kubeletVersion}{.spec.unschedulable} {end}"
    return set(lab.kubectl(f"get nodes -o '{columns}'").split())


def test_a_cluster_of_the_version_before_comes_up(old: Application) -> None:
    pins = catalogue.other_kubernetes()[FROM]
    run = old.play("the version before", "site.yml", "-e", json.dumps(pins))
    assert run.status == 0, run.output[-6000:]
    assert versions(old) == {f"v{FROM}"}


def test_other_playbooks_leave_it_alone(old: Application) -> None:
    run = old.play("site of the new version", "site.yml")
    assert run.status != 0
    assert "A running node is taken out of service before its packages are replaced" in run.output
    assert set(run.changed.values()) == {0}
    assert versions(old) == {f"v{FROM}"}


def test_the_plan_is_shown_and_nothing_changed(old: Application) -> None:
    run = old.play("plan", *UPGRADE, "--check")
    assert run.status == 0, run.output[-6000:]
    lines = " ".join(run.output.split())
    for number, name in enumerate(("master-1", "worker-1", "worker-2", "worker-3"), 1):
        assert f"{number}. {NAME}-{name}, drained: kubelet, kubeadm, kubectl {FROM}-1.1 -> {TO}-1.1" in lines
    assert versions(old) == {f"v{FROM}"}


def test_an_upgrade_is_killed_and_goes_on_while_the_application_serves(old: Application) -> None:
    # Longer than the application waits for a primary that moves.
    with load(old, "upgrade", timeout=30) as answers, api_away(old) as gaps:
        for task in KILLED_IN:
            old.play_until(f"upgrade killed in {task.split(' : ')[1]}", task, *UPGRADE)
        run = old.play("upgrade", *UPGRADE, seconds=1800)
    print(f"\nseconds without API: {[round(gap) for gap in gaps]}")
    assert run.status == 0, run.output[-6000:]
    assert versions(old) == {f"v{TO}"}
    answers.none_failed()
    assert answers.acknowledged == stored(old, "upgrade")
    assert max(gaps) <= SECONDS_WITHOUT_API


def test_a_second_run_changes_nothing(old: Application) -> None:
    for title, arguments in (("second upgrade", UPGRADE), ("site after it", ("site.yml",))):
        run = old.play(title, *arguments)
        assert run.status == 0, run.output[-6000:]
        assert set(run.changed.values()) == {0}, run.output[-6000:]
        assert arguments != UPGRADE or run.seconds < SECONDS_OF_A_SECOND_RUN


def test_all_of_it_is_of_the_version(old: Application) -> None:
    template = "{range .items[*].spec.containers[*]}{.image} {end}"
    images = old.kubectl(f"get pods -n kube-system -o 'jsonpath={template}'").split()
    tags = {image.rsplit(":", 1)[1] for image in images if "/kube-" in image and "kube-router" not in image}
    assert tags == {f"v{TO}"}
    assert old.kubectl("version -o json").count(f'"gitVersion": "v{TO}"') == 2
    run = old.play("verify", "playbooks/verify.yml")
    assert run.status == 0, run.output[-6000:]
    assert sql(old, "select 1") == "1"
