"""The application answers, keeps what it is given, and has as many pods as its load wants."""

import json
import time
from collections.abc import Callable

import pytest
from testinfra.host import Host

from scenario import Cluster, Eventually, Inventory

NAMESPACE = "quote-lab"


CURL = "curl --silent --show-error --max-time 10"
JSON = "--header 'Content-Type: application/json'"


@pytest.fixture(scope="module")
def address(cluster: Cluster, host: Host, eventually: Eventually) -> str:
    cluster.run(f"--namespace={NAMESPACE} rollout status deployment/quote-app --timeout=240s")
    service = cluster.get(f"service quote-app --namespace={NAMESPACE}")
    found = f"http://{service['spec']['clusterIP']}"
    # A node learns of the pods a moment after they are ready, and refuses until then.
    eventually(lambda: host.check_output(f"{CURL} --fail {found}/healthz"), 10)
    return found


def test_probes_page_and_metrics_answer(host: Host, address: str) -> None:
    for path in ("/healthz", "/readyz", "/"):
        assert host.check_output(f"{CURL} --fail {address}{path}")
    assert "http_requests_total" in host.check_output(f"{CURL} --fail {address}/metrics")


def test_a_quote_that_was_added_is_listed(host: Host, address: str) -> None:
    quote = json.dumps({"text": "What is written stays.", "author": "molecule"})
    host.check_output(f"{CURL} --fail {JSON} --data '{quote}' {address}/api/quotes")
    assert "What is written stays." in host.check_output(f"{CURL} --fail {address}/api/quotes")


def test_nonsense_is_refused(host: Host, address: str) -> None:
    asked = f"{CURL} --output /dev/null --write-out %s {JSON} --data '{{}}' {address}/api/quotes"
    assert host.run(asked.replace("%s", "'%{http_code}'")).stdout in ("400", "422")


def test_load_makes_more_pods_which_a_run_leaves_alone(
    cluster: Cluster, host: Host, address: str, inventory: Inventory
) -> None:
    def until(wanted: Callable[[int], bool], seconds: float) -> int:
        deadline = time.monotonic() + seconds
        while not wanted(number := cluster.get(f"deployment quote-app -n {NAMESPACE}")["spec"]["replicas"]):
            assert time.monotonic() < deadline, cluster.run(f"-n {NAMESPACE} describe hpa quote-app")
            time.sleep(2)
        return int(number)

    until(lambda number: number == 3, 120)  # a pod uses more while it starts
    load = f"for i in 1 2 3; do while :; do {CURL} -o /dev/null {address}/api/quotes; done & done; wait"
    host.check_output(f"systemd-run --unit=load sh -c '{load}'")
    try:
        more = until(lambda number: number > 3, 120)
        inventory.unchanged()
        assert cluster.get(f"deployment quote-app -n {NAMESPACE}")["spec"]["replicas"] >= more
    finally:
        host.check_output("systemctl stop load")
    until(lambda number: number == 3, 180)
