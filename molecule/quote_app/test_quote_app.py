"""The application answers, keeps what it is given, and has as many pods as its load wants."""

import json
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from testinfra.host import Host

from scenario import KUBECTL, Cluster, Eventually, Inventory

NAMESPACE = "quote-lab"
ROOT = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]).resolve().parents[1]
# What the account of whoever rolls out may do, and what not.
DEPLOYER: dict[str, list[dict[str, str]]] = yaml.safe_load((ROOT / "tests/fixtures/deployer.yml").read_text())


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


# --- whoever rolls out ------------------------------------------------------------------------------------


class Deployer:
    """kubectl with nothing but the account's token, as a pipeline has it."""

    def __init__(self, cluster: Cluster) -> None:
        self.host = cluster.host
        made = f"--namespace={NAMESPACE} create token quote-app-deployer --duration=10m"
        self.token = cluster.run(made).strip()
        config = cluster.run("config view --raw --minify --output=json")
        found = json.loads(config)
        found["users"] = [{"name": found["users"][0]["name"], "user": {"token": self.token}}]
        self.file = "/run/deployer.kubeconfig"
        text = shlex.quote(json.dumps(found))
        self.host.check_output(f"umask 077; printf %s {text} > {self.file}")

    def run(self, command: str) -> tuple[int, str]:
        """Run kubectl; return its status, and all that it printed."""
        kubectl = KUBECTL.split()[0]
        line = f"{kubectl} --kubeconfig {self.file} --namespace={NAMESPACE} {command} 2>&1"
        done = self.host.run(line)
        return int(done.rc), str(done.stdout)

    def may(self, one: dict[str, str]) -> bool:
        """Ask the API server, as this account, whether it may do something."""
        names = ("verb", "group", "resource", "subresource", "name")
        asked: dict[str, Any] = {key: one[key] for key in names if key in one}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked | {"namespace": one.get("namespace", NAMESPACE)}},
        }
        text = shlex.quote(json.dumps(review))
        line = f"printf %s {text} | {KUBECTL.split()[0]} --kubeconfig {self.file} create -f - -o json"
        return bool(json.loads(self.host.check_output(line))["status"]["allowed"])


@pytest.fixture(scope="module")
def deployer(cluster: Cluster) -> Deployer:
    return Deployer(cluster)


def test_a_deployer_may_do_what_a_rollout_takes(deployer: Deployer) -> None:
    refused = [one["what"] for one in DEPLOYER["allowed"] if not deployer.may(one)]
    assert refused == []


def test_a_deployer_may_do_nothing_else(deployer: Deployer) -> None:
    assert len(DEPLOYER["forbidden"]) > 20
    allowed = [one["what"] for one in DEPLOYER["forbidden"] if deployer.may(one)]
    assert allowed == []


def test_a_deployer_rolls_out_and_watches(deployer: Deployer, cluster: Cluster) -> None:
    """A restart is a rollout: it takes a patch, and to watch the Deployment, ReplicaSets and pods."""
    before = cluster.get(f"deployment quote-app -n {NAMESPACE}")["metadata"]["generation"]
    status, said = deployer.run("rollout restart deployment/quote-app")
    assert status == 0, said
    status, said = deployer.run("rollout status deployment/quote-app --timeout=240s")
    assert (status, "successfully rolled out" in said) == (0, True), said
    assert cluster.get(f"deployment quote-app -n {NAMESPACE}")["metadata"]["generation"] > before
    image = cluster.get(f"deployment quote-app -n {NAMESPACE}")["spec"]["template"]["spec"]["containers"][0]
    other = image["image"].rpartition(":")[0] + ":9.9.9"
    status, said = deployer.run(f"set image deployment/quote-app quote-app={other} --dry-run=server")
    assert status == 0, said


@pytest.mark.parametrize(
    "command",
    [
        "get secret postgres-app",
        "get secrets",
        "exec deployment/quote-app -- id",
        "logs deployment/quote-app",
        "delete deployment quote-app --dry-run=server",
        "scale deployment quote-app --replicas=0",
        "run other --image=busybox",
        "delete pod --all --dry-run=server",
        "create token quote-app-deployer",
        "create token default",
        "get pods --all-namespaces",
        "get pods --namespace=kube-system",
        "get nodes",
        "get deployment quote-app --as=kubernetes-admin",
        "create rolebinding more --clusterrole=admin --serviceaccount=quote-lab:quote-app-deployer",
        "patch serviceaccount quote-app-deployer --patch '{\"automountServiceAccountToken\":true}'",
    ],
)
def test_what_a_deployer_tries_is_forbidden(deployer: Deployer, command: str) -> None:
    status, said = deployer.run(command)
    assert status != 0, said
    assert "is forbidden" in said or "cannot " in said, said


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("set image deployment/quote-app quote-app=ghcr.io/quote-platform/backup:0.3.0", "another version"),
        ("set env deployment/quote-app WORD=more", "nothing but images"),
        (
            "patch deployment quote-app --patch "
            '\'{"spec":{"template":{"spec":{"serviceAccountName":"default"}}}}\'',
            "nothing but images",
        ),
        (
            "patch deployment quote-app --patch "
            '\'{"spec":{"template":{"spec":{"volumes":[{"name":"all","secret":{"secretName":"postgres-app"}}]}}}}\'',
            "nothing but images",
        ),
        ('patch deployment quote-app --patch \'{"spec":{"replicas":0}}\'', "nothing but images"),
    ],
)
def test_a_deployers_patch_changes_nothing_but_the_version(
    deployer: Deployer, command: str, says: str
) -> None:
    status, said = deployer.run(command)
    assert status != 0, said
    assert "whoever rolls out quote-app may " in said, said
    assert says in said, said


def test_a_run_after_a_deployers_restart_changes_nothing(inventory: Inventory) -> None:
    inventory.unchanged()
