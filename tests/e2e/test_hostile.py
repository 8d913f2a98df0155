"""The platform in a place as unkind as real ones: see docs/testing.md."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi
import pytest
import yaml

from .conftest import LOGS, ROOT, Application, Machines, Run, gone_before_and_after
from .test_platform import succeeded

NAME, SUBNET = "e2e-hostile", "10.89.46.0/24"
LAB_UP = ("quote-platform", "lab", "up", "--name", NAME, "--subnet", SUBNET, "--hostile")
PARTS = ("core", "backups", "secrets", "monitoring")
# Seconds within which a fault of the place is named.
NAMED_WITHIN = 30

pytestmark = pytest.mark.proof(minutes=20)


def settings(name: str = NAME) -> dict[str, Any]:
    file = ROOT / f"inventories/{name}/group_vars/platform/mirror.yml"
    return dict(yaml.safe_load(file.read_text()))


def arrive(found: Machines, folder: Path) -> None:
    """Have a controller that has fetched nothing yet, and goes out as the place has it."""
    told = settings(found.name)
    trusted = folder / "authorities.pem"
    trusted.write_text(Path(certifi.where()).read_text() + told["cluster_authorities"])
    found.environment = {"https_proxy": told["cluster_http_proxy"], "SSL_CERT_FILE": str(trusted)}
    found.options = ["-e", f"component_cache={folder / 'manifests'}"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """Return a lab in such a place."""
    workers = [f"10.89.46.{20 + number}" for number in (1, 2, 3)]
    with gone_before_and_after(Application(name=NAME, workers=workers)) as found:
        found.command(*LAB_UP, *(word for part in PARTS for word in ("--components", part)))
        arrive(found, tmp_path_factory.mktemp("controller"))
        yield found


def changed(run: Run) -> int:
    return sum(run.changed.values())


def wrong_proxy() -> dict[str, Any]:
    return {"cluster_http_proxy": settings()["cluster_http_proxy"].replace("proxy:", "proxy:x", 1)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (wrong_proxy, "cannot be reached from it: the proxy refuses the user and password"),
        (lambda: {"cluster_authorities": ""}, "certificate verify failed"),
        (
            lambda: {"image_registry_credentials": {"ghcr.io": {"username": "puller", "password": "wrong"}}},
            "https://ghcr.io/v2/ cannot be reached from it: the registry refuses the user and password",
        ),
    ],
    ids=["password of the proxy", "authority", "password of the registry"],
)
def test_a_fault_of_the_place_is_named_before_anything_is_changed(
    place: Application, given: Callable[[], dict[str, Any]], said: str
) -> None:
    run = place.play("fault of the place", "site.yml", "-e", json.dumps(given()))
    assert run.status != 0
    assert said in " ".join(run.output.split())
    assert changed(run) == 0
    assert run.seconds < NAMED_WITHIN


def test_a_whole_run_converges_and_another_changes_nothing(place: Application) -> None:
    succeeded(place.play("first whole run in a hostile place", "site.yml"))
    for title, arguments in (("second", ()), ("dry", ("--check", "--diff"))):
        run = place.play(f"{title} run in a hostile place", "site.yml", *arguments)
        succeeded(run)
        assert changed(run) == 0, run.output[-6000:]


@pytest.mark.parametrize("playbook", ["cluster.yml", "platform.yml"])
def test_a_bastion_that_is_away_for_ten_seconds_is_waited_for(place: Application, playbook: str) -> None:
    with ThreadPoolExecutor() as pool:
        running = pool.submit(place.play, f"{playbook} while the bastion is away", f"playbooks/{playbook}")
        time.sleep(15)
        with place.stopped("bastion"):
            time.sleep(10)
        run = running.result()
    succeeded(run)
    assert changed(run) == 0, run.output[-6000:]


def test_every_function_works(place: Application) -> None:
    report = LOGS / "verify-hostile.json"
    succeeded(
        place.play("verify in a hostile place", "playbooks/verify.yml", "-e", f"verify_report={report}")
    )
    assert {one["status"] for one in json.loads(report.read_text())["checks"]} <= {"passed", "not run"}


def test_its_passwords_are_not_in_what_was_printed(place: Application) -> None:
    told = settings()
    hidden = [
        told["ansible_become_password"],
        told["image_registry_credentials"]["ghcr.io"]["password"],
        urlsplit(told["cluster_http_proxy"]).password,
    ]
    logs = [file.read_text(errors="replace") for file in LOGS.glob("*hostile*.log")]
    assert len(logs) >= 4
    assert not [secret for secret in hidden for log in logs if secret in log]
