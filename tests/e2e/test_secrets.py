"""What keeps the secrets may be away, sealed or lost; who has some goes on with them."""

import importlib.util
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest

from .conftest import NAME, ROOT, Lab
from .test_platform import succeeded

VAULT = "https://10.89.43.121:8200"
SECRETS = ROOT / "secrets" / NAME
AUTHORITY = SECRETS / "certificates" / "authority.crt"


@pytest.fixture(scope="module")
def plugin() -> ModuleType:
    """Return what the role speaks to Vault with."""
    file = ROOT / "roles" / "vault_server" / "action_plugins" / "use_vault.py"
    spec = importlib.util.spec_from_file_location("use_vault", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def vault(plugin: ModuleType) -> Iterator[object]:
    """Use Vault's API as root."""
    api = plugin.Api.open(VAULT, AUTHORITY.read_text(), 60)
    with plugin.root(api, plugin.Keys(SECRETS / "vault-keys.yml", SECRETS / "vault-password").load()):
        yield api


def verified(lab: Lab) -> dict[str, str]:
    """Return what the verification says of Vault."""
    report = ROOT / "reports" / "vault.json"
    known = f"--kubeconfig {SECRETS}/kubeconfig --version 0 --image none --address {lab.workers[0]}".split()
    asked = [
        "--vault",
        VAULT,
        "--vault-ca",
        AUTHORITY.read_text(),
        "--only",
        "vault",
        "--report",
        str(report),
    ]
    lab.command("quote-platform", "verify", "run", *known, *asked, check=False)
    return json.loads(report.read_text())["checks"][0]


def test_a_sealed_vault_is_reported_and_opened(lab):
    with lab.requests(lab.workers) as answers:
        lab.ssh("vault-1", "systemctl restart vault")
        found = verified(lab)
        assert found["status"] == "failed"
        assert "is sealed" in found["detail"]
        succeeded(lab.play("unseal", "playbooks/vault.yml"))
        assert verified(lab)["status"] == "passed"
    assert answers["200"] > 0.99 * answers.total(), dict(answers)


def test_vaults_machine_is_destroyed_and_restored(lab, plugin):
    word = uuid.uuid4().hex
    with vault(plugin) as api:
        api.call("POST", "kv/data/marker", {"data": {"word": word}})
    namespace = "--namespace vault-snapshots"
    lab.kubectl(f"{namespace} create job before-the-loss --from=cronjob/vault-snapshot")
    lab.kubectl(f"{namespace} wait job/before-the-loss --for=condition=Complete --timeout=180s")
    with lab.requests(lab.workers) as answers:
        lab.command("quote-platform", "lab", "destroy", "--name", NAME, "vault-1")
        lab.command("quote-platform", "lab", "up", "--name", NAME, "--subnet", "10.89.43.0/24")
        refused = lab.play("Vault anew, with kept keys", "playbooks/vault.yml")
        assert refused.status != 0
        assert "playbooks/restore-vault.yml" in " ".join(refused.output.split())
        restore = ("playbooks/restore-vault.yml", "-e", f"restore_confirm={NAME}")
        refused = lab.play("restore of Vault without confirmation", *restore[:1])
        assert f"Say so: -e restore_confirm={NAME}" in " ".join(refused.output.split())
        succeeded(lab.play("restore of Vault", *restore))
    assert answers["200"] > 0.99 * answers.total(), dict(answers)
    with vault(plugin) as api:
        assert plugin.read(api, "kv/data/marker")["data"] == {"word": word}
    run = lab.play("dry run after the restore of Vault", "playbooks/vault.yml", "--check", "--diff")
    succeeded(run)
    assert set(run.changed.values()) == {0}, run.differences
    lab.kubectl(f"{namespace} delete job before-the-loss")
