"""Use an S3 object store as its clients will: each account its bucket, in, out and away again."""
# One module, so that a second run costs one task, and so that what is wrong is told in one sentence.

from __future__ import annotations

import tempfile
import time
import uuid
from typing import Any

import boto3
from ansible.module_utils.basic import AnsibleModule
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, SSLError

DOCUMENTATION = """
module: use_object_store
short_description: Judge accounts and buckets of an S3 object store by using them
options:
  endpoint: {type: str, description: URL; empty means AWS.}
  region: {type: str, required: true, description: Region of the buckets.}
  ca: {type: str, description: Authority of the endpoint as PEM; empty means the system's.}
  accounts: {type: dict, required: true, description: "By purpose: bucket, access_key."}
  secret_keys: {type: dict, required: true, description: By purpose.}
  create: {type: bool, description: Create a missing bucket.}
  folder: {type: str, description: Return what lies right below this folder instead; ends in a slash.}
  timeout: {type: int, description: Seconds to wait for an endpoint that does not answer yet.}
author: [Quote Platform]
"""

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


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "endpoint": {"type": "str", "default": ""},
            "region": {"type": "str", "required": True},
            "ca": {"type": "str", "default": ""},
            "accounts": {"type": "dict", "required": True},
            "secret_keys": {"type": "dict", "required": True, "no_log": True},
            "create": {"type": "bool", "default": False},
            "folder": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    given = module.params
    where = given["endpoint"] or f"AWS ({given['region']})"
    deadline = time.monotonic() + given["timeout"]
    created: list[str] = []
    folders: list[str] = []
    objects: list[str] = []
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as authority:
        authority.write(given["ca"])
        authority.flush()
        for purpose, account in sorted(given["accounts"].items()):
            client = boto3.client(
                "s3",
                endpoint_url=given["endpoint"] or None,
                region_name=given["region"],
                aws_access_key_id=account["access_key"],
                aws_secret_access_key=given["secret_keys"][purpose],
                verify=authority.name if given["ca"] else None,
                config=Config(
                    connect_timeout=5,
                    read_timeout=20,
                    retries={"total_max_attempts": 2},
                    request_checksum_calculation="when_required",
                    s3={"addressing_style": "path" if given["endpoint"] else "auto"},
                ),
            )
            while True:
                try:
                    if given["folder"]:
                        folders, objects = below(client, account["bucket"], given["folder"])
                    elif use(client, account, given["region"], given["create"], module.check_mode):
                        created.append(account["bucket"])
                    break
                except Refused as error:
                    module.fail_json(msg=f"{where}: {error}")
                except (ClientError, BotoCoreError) as error:
                    passing = isinstance(error, ConnectionError) and not isinstance(error, SSLError)
                    if not passing or time.monotonic() > deadline:
                        module.fail_json(msg=explain(error, where, purpose, account))
                    time.sleep(1)
    module.exit_json(changed=bool(created), created=created, folders=folders, objects=objects)


if __name__ == "__main__":
    main()
