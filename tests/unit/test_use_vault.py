"""Vault against a double: what is initialised, opened, written; what is refused; what is never told."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from vault_double import Double

from quote_platform import vault

POLICY = {"path": "sys/policies/acl/reader", "data": {"policy": "path {}"}}


class Place:
    """A Vault and a controller's folder."""

    def __init__(self, folder: Path) -> None:
        self.vault = Double()
        self.keys = vault.Keys(folder / "secrets" / "vault-keys.yml", folder / "apart" / "password")
        self.api = vault.Api("https://vault", self.vault.client(), 0)

    def use(self, dry_run: bool = False, **given: Any) -> dict[str, Any]:
        """Use it as a task does."""
        resources = [
            {key: value.get("default") for key, value in vault.RESOURCE.items()} | resource
            for resource in given.pop("resources", [])
        ]
        defaults = {key: value.get("default") for key, value in vault.SPEC.items()}
        return dict(vault.use(defaults | given | {"resources": resources}, dry_run, self.api, self.keys))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def opened(place: Place) -> Place:
    place.use(initialize=True)
    place.vault.calls.clear()
    return place


# --- initialise and unseal --------------------------------------------------------------------------------


def test_it_is_initialised_once_and_its_keys_are_kept_encrypted(place: Place) -> None:
    result = place.use(initialize=True)
    assert result["changes"] == ["initialise"]
    assert not place.vault.sealed
    text = place.keys.file.read_text()
    assert text.startswith("$ANSIBLE_VAULT;1.")
    assert place.keys.load() == place.vault.keys[:3]
    for file in (place.keys.file, place.keys.password_file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert place.vault.tokens == set(), "the first root token lives on"
    assert not any(key in json.dumps(result) for key in place.vault.keys)
    assert place.use(initialize=True) == {"changed": False, "changes": [], "diff": [], "found": {}}


def test_keys_that_cannot_be_kept_are_never_made(place: Place) -> None:
    place.keys.password_file.parent.mkdir()
    place.keys.password_file.write_text("")  # ansible-vault takes no empty password
    with pytest.raises(vault.Refused, match=r"the password of .* cannot be had"):
        place.use(initialize=True)
    assert not place.vault.initialized


def test_a_dry_run_touches_nothing(place: Place) -> None:
    result = place.use(dry_run=True, initialize=True)
    assert result["changed"]
    assert place.vault.calls == []
    assert not place.keys.file.parent.exists()


def test_it_is_unsealed_with_as_few_keys_as_it_takes(opened: Place) -> None:
    opened.vault.sealed, opened.vault.given = True, set()
    assert opened.use(dry_run=True)["changes"] == ["unseal"]
    assert opened.vault.sealed
    assert opened.use()["changes"] == ["unseal"]
    assert not opened.vault.sealed
    assert opened.vault.calls.count("PUT sys/unseal") == 3


def test_an_empty_one_with_kept_keys_is_refused(opened: Place) -> None:
    before = opened.keys.file.read_bytes()
    opened.vault.__init__()  # type: ignore[misc]
    with pytest.raises(vault.Refused, match=r"playbooks/restore-vault\.yml"):
        opened.use(initialize=True)
    assert opened.keys.file.read_bytes() == before
    assert not opened.vault.initialized


def test_other_keys_do_not_open_it(opened: Place) -> None:
    opened.vault.sealed, opened.vault.given, opened.vault.keys = True, set(), ["another"]
    with pytest.raises(vault.Refused, match="is not ready"):
        opened.use()


def test_kms_opens_it_and_recovery_keys_make_tokens(place: Place) -> None:
    place.vault.kind = "awskms"
    place.use(initialize=True)
    assert place.use(resources=[POLICY])["changed"]
    assert "PUT sys/unseal" not in place.vault.calls
    place.vault.sealed = True
    with pytest.raises(vault.Refused, match="is not ready"):
        place.use()


# --- restore ----------------------------------------------------------------------------------------------


def test_a_snapshot_goes_into_an_empty_one_and_the_kept_keys_open_it(opened: Place, tmp_path: Path) -> None:
    held = {"initialized": True, "keys": opened.vault.keys, "threshold": 3, "data": {"kv/data/a": {"x": 1}}}
    (tmp_path / "snapshot").write_text(json.dumps(held))
    with pytest.raises(vault.Refused, match="is not empty"):
        opened.use(snapshot=str(tmp_path / "snapshot"))
    opened.vault.__init__()  # type: ignore[misc]
    result = opened.use(snapshot=str(tmp_path / "snapshot"))
    assert result["changes"] == ["restore", "unseal"]
    assert not opened.vault.sealed
    assert opened.use(read=["kv/data/a"])["found"] == {"kv/data/a": {"x": 1}}


# --- resources --------------------------------------------------------------------------------------------


def test_a_resource_is_written_once_and_the_token_ends(opened: Place) -> None:
    assert opened.use(dry_run=True, resources=[POLICY])["changed"]
    assert opened.vault.data == {}
    result = opened.use(resources=[POLICY])
    assert result["diff"][0]["after_header"] == "sys/policies/acl/reader (create)"
    assert opened.vault.data["sys/policies/acl/reader"] == POLICY["data"]
    assert not opened.use(resources=[POLICY])["changed"]
    assert opened.vault.tokens == set()


def test_a_token_that_nobody_revokes_ends_by_itself(opened: Place) -> None:
    with vault.root(opened.api, opened.keys.load()):
        # A run that is killed here leaves these.
        assert len(opened.vault.tokens) == 1
        assert opened.vault.tokens <= opened.vault.limited.keys()
        assert set(opened.vault.limited.values()) == {"30m"}
    assert opened.vault.tokens == set()


def test_an_attempt_that_was_cut_off_is_no_obstacle(opened: Place) -> None:
    opened.use(resources=[POLICY])
    assert opened.vault.calls.index("DELETE sys/generate-root/attempt") < opened.vault.calls.index(
        "PUT sys/generate-root/attempt"
    )


def test_the_token_ends_also_when_something_is_refused(opened: Place) -> None:
    opened.vault.data["sys/mounts/kv"] = {"type": "generic"}
    with pytest.raises(vault.Refused, match="is of type generic, wanted is kv: disable it by hand"):
        opened.use(resources=[{"path": "sys/mounts/kv", "data": {"type": "kv"}}])
    assert opened.vault.tokens == set()


def test_a_mount_is_tuned_an_audit_device_made_anew(opened: Place) -> None:
    mount = {"path": "sys/mounts/kv", "data": {"type": "kv", "config": {"max_lease_ttl": "1h"}}}
    opened.use(resources=[mount])
    mount["data"] = {"type": "kv", "config": {"max_lease_ttl": "2h"}}
    assert "-  max_lease_ttl: 1h" not in opened.use(resources=[mount])["diff"][0]["before"]
    assert "POST sys/mounts/kv/tune" in opened.vault.calls
    audit = {"path": "sys/audit/file", "data": {"type": "file", "options": {"file_path": "/a"}}}
    opened.use(resources=[audit])
    assert not opened.use(resources=[audit])["changed"]
    audit["data"] = {"type": "file", "options": {"file_path": "/b"}}
    opened.use(resources=[audit])
    assert opened.vault.calls.count("DELETE sys/audit/file") == 1
    assert opened.vault.data["sys/audit/file"]["options"] == {"file_path": "/b"}


def test_secrets_go_along_and_are_told_to_nobody(opened: Place) -> None:
    database = {
        "path": "database/config/a",
        "data": {"username": "vault"},
        "once": {"password": "first"},
        "secret": {"pin": "always"},
        "after": ["database/rotate-root/a"],
    }
    told = json.dumps(opened.use(resources=[database]))
    assert opened.vault.data["database/config/a"] == {
        "username": "vault",
        "password": "first",
        "pin": "always",
    }
    assert "POST database/rotate-root/a" in opened.vault.calls
    opened.vault.data["database/config/a"] = {"connection_details": {"username": "vault"}}
    assert not opened.use(resources=[database])["changed"], "what Vault keeps one level lower is not found"
    database["data"] = {"username": "other"}
    told += json.dumps(opened.use(resources=[database]))
    assert opened.vault.data["database/config/a"]["pin"] == "always"
    assert "password" not in opened.vault.data["database/config/a"], "it would undo the rotation"
    hidden = {"path": "kv/data/a", "data": {"data": {"word": "s3cr3t"}}, "hidden": True}
    told += json.dumps(opened.use(resources=[hidden]))
    assert opened.vault.data["kv/data/a"] == {"data": {"word": "s3cr3t"}}
    assert not opened.use(resources=[hidden])["changed"]
    assert not any(word in told for word in ("first", "always", "s3cr3t"))


def test_a_call_is_made_each_time_and_never_in_a_dry_run(opened: Place) -> None:
    call = {"path": "database/rotate-role/a", "call": True}
    assert opened.use(dry_run=True, resources=[call])["changed"]
    assert opened.use(resources=[call])["changed"]
    assert opened.use(resources=[call])["changed"]
    assert opened.vault.calls.count("POST database/rotate-role/a") == 2


@pytest.mark.parametrize(
    ("wanted", "found", "same"),
    [
        ("24h", 86400, True),
        ("1h30m", 5400, True),
        ("24h", 3600, False),
        (60, 60, True),
        (["a", "b"], ["b", "a"], True),
        (["a", "b"], "a,b", True),
        (["a"], None, False),
        ([], None, True),
        (True, "true", True),
        (True, False, False),
        ("", None, True),
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1}, None, False),
    ],
)
def test_values_are_compared_by_what_they_mean(wanted: Any, found: Any, same: bool) -> None:
    assert vault.same(wanted, found) is same
