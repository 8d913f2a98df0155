"""What tests of scenarios use: the inventory, the cluster, and what two fixtures of conftest.py return."""

import base64
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import testinfra
import yaml
from testinfra.host import Host

KUBECTL = "kubectl --kubeconfig /etc/kubernetes/admin.conf"
Object = dict[str, Any]  # of the API server


class MakePod(Protocol):
    """Makes a pod; a part `container` of its spec goes to the container."""

    def __call__(self, name: str, image: str, *command: str, **spec: Any) -> Object: ...


class Eventually(Protocol):
    """Repeats a check until it holds, at most for some seconds; returns what it returned."""

    def __call__[Found](self, check: Callable[[], Found], seconds: int = 60) -> Found: ...


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

    @property
    def secrets(self) -> Path:
        """Return the folder of the cluster's secrets."""
        options = (one.partition("cluster_secrets_dir=")[2] for one in self.arguments)
        return Path(next(filter(None, options)))

    def hosts(self, group: str) -> list[str]:
        """Return the hosts directly in a group."""
        return list(self.data.get(group, {}).get("hosts", []))

    def variables(self, host: str) -> dict[str, Any]:
        """Return a host's variables, templates not resolved."""
        return dict(self.data["_meta"]["hostvars"][host])

    def play(self, *options: str, playbook: str | Path = "converge.yml") -> subprocess.CompletedProcess[str]:
        """Run a playbook of the scenario, or one by its whole path; the caller judges how it ended."""
        path = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / playbook
        command = ["ansible-playbook", *self.arguments, *options, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def converge(self, *options: str, playbook: str | Path = "converge.yml") -> tuple[dict[str, int], str]:
        """Run a playbook that must succeed; return the changes of each host, and the output."""
        done = self.play(*options, playbook=playbook)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        recap = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", done.stdout, re.MULTILINE)
        assert recap, done.stdout[-2000:]
        return {host: int(changes) for host, changes in recap}, done.stdout

    def unchanged(self, *options: str, playbook: str | Path = "converge.yml") -> None:
        """Run a playbook that must change nothing; name what it has changed, or would."""
        changes, output = self.converge("--diff", *options, playbook=playbook)
        found = re.findall(r"^(?:changed: .*|\+\+\+ after.*)$", output, re.MULTILINE)
        assert not any(changes.values()), "\n".join([*found, output[-8000:]])

    def connect(self, host: str) -> Host:
        """Open a host over SSH, as Ansible does; where root needs a password, in its container."""
        known = self.variables(host)
        if "ansible_become_password" in known:
            return testinfra.get_host(f"podman://{host}")
        extra = f"{known.get('ansible_ssh_common_args', '')} -o ControlMaster=auto -o ControlPersist=60s"
        return testinfra.get_host(
            f"ssh://{known.get('ansible_user', 'root')}@{known['ansible_host']}",
            ssh_identity_file=known["ansible_ssh_private_key_file"],
            ssh_extra_args=f"{extra} -o ControlPath=/tmp/molecule-%C".strip(),
        )


def words(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a playbook printed, without the breaks that Ansible puts into long lines."""
    return " ".join((done.stdout + done.stderr).split())


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
        return str(done.stdout)

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
