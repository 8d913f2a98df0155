"""Accounts that work pass; a wrong key, bucket, authority or address is refused by name."""

import json
from typing import Any

import pytest

from scenario import Inventory, words


def judge(inventory: Inventory, **given: Any) -> tuple[int, str]:
    done = inventory.play(f"--extra-vars={json.dumps(given)}")
    return done.returncode, words(done)


def account(**changes: str) -> dict[str, Any]:
    known = {
        "bucket": "{{ cluster_name }}-postgres",
        "access_key": "postgres",
        "secret_key": "{{ object_store_keys.postgres }}",
    }
    return {"object_store_accounts": {"postgres": known | changes}}


def test_accounts_that_work_pass(inventory: Inventory) -> None:
    status, output = judge(inventory)
    assert status == 0, output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (account(access_key="nobody"), "knows no access key nobody: correct object_store_accounts.postgres"),
        (account(secret_key="wrong" * 8), "refuses the key of postgres: correct"),
        (
            account(bucket="missing"),
            "lacks the bucket missing: create it, or set object_store_create_buckets",
        ),
        (account(bucket="{{ cluster_name }}-snapshots"), "denies postgres the bucket molecule-snapshots"),
        ({"object_store_ca": ""}, "shows a certificate that object_store_ca did not sign"),
        (
            {"object_store_endpoint": "https://10.89.46.250:7070", "object_store_timeout": 1},
            "https://10.89.46.250:7070 does not answer",
        ),
    ],
    ids=["access key", "secret key", "bucket", "another's bucket", "authority", "address"],
)
def test_what_is_wrong_is_refused_by_name(inventory: Inventory, given: dict[str, Any], message: str) -> None:
    status, output = judge(inventory, **given)
    assert status != 0
    assert message in output
