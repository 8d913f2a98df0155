"""The application answers through its service and keeps what it is given."""

import json

import pytest

NAMESPACE = "quote-lab"


CURL = "curl --silent --show-error --max-time 10"
JSON = "--header 'Content-Type: application/json'"


@pytest.fixture(scope="module")
def address(cluster):
    cluster.run(f"--namespace={NAMESPACE} rollout status deployment/quote-app --timeout=240s")
    return "http://" + cluster.get(f"service quote-app --namespace={NAMESPACE}")["spec"]["clusterIP"]


def test_probes_page_and_metrics_answer(host, address):
    for path in ("/healthz", "/readyz", "/"):
        assert host.check_output(f"{CURL} --fail {address}{path}")
    assert "http_requests_total" in host.check_output(f"{CURL} --fail {address}/metrics")


def test_a_quote_that_was_added_is_listed(host, address):
    quote = json.dumps({"text": "What is written stays.", "author": "molecule"})
    host.check_output(f"{CURL} --fail {JSON} --data '{quote}' {address}/api/quotes")
    assert "What is written stays." in host.check_output(f"{CURL} --fail {address}/api/quotes")


def test_nonsense_is_refused(host, address):
    asked = f"{CURL} --output /dev/null --write-out %s {JSON} --data '{{}}' {address}/api/quotes"
    assert host.run(asked.replace("%s", "'%{http_code}'")).stdout in ("400", "422")
