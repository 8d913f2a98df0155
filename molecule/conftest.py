"""What the tests of all scenarios share: nodes over SSH, the cluster's API, evidence when a test fails."""

import base64
import contextlib
import json
import os
import re
import shlex
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed
from testinfra.host import Host

PROJECT = Path(__file__).resolve().parents[1]
KUBECTL = "kubectl --kubeconfig /etc/kubernetes/admin.conf"


class Inventory:
    """The inventory that the scenario's playbooks were run with."""

    def __init__(self) -> None:
        config = yaml.safe_load(Path(os.environ["MOLECULE_FILE"]).read_text())
        # The very arguments of converge, so that a dry run sees the same.
        self.arguments = [
            f"--inventory={Path(os.environ['MOLECULE_INVENTORY_FILE']).parent}",
            *config["ansible"]["executor"]["args"]["ansible_playbook"],
        ]
        read = subprocess.run(
            ["ansible-inventory", "--list", *self.arguments], check=True, capture_output=True, text=True
        )
        self.data: dict[str, Any] = json.loads(read.stdout)

    def hosts(self, group: str) -> list[str]:
        """Return the hosts directly in a group."""
        return list(self.data.get(group, {}).get("hosts", []))

    def variables(self, host: str) -> dict[str, Any]:
        """Return a host's variables, templates not resolved."""
        return dict(self.data["_meta"]["hostvars"][host])

    def converge(self, *options: str) -> tuple[dict[str, int], str]:
        """Run the scenario's converge.yml once more; return the changes of each host, and the output."""
        playbook = f"{os.environ['MOLECULE_SCENARIO_DIRECTORY']}/converge.yml"
        command = ["ansible-playbook", *self.arguments, *options, playbook]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        recap = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", done.stdout, re.MULTILINE)
        assert recap, done.stdout[-2000:]
        return {host: int(changes) for host, changes in recap}, done.stdout

    def connect(self, host: str) -> Host:
        """Open a host over SSH, as Ansible does."""
        known = self.variables(host)
        extra = f"{known.get('ansible_ssh_common_args', '')} -o ControlMaster=auto -o ControlPersist=60s"
        return testinfra.get_host(
            f"ssh://{known.get('ansible_user', 'root')}@{known['ansible_host']}",
            ssh_identity_file=known["ansible_ssh_private_key_file"],
            ssh_extra_args=f"{extra} -o ControlPath=/tmp/molecule-%C".strip(),
        )


@pytest.fixture(scope="session")
def inventory() -> Inventory:
    """Return the scenario's inventory."""
    return Inventory()


@pytest.fixture(scope="session")
def variables(inventory: Inventory) -> dict[str, Any]:
    """Return the variables of the first control plane."""
    return inventory.variables(inventory.hosts("control_plane")[0])


@pytest.fixture(scope="session")
def host(inventory: Inventory) -> Host:
    """Return the first control plane."""
    return inventory.connect(inventory.hosts("control_plane")[0])


@pytest.fixture(scope="session")
def worker(inventory: Inventory) -> Host:
    """Return the first worker."""
    return inventory.connect(inventory.hosts("workers")[0])


class Cluster:
    """The cluster, through kubectl on its control plane."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def run(self, command: str, given: str = "") -> str:
        """Run kubectl and return what it printed; `given` is its standard input."""
        line = f"{KUBECTL} {command}"
        if given:
            line = f"echo {base64.b64encode(given.encode()).decode()} | base64 -d | {line}"
        done = self.host.run(line)
        assert done.rc == 0, f"kubectl {command}: {done.stderr.strip() or done.stdout.strip()}"
        return done.stdout

    def get(self, command: str) -> dict[str, Any]:
        """Return an object or a list as data."""
        return dict(json.loads(self.run(f"get {command} --output=json")))

    def apply(self, namespace: str, *objects: dict[str, Any], dry_run: bool = False) -> None:
        """Apply objects in a namespace."""
        options = "--dry-run=server" if dry_run else ""
        self.run(
            f"apply --server-side --namespace={namespace} {options} --filename=-", yaml.safe_dump_all(objects)
        )

    def execute(self, namespace: str, pod: str, *command: str) -> str:
        """Run a command in a pod."""
        return self.run(f"--namespace={namespace} exec {pod} -- {shlex.join(command)}")

    def wait(self, what: str, seconds: int = 120) -> None:
        """Wait as `kubectl wait` does."""
        self.run(f"wait {what} --timeout={seconds}s")


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


def _pod(name: str, image: str, *command: str, **spec: Any) -> dict[str, Any]:
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
def pod() -> Callable[..., dict[str, Any]]:
    """Return the maker of pods."""
    return _pod


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """Return a caller that repeats a check until it holds."""

    def call(check: Callable[[], Any], seconds: int = 60) -> Any:
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
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
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
