"""Certificates are made anew while they are in use."""

import re
import ssl
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

import httpx
import pytest
import yaml

from quote_platform.mirror import catalogue
from quote_platform.rotation import rotation
from quote_platform.verify.certificates import shown

from .conftest import HOST, NAME, ROOT, Eventually, Lab
from .test_platform import succeeded

pytestmark = pytest.mark.proof
PLAYBOOK = "playbooks/renew-certificates.yml"
MASTER, STORE = "10.89.43.11", "10.89.43.111"


def test_a_dry_run_says_what_would_be_renewed(lab: Lab) -> None:
    before = shown(MASTER, 6443).serial_number
    run = lab.play("dry run of a renewal", PLAYBOOK, "-e", "renew=ingress,nodes,control_plane", "--check")
    succeeded(run)
    for name in ("quotes-tls in quote-lab", "object-store-e2e-store-1: it", "apiserver", "admin.conf"):
        assert f"{name} ends on 2" in " ".join(run.output.split()), name
    assert shown(MASTER, 6443).serial_number == before


def test_users_do_not_notice_that_the_certificate_is_renewed(lab: Lab, eventually: Eventually) -> None:
    settings = yaml.safe_load((ROOT / f"inventories/{NAME}/group_vars/platform/mirror.yml").read_text())
    authority = settings["certificate_authority"]
    context = ssl.create_default_context(cadata=authority)
    before = shown(lab.workers[0], 443, HOST, authority).serial_number
    stop, asked, failed = Event(), list[httpx.Response](), list[str]()

    def ask() -> None:
        """Judge the certificate on a new connection each time, as users do."""
        while not stop.wait(0.1):
            address = lab.workers[len(asked) % len(lab.workers)]
            with httpx.Client(base_url=f"https://{address}", headers={"Host": HOST}, verify=context) as http:
                try:
                    asked.append(lab.ask(http, "GET", "/api/quotes/random").raise_for_status())
                except httpx.HTTPError as error:
                    failed.append(repr(error))

    def renewed(address: str) -> bool:
        return shown(address, 443, HOST, authority).serial_number != before

    with ThreadPoolExecutor() as pool:
        pool.submit(ask)
        try:
            succeeded(lab.play("renewal of the ingress", PLAYBOOK, "-e", "renew=ingress"))
            for address in lab.workers:
                eventually(partial(renewed, address), 30, "the old")
        finally:
            stop.set()
    assert len(asked) > 20
    assert not failed


def test_vault_and_the_application_go_on_when_postgresqls_certificates_are_new(
    lab: Lab, eventually: Eventually
) -> None:
    """The operator is made to renew all that it signs, its own authority too; nobody tells Vault."""
    names = ("postgres-ca", "postgres-server", "postgres-replication")
    accounts = rotation(ROOT / "secrets" / NAME / "kubeconfig", "quote-lab", "quote-app-database", 60)

    def secrets() -> set[str]:
        found = lab.kubectl(
            f"get secret -n quote-lab {' '.join(names)} -o jsonpath={{.items[*].data}}", check=False
        )
        return set(re.findall(r'"(?:ca|tls)[.]crt":"([^"]+)', found))

    before = secrets()
    assert len(before) == len(names)
    with lab.requests(lab.workers) as answers:
        lab.kubectl(f"delete secret -n quote-lab {' '.join(names)}")
        eventually(lambda: len(secrets() - before) == len(names), 120, "the old")
        result = accounts.rotate()
        lab.kubectl("rollout restart -n quote-lab deployment/quote-app")
        lab.kubectl("rollout status -n quote-lab deployment/quote-app --timeout=120s")
    assert set(answers) == {"200"}, dict(answers)
    assert all(result.user in accounts.sessions()[address] for address in accounts.pods().values())


def test_the_control_plane_goes_on_with_new_certificates(lab: Lab) -> None:
    servers = {"API server": (MASTER, 6443), "etcd": (MASTER, 2379), "object store": (STORE, 7070)}
    before = {name: shown(*server).serial_number for name, server in servers.items()}
    kubeconfig = ROOT / "secrets" / NAME / "kubeconfig"
    user = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]
    with lab.requests(lab.workers) as answers:
        succeeded(lab.play("renewal of nodes and control plane", PLAYBOOK, "-e", "renew=nodes,control_plane"))
    assert set(answers) == {"200"}, dict(answers)
    old = [name for name, server in servers.items() if shown(*server).serial_number == before[name]]
    assert not old
    assert yaml.safe_load(kubeconfig.read_text())["users"][0]["user"] != user
    # Scheduler, controller manager and API server work together.
    image = catalogue.versions()["verify_image"]
    lab.kubectl(f"create deployment renewed -n default --image {image}")
    lab.kubectl("rollout status -n default deployment/renewed --timeout=60s")
    lab.kubectl("delete deployment renewed -n default")
