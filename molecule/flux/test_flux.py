"""A commit runs; one that crashes is taken back; a change by hand is undone; the playbooks take it back."""

import runpy
import time
from pathlib import Path
from typing import Any

import pytest

from scenario import Cluster, Eventually, Inventory

SPACE = "molecule-flux"
DEPLOYMENT = f"deployment --namespace={SPACE} shop"
CHART = Path(__file__).parent / "chart"


@pytest.fixture(scope="module")
def git(inventory: Inventory) -> Any:
    """Return the repository that is served."""
    server = runpy.run_path(str(Path(__file__).parents[2] / "tests/unit/git_server.py"))["GitServer"]
    return server(inventory.secrets / "molecule-git")


def chart(**values: str) -> dict[str, str]:
    found = {str(file.relative_to(CHART)): file.read_text() for file in CHART.rglob("*") if file.is_file()}
    text = found["production/values.yaml"]
    found["production/values.yaml"] = text + "".join(f"{name}: {value}\n" for name, value in values.items())
    return found


def condition(cluster: Cluster) -> dict[str, str]:
    found = cluster.get("helmrelease --namespace=flux shop")["status"]["conditions"]
    return next(one for one in found if one["type"] == "Ready")


def test_a_commit_runs(cluster: Cluster, git: Any, eventually: Eventually) -> None:
    git.commit({k: v.replace("text: first", "text: second") for k, v in chart().items()})

    def there() -> None:
        found = cluster.get(DEPLOYMENT)
        assert found["spec"]["template"]["metadata"]["annotations"]["text"] == "second"
        assert found["status"].get("updatedReplicas") == found["status"].get("availableReplicas") == 2
        assert condition(cluster)["status"] == "True"

    eventually(there, 90)


def test_a_commit_that_crashes_is_taken_back(cluster: Cluster, git: Any, eventually: Eventually) -> None:
    before, started = cluster.get(DEPLOYMENT)["spec"]["template"], time.monotonic()
    git.commit(chart(command="no-such-command"))

    def tried() -> None:
        assert cluster.get(DEPLOYMENT)["spec"]["template"] != before

    def back() -> None:
        assert cluster.get(DEPLOYMENT)["spec"]["template"] == before
        assert condition(cluster)["status"] == "False"

    eventually(tried, 60)
    eventually(back, 180)
    assert time.monotonic() - started < 180
    assert cluster.get(DEPLOYMENT)["status"]["availableReplicas"] == 2


def test_a_change_by_hand_is_undone(cluster: Cluster, git: Any, eventually: Eventually) -> None:
    git.commit(chart(more="third"))

    def ready() -> None:
        assert condition(cluster)["status"] == "True"

    eventually(ready, 90)
    cluster.run(f"scale {DEPLOYMENT} --replicas=1")

    def undone() -> None:
        assert cluster.get(DEPLOYMENT)["spec"]["replicas"] == 2

    eventually(undone, 60)


def test_the_playbooks_take_it_back(cluster: Cluster, inventory: Inventory, eventually: Eventually) -> None:
    before = cluster.get(DEPLOYMENT)
    inventory.converge(playbook="withdraw.yml")
    after = cluster.get(DEPLOYMENT)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"] == before["spec"]
    inventory.converge()  # and Flux takes it over again

    def ready() -> None:
        assert condition(cluster)["status"] == "True"
        assert cluster.get(DEPLOYMENT)["metadata"]["uid"] == before["metadata"]["uid"]

    eventually(ready, 120)
