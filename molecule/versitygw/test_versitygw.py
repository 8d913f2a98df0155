"""S3 over TLS: each account has its bucket and sees no other; objects outlive a restart; nothing is open."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError, SSLError
from testinfra.host import Host

from quote_platform.backup.store import BackupError, Store
from scenario import Eventually

BLOCK = 4 * 1024**2
Client = Callable[..., Any]  # of an account; boto3 has no types


@pytest.fixture(scope="module")
def s3(variables: dict[str, Any], secrets: Path) -> Client:
    keys = yaml.safe_load((secrets / "object-store.yml").read_text())

    def client(account: str, secret: str = "", authority: str = "") -> Any:
        return boto3.client(
            "s3",
            endpoint_url=f"https://{variables['ansible_host']}:7070",
            region_name="us-east-1",
            aws_access_key_id=account,
            aws_secret_access_key=secret or keys[account],
            verify=authority or str(secrets / "certificates/authority.crt"),
            config=Config(retries={"total_max_attempts": 1}, request_checksum_calculation="when_required"),
        )

    return client


def denied(call: Callable[..., Any], **arguments: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**arguments)
    return str(error.value.response["Error"]["Code"])


def test_an_account_uses_its_bucket_and_no_other(s3: Client) -> None:
    mine, other = s3("postgres"), s3("snapshots")
    mine.create_bucket(Bucket="mine")
    mine.put_object(Bucket="mine", Key="a/b", Body=b"kept")
    assert mine.get_object(Bucket="mine", Key="a/b")["Body"].read() == b"kept"
    assert denied(other.get_object, Bucket="mine", Key="a/b") == "AccessDenied"
    assert denied(other.put_object, Bucket="mine", Key="a/c", Body=b"") == "AccessDenied"
    assert denied(other.delete_object, Bucket="mine", Key="a/b") == "AccessDenied"


def test_wrong_keys_and_authorities_are_refused(s3: Client) -> None:
    assert denied(s3("postgres", "wrong" * 8).list_buckets) == "SignatureDoesNotMatch"
    assert denied(s3("nobody", "wrong" * 8).list_buckets) == "InvalidAccessKeyId"
    with pytest.raises(SSLError):
        s3("postgres", authority="/etc/ssl/certs/ca-certificates.crt").list_buckets()


def test_objects_outlive_a_crash(s3: Client, host: Host, eventually: Eventually) -> None:
    s3("postgres").put_object(Bucket="mine", Key="durable", Body=b"still here")
    host.check_output("systemctl kill --signal=KILL versitygw")

    def read() -> None:
        try:
            body = s3("postgres").get_object(Bucket="mine", Key="durable")["Body"].read()
        except Exception as error:
            raise AssertionError(str(error)) from error
        assert body == b"still here"

    eventually(read, 30)


@pytest.fixture
def small_disk(host: Host) -> Iterator[None]:
    """Give the store a disk of 32 MiB for a while."""
    data = "/var/lib/versitygw"
    host.check_output(
        f"systemctl stop versitygw && mount -t tmpfs -o size=32m none {data} && "
        f"install -d -o versitygw -g versitygw -m 0700 {data}/objects && systemctl start versitygw"
    )
    yield
    host.check_output(f"systemctl stop versitygw && umount {data} && systemctl start versitygw")


def test_a_full_disk_loses_nothing(s3: Client, small_disk: None, eventually: Eventually) -> None:
    client, stored = s3("postgres"), dict[str, str]()

    def serves() -> None:
        try:
            client.create_bucket(Bucket="small")
        except Exception as error:
            raise AssertionError(str(error)) from error

    def put(key: str) -> None:
        body = os.urandom(BLOCK)
        client.put_object(Bucket="small", Key=key, Body=body)
        stored[key] = hashlib.sha256(body).hexdigest()

    def whole() -> None:
        listed = {entry["Key"]: entry["Size"] for entry in client.list_objects_v2(Bucket="small")["Contents"]}
        assert listed == dict.fromkeys(stored, BLOCK)
        for key, checksum in stored.items():
            body = client.get_object(Bucket="small", Key=key)["Body"].read()
            assert hashlib.sha256(body).hexdigest() == checksum

    eventually(serves, 30)
    with pytest.raises(ClientError) as error:
        for number in range(20):
            put(f"{number}")
    assert error.value.response["Error"]["Code"] == "InsufficientStorage"
    assert len(stored) >= 6
    # Neither one in the place of another, nor one in parts, as backups are.
    assert denied(client.put_object, Bucket="small", Key="0", Body=os.urandom(BLOCK)) == "InsufficientStorage"
    with pytest.raises(BackupError, match="the store's disk is full"):
        Store(client, "small").upload("parts", [os.urandom(2 * BLOCK), os.urandom(2 * BLOCK)])
    whole()
    for key in ("0", "1"):
        client.delete_object(Bucket="small", Key=key)
        del stored[key]
    put("after")
    whole()


def test_the_service_is_confined_and_its_secrets_are_closed(host: Host) -> None:
    assert host.process.get(comm="versitygw").user == "versitygw"
    assert "ROOT_SECRET" not in host.check_output("ps axww -o args")
    assert host.file("/etc/versitygw/root.env").mode == 0o600
    assert host.file("/etc/versitygw/accounts/users.json").mode == 0o640
    assert host.run("runuser -u nobody -- ls /var/lib/versitygw/objects").rc != 0
