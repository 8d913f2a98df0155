"""A host name gets its certificate over HTTP-01, and in time the next one, while it is in use."""

import json
import re
import socket
import ssl
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from scenario import Cluster, Eventually, Inventory, MakePod

# The lab's name server reads the address from it: the worker may not have joined yet.
NAME = "certificates.10-89-46-11.example.com"
ISSUERS = ("letsencrypt-staging", "letsencrypt-prod")


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[str]:
    """Return a namespace for the module, with what is served."""
    name = f"molecule-{uuid.uuid4().hex[:6]}"
    cluster.run(f"create namespace {name}")
    yield name
    cluster.run(f"delete namespace {name} --wait=false")


@pytest.fixture(scope="module")
def ask(variables: dict[str, Any]) -> Callable[[], str]:
    """Return a caller that asks over TLS, judges the certificate and returns its serial number."""
    address = variables["ansible_host"]
    context = ssl.create_default_context(cadata=variables["certificate_authority"])
    request = f"GET /echo?msg=well HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode()

    def call() -> str:
        with (
            socket.create_connection((address, 443), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=NAME) as secure,
        ):
            secure.sendall(request)
            answer = b"".join(iter(lambda: secure.recv(4096), b""))
            assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
            assert b"well" in answer, answer[-200:]
            certificate = secure.getpeercert()
            assert certificate
            return str(certificate["serialNumber"])

    return call


@dataclass
class Users:
    """Somebody who asks all the time."""

    ask: Callable[[], str]
    serials: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def work(self) -> None:
        while not self.done.wait(0.05):
            try:
                self.serials.append(self.ask())
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))


@pytest.fixture
def users(ask: Callable[[], str]) -> Iterator[Users]:
    """Return somebody who asks until the test is over."""
    working = Users(ask)
    thread = threading.Thread(target=working.work)
    thread.start()
    yield working
    working.done.set()
    thread.join()


@pytest.fixture(scope="module")
def issued(
    cluster: Cluster,
    place: str,
    pod: MakePod,
    variables: dict[str, Any],
    ask: Callable[[], str],
    eventually: Eventually,
) -> str:
    """Return the serial number of the first certificate of an Ingress that names an issuer."""
    server = pod("web", variables["verify_image"], container={"args": ["netexec", "--http-port=8080"]})
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "web", "annotations": {"cert-manager.io/cluster-issuer": "letsencrypt-staging"}},
        "spec": {
            "ingressClassName": "public",
            "tls": [{"hosts": [NAME], "secretName": "web-tls"}],
            "rules": [
                {"host": NAME, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
            ],
        },
    }
    cluster.apply(place, server, service, ingress)
    cluster.wait(f"--namespace={place} --for=condition=Ready pod/web", 120)
    cluster.wait(f"--namespace={place} --for=create certificate/web-tls", 30)
    cluster.wait(f"--namespace={place} --for=condition=Ready certificate/web-tls", 180)

    def answers() -> str:
        try:
            return ask()
        except OSError as error:
            raise AssertionError(str(error)) from error

    return eventually(answers, 30)


@pytest.mark.parametrize("name", ISSUERS)
def test_both_issuers_have_their_account(cluster: Cluster, name: str) -> None:
    cluster.wait(f"--for=condition=Ready clusterissuer/{name}", 60)


def test_a_certificate_is_issued_and_chains_to_the_authority(issued: str) -> None:
    assert issued


def test_the_challenge_was_answered_through_the_ingress(issued: str) -> None:
    journal = ["quote-platform", "lab", "ssh", "--name", "molecule", "mirror", "journalctl --unit pebble"]
    said = subprocess.run(journal, check=True, capture_output=True, text=True).stdout
    assert f"Attempting to validate w/ HTTP: http://{NAME}:80/.well-known/acme-challenge/" in said
    assert "always" not in said.lower()


def test_nothing_of_the_challenge_is_left(
    cluster: Cluster, place: str, issued: str, eventually: Eventually
) -> None:
    def gone() -> None:
        left = cluster.run(
            f"--namespace={place} get pods,ingresses,services --output=name "
            "--selector=acme.cert-manager.io/http01-solver=true"
        )
        assert not left.strip()

    eventually(gone, 60)


def test_a_renewal_by_hand_loses_no_request(
    cluster: Cluster, place: str, issued: str, users: Users, eventually: Eventually
) -> None:
    # As in docs/certificates.md.
    condition = {"type": "Issuing", "status": "True", "reason": "ByHand", "message": "renewed by hand"}
    patch = json.dumps([{"op": "add", "path": "/status/conditions/-", "value": condition}])
    cluster.run(
        f"--namespace={place} patch certificate web-tls --subresource=status --type=json --patch='{patch}'"
    )

    def renewed() -> None:
        assert users.serials
        assert users.serials[-1] != issued

    eventually(renewed, 120)
    assert not users.failures
    # One change, not a flicker.
    changes = sum(one != other for one, other in zip(users.serials, users.serials[1:], strict=False))
    assert changes == 1


@pytest.mark.parametrize("solver", ["route53", "cloudflare"])
def test_the_api_server_accepts_issuers_that_ask_over_dns(inventory: Inventory, solver: str) -> None:
    given = {"cert_manager_solver": solver, "cert_manager_dns_secret": "dns"}
    _, output = inventory.converge("--check", "--diff", "--extra-vars", json.dumps(given))
    for name in ISSUERS:
        shown = output.split(f"after: ClusterIssuer {name}")[1].split("\n--- ")[0]
        assert re.search(r"^- +ingressClassName: public$", shown, re.MULTILINE)
        assert re.search(rf"^\+ +{solver}:$", shown, re.MULTILINE)


def test_the_webhook_refuses_nonsense(cluster: Cluster, place: str) -> None:
    wrong = {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": "wrong"},
        "spec": {
            "secretName": "wrong",
            "dnsNames": [NAME],
            "duration": "1m",
            "issuerRef": {"name": "letsencrypt-staging", "kind": "ClusterIssuer"},
        },
    }
    with pytest.raises(AssertionError, match="denied the request"):
        cluster.apply(place, wrong, dry_run=True)


def test_the_controllers_keep_to_the_restricted_level(cluster: Cluster) -> None:
    labels = cluster.get("namespace cert-manager")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    listed = cluster.get("pods --namespace=cert-manager")["items"]
    assert sorted(item["metadata"]["labels"]["app.kubernetes.io/component"] for item in listed) == [
        "cainjector",
        "controller",
        "webhook",
    ]
