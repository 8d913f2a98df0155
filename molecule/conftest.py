"""What the tests of all scenarios share: nodes over SSH, the cluster's API, evidence when a test fails."""

import contextlib
import shlex
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed
from testinfra.host import Host

from scenario import KUBECTL, Cluster, Eventually, Inventory, MakePod, Object


@pytest.fixture(scope="session")
def inventory() -> Inventory:
    """Return the scenario's inventory."""
    return Inventory()


@pytest.fixture(scope="session")
def variables(inventory: Inventory) -> dict[str, Any]:
    """Return the variables of the first control plane."""
    return inventory.variables(inventory.hosts("control_plane")[0])


@pytest.fixture(scope="session")
def secrets(inventory: Inventory) -> Path:
    """Return the folder of the cluster's secrets."""
    return inventory.secrets


@pytest.fixture(scope="session")
def host(inventory: Inventory) -> Host:
    """Return the first control plane."""
    return inventory.connect(inventory.hosts("control_plane")[0])


@pytest.fixture(scope="session")
def worker(inventory: Inventory) -> Host:
    """Return the first worker."""
    return inventory.connect(inventory.hosts("workers")[0])


@pytest.fixture(scope="session")
def worker_name(inventory: Inventory) -> str:
    """Return the name of the first worker."""
    return inventory.hosts("workers")[0]


@pytest.fixture(scope="session")
def cluster(host: Host) -> Cluster:
    """Return the cluster."""
    return Cluster(host)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """Return a namespace that goes away after the test."""
    name = f"molecule-{uuid.uuid4().hex[:6]}"
    cluster.run(f"create namespace {name}")
    yield name
    cluster.run(f"delete namespace {name} --wait=false")


def _pod(name: str, image: str, *command: str, **spec: Any) -> Object:
    """Return a pod that the restricted Pod Security standard admits."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "fsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    **({"command": list(command)} if command else {}),
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    **spec.pop("container", {}),
                }
            ],
            **spec,
        },
    }


@pytest.fixture(scope="session")
def pod() -> MakePod:
    """Return the maker of pods."""
    return _pod


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    """Return a caller that repeats a check until it holds."""

    def call[Found](check: Callable[[], Found], seconds: int = 60) -> Found:
        return retry(
            stop=stop_after_delay(seconds),
            wait=wait_fixed(2),
            retry=retry_if_exception_type(AssertionError),
            reraise=True,
        )(check)()

    return call


EVIDENCE = {
    "failed units": "systemctl --failed --no-legend --plain",
    "journal of kubelet and containerd": "journalctl --no-pager --lines=40 --unit=kubelet --unit=containerd",
}
CLUSTER_EVIDENCE = {
    "nodes and pods": f"{KUBECTL} get nodes,pods --all-namespaces --output=wide",
    "warnings": f"{KUBECTL} get events --all-namespaces --field-selector=type=Warning "
    "--sort-by=.lastTimestamp | tail -25",
    "logs of pods that are not ready": (
        f"{KUBECTL} get pods --all-namespaces --no-headers | "
        'awk \'{split($3, r, "/"); if (r[1] != r[2] && $4 != "Completed") print $1, $2}\' | head -4 | '
        f'while read -r ns name; do echo "== $ns/$name"; {KUBECTL} logs --namespace $ns $name '
        "--all-containers --tail=25 2>&1; done"
    ),
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the journal and the state of the cluster to a failure."""
    report = yield
    if report.failed and (found := getattr(item, "funcargs", {}).get("inventory")):
        for name in found.hosts("control_plane") + found.hosts("workers"):
            with contextlib.suppress(Exception):
                node = found.connect(name)
                evidence = EVIDENCE
                if name in found.hosts("control_plane") and node.file("/etc/kubernetes/admin.conf").exists:
                    evidence = CLUSTER_EVIDENCE | EVIDENCE
                for title, command in evidence.items():
                    report.sections.append(
                        (f"{title} ({name})", node.run(f"timeout 20 bash -c {shlex.quote(command)}").stdout)
                    )
    return report
