"""Only the kept keys open it; it does what it is told, writes down who asked for what, and tells nobody."""

import json
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from quote_platform import paths, vault
from quote_platform.backup.vault import whole
from scenario import Inventory, words

WORD = "s3cr3t-of-molecule"


@pytest.fixture(scope="module")
def api(variables: dict[str, Any], secrets: Path) -> vault.Api:
    authority = (secrets / "certificates/authority.crt").read_text()
    return vault.Api.open(f"https://{variables['ansible_host']}:8200", authority, 90)


@pytest.fixture(scope="module")
def keys(variables: dict[str, Any], secrets: Path) -> vault.Keys:
    return vault.Keys(secrets / "vault-keys.yml", paths.vault_password(variables["cluster_name"]))


def read(api: vault.Api, path: str) -> dict[str, Any]:
    found = vault.read(api, path)
    assert found, path
    return found


def test_a_restart_seals_it_and_a_run_unseals_it(host: Host, api: vault.Api, inventory: Inventory) -> None:
    host.check_output("systemctl restart vault")
    assert api.status()["sealed"]
    done = inventory.play("-vvv")
    assert done.returncode == 0, done.stdout[-4000:]
    assert not api.status()["sealed"]
    assert WORD not in done.stdout + done.stderr


def test_a_policy_lets_in_where_it_says_and_nowhere_else(api: vault.Api, keys: vault.Keys) -> None:
    with vault.root(api, keys.load()):
        assert read(api, "kv/data/molecule")["data"] == {"word": WORD}
        orphan = {
            "policies": ["molecule"],
            "ttl": "5m",
            "no_parent": True,
        }  # the root token ends with the block
        token = api.call("POST", "auth/token/create", orphan)["auth"]
    with vault.owning(api, token["client_token"]):
        assert read(api, "kv/data/molecule")["data"] == {"word": WORD}
        for path in ("kv/data/other", "sys/mounts/kv", "database/config/any"):
            with pytest.raises(vault.Refused, match="permission denied"):
                vault.read(api, path)
    assert api.ask("GET", "sys/metrics?format=prometheus").status_code in {400, 403}


def test_every_plugin_that_the_platform_uses_is_there(
    api: vault.Api, keys: vault.Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "timeout", 5)  # a database that is not there is waited for
    with vault.root(api, keys.load()):
        assert read(api, "sys/auth/kubernetes")["type"] == "kubernetes"
        found = read(api, "sys/plugins/catalog/database/postgresql-database-plugin")
        assert found["builtin"] is True
        wrong = {
            "plugin_name": "postgresql-database-plugin",
            "connection_url": "postgresql://{{username}}:{{password}}@127.0.0.1:1/none",
            "username": "nobody",
            "password": "none",
        }
        with pytest.raises(vault.Refused, match=r"refused|connect"):  # it gets as far as that
            api.call("POST", "database/config/molecule", wrong)


def test_requests_are_written_down_without_their_secrets(host: Host) -> None:
    log = host.check_output("cat /var/log/vault/audit.log")
    paths = {json.loads(line)["request"]["path"] for line in log.splitlines()}
    assert "kv/data/molecule" in paths
    assert WORD not in log
    assert host.file("/var/log/vault/audit.log").mode == 0o600


def test_the_audit_log_goes_on_after_its_rotation(host: Host, api: vault.Api, keys: vault.Keys) -> None:
    host.check_output("logrotate --force /etc/logrotate.d/vault")
    assert host.file("/var/log/vault/audit.log.1").size > 0
    with vault.root(api, keys.load()):
        vault.read(api, "kv/data/molecule")
    assert "kv/data/molecule" in host.check_output("cat /var/log/vault/audit.log")


def test_keys_are_encrypted_and_nothing_else_is_kept(secrets: Path, keys: vault.Keys, host: Host) -> None:
    text = (secrets / "vault-keys.yml").read_text()
    assert text.startswith("$ANSIBLE_VAULT;1.")
    assert len(keys.load()) == 3
    for file in (keys.file, keys.password_file):
        assert file.stat().st_mode & 0o777 == 0o600
    password = keys.password_file.read_text().strip()
    beside = [
        file for file in secrets.rglob("*") if file.is_file() and password in file.read_text(errors="replace")
    ]
    assert not beside, "what opens the keys lies beside them"
    kept = keys._vault().decrypt(text).decode()
    assert "hvs." not in kept, "a token is kept"
    for key in keys.load():
        assert host.run(f"grep -rqF -e '{key}' /etc /root /var/log /tmp").rc == 1


def test_an_empty_vault_with_kept_keys_is_not_initialised_anew(
    host: Host, inventory: Inventory, secrets: Path
) -> None:
    before = (secrets / "vault-keys.yml").read_bytes()
    host.check_output("systemctl stop vault && mv /opt/vault/data /opt/vault/away")
    try:
        done = inventory.play()
        assert done.returncode != 0
        assert "playbooks/restore-vault.yml" in words(done)
        assert (secrets / "vault-keys.yml").read_bytes() == before
    finally:
        host.check_output(
            "systemctl stop vault && rm -rf /opt/vault/data && mv /opt/vault/away /opt/vault/data"
        )
    assert inventory.play().returncode == 0


def test_a_snapshot_brings_back_what_was_lost(
    host: Host, api: vault.Api, keys: vault.Keys, tmp_path: Path
) -> None:
    with vault.root(api, keys.load()):
        content = api.ask("GET", "sys/storage/raft/snapshot").content
    whole([content], "the snapshot")
    (tmp_path / "snapshot").write_bytes(content)
    host.check_output("systemctl stop vault && rm -rf /opt/vault/data/*")
    host.check_output("systemctl start vault")
    vault.restore(api, False, tmp_path / "snapshot", keys.kept())
    vault.unseal(api, keys.load())
    with vault.root(api, keys.load()):
        assert read(api, "kv/data/molecule")["data"] == {"word": WORD}


def test_the_service_is_confined(host: Host) -> None:
    assert host.process.get(comm="vault").user == "vault"
    properties = "NoNewPrivileges,ProtectSystem,CapabilityBoundingSet,LimitCORE,UnitFileState"
    shown = host.check_output(f"systemctl show vault -p {properties}").splitlines()
    unit = dict(line.split("=", 1) for line in shown)
    assert unit == {
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "CapabilityBoundingSet": "",
        "LimitCORE": "0",
        "UnitFileState": "enabled",
    }
    assert host.run("runuser -u nobody -- ls /opt/vault/data").rc != 0
