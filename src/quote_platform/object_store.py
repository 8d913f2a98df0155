"""Use an S3 object store as its clients will: each account its bucket, in, out and away again."""
# In one task, so that a second run is quick, and so that what is wrong is told in one sentence.

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, SSLError

# What the task use_object_store is given; plugins/modules has what each means.
SPEC: dict[str, Any] = {
    "endpoint": {"type": "str", "default": ""},
    "region": {"type": "str", "required": True},
    "ca": {"type": "str", "default": ""},
    "accounts": {"type": "dict", "required": True},
    "secret_keys": {"type": "dict", "required": True, "no_log": True},
    "create": {"type": "bool", "default": False},
    "folder": {"type": "str", "default": ""},
    "timeout": {"type": "int", "default": 60},
}
Account = dict[str, str]
# What the endpoint answers when something is wrong, and what to do about it.
MISSING = "lacks the bucket {bucket}: create it, or set object_store_create_buckets"
DENIED = "denies {access_key} the bucket {bucket}: correct its policy, or object_store_accounts.{purpose}"
REASONS = {
    "InvalidAccessKeyId": "knows no access key {access_key}: correct object_store_accounts.{purpose}",
    "SignatureDoesNotMatch": "refuses the key of {access_key}: correct object_store_accounts.{purpose}",
    "AccessDenied": DENIED,
    "403": DENIED,
    "NoSuchBucket": MISSING,
    "404": MISSING,
}


class Refused(Exception):
    """The store cannot be used; the text says why and what to do."""


def explain(error: Exception, where: str, purpose: str, account: Account) -> str:
    """Return a sentence for what went wrong."""
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code"))
        text = REASONS.get(code)
        if text:
            return f"{where} {text.format(purpose=purpose, **account)}"
        return f"{where}, account {account['access_key']}, bucket {account['bucket']}: {error}"
    if isinstance(error, SSLError):
        return f"{where} shows a certificate that object_store_ca did not sign: {error}"
    if isinstance(error, ConnectionError):
        return f"{where} does not answer: {error}. Check object_store_endpoint and the network"
    return f"{where}: {error}"


def use(client: Any, account: Account, region: str, create: bool, dry_run: bool) -> bool:
    """Use one account's bucket; return whether it had to be created."""
    created = False
    bucket = account["bucket"]
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"404", "NoSuchBucket"} or not create:
            # A HEAD has no body that could tell a wrong key from a wrong bucket; this one does.
            client.list_objects_v2(Bucket=bucket, MaxKeys=1)
            raise
        created = True
        if dry_run:
            return True
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        client.create_bucket(Bucket=bucket, **place)
    if dry_run:
        client.list_objects_v2(Bucket=bucket, MaxKeys=1)
        return created
    key, body = f"quote-platform-check-{uuid.uuid4().hex}", uuid.uuid4().bytes
    client.put_object(Bucket=bucket, Key=key, Body=body)
    found = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    client.delete_object(Bucket=bucket, Key=key)
    if found != body:
        raise Refused(f"bucket {bucket} gives back something else than was put in")
    return created


def below(client: Any, bucket: str, folder: str) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the objects right below a folder."""
    folders, objects = [], []
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder, Delimiter="/"):
        folders += [
            entry["Prefix"].removeprefix(folder).rstrip("/") for entry in page.get("CommonPrefixes", [])
        ]
        objects += [entry["Key"].removeprefix(folder) for entry in page.get("Contents", [])]
    return sorted(folders), sorted(objects)


@contextmanager
def authority_file(ca: str) -> Iterator[str]:
    """Yield a file with an authority's certificates, as long as the block runs."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(ca)
        file.flush()
        yield file.name


def place(given: Mapping[str, Any]) -> str:
    """Return how messages call a store."""
    return given["endpoint"] or f"AWS ({given['region']})"


def connect(given: dict[str, Any], purpose: str, authority: str) -> Any:
    """Return a client of one account; the authority is a file."""
    return boto3.client(
        "s3",
        endpoint_url=given["endpoint"] or None,
        region_name=given["region"],
        aws_access_key_id=given["accounts"][purpose]["access_key"],
        aws_secret_access_key=given["secret_keys"][purpose],
        verify=authority if given["ca"] else None,
        config=Config(
            connect_timeout=5,
            read_timeout=20,
            retries={"total_max_attempts": 2},
            request_checksum_calculation="when_required",
            s3={"addressing_style": "path" if given["endpoint"] else "auto"},
        ),
    )


def run(given: dict[str, Any], dry_run: bool) -> dict[str, Any]:
    """Use each account's bucket, or list what a folder has; return what the task returns."""
    where = place(given)
    deadline = time.monotonic() + given["timeout"]
    created: list[str] = []
    folders: list[str] = []
    objects: list[str] = []
    with authority_file(given["ca"]) as authority:
        for purpose, account in sorted(given["accounts"].items()):
            client = connect(given, purpose, authority)
            while True:
                try:
                    if given["folder"]:
                        folders, objects = below(client, account["bucket"], given["folder"])
                    elif use(client, account, given["region"], given["create"], dry_run):
                        created.append(account["bucket"])
                    break
                except Refused as error:
                    raise Refused(f"{where}: {error}") from error
                except (ClientError, BotoCoreError) as error:
                    passing = isinstance(error, ConnectionError) and not isinstance(error, SSLError)
                    if not passing or time.monotonic() > deadline:
                        raise Refused(explain(error, where, purpose, account)) from error
                    time.sleep(1)
    return {"changed": bool(created), "created": created, "folders": folders, "objects": objects}
