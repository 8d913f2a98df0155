"""The object store: streams in and out with a checksum, listing, deletion, lifecycle rules."""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProxyConnectionError,
    SSLError,
)

from quote_platform.backup.retention import Entry

# A store takes 10 000 parts: 312 GiB. Two of them are in memory at a time.
PART = 32 * 1024**2
CHUNK = 1024**2


class BackupError(Exception):
    """A backup could not be made, read or deleted; the text says where and what to do."""


NEXT = {
    "NoSuchBucket": "create the bucket, or correct S3_BUCKET",
    "InvalidObjectState": "it is in GLACIER: restore it there (`aws s3api restore-object`), then run again",
    "NoSuchKey": "choose one that `list` shows",
    "InsufficientStorage": "the store's disk is full: enlarge it; what is stored already is not harmed",
}
RIGHTS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do in the bucket"
NETWORK = "check S3_ENDPOINT and the network, then run again"
PROXY = "check the proxy that HTTPS_PROXY names, and whether it lets one go there"
ACCOUNT = "the proxy refuses the user and password of HTTPS_PROXY: correct them"


def reason(error: ProxyConnectionError) -> str:
    """Return what the proxy has answered, or why it did not; the error itself has only its URL."""
    cause = error.kwargs.get("error")
    return str(getattr(cause, "original_error", cause))


def next_step(error: Exception) -> str:
    """Return what to do about an error."""
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return NEXT.get(code, RIGHTS if status in {401, 403} else "run again; the store's log has more")
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
        return RIGHTS
    if isinstance(error, SSLError):
        return "check AWS_CA_BUNDLE, which must hold the authority of the store's certificate"
    if isinstance(error, ProxyConnectionError):
        return ACCOUNT if " 407 " in reason(error) else f"{PROXY} ({reason(error)})"
    if isinstance(error, ConnectionError | HTTPClientError):
        return NETWORK
    return "check S3_ENDPOINT and S3_REGION, then run again"


class Store:
    """One bucket."""

    def __init__(self, client: Any, bucket: str, endpoint: str = "") -> None:
        self.client = client
        self.bucket = bucket
        self.where = f"bucket {bucket} at {endpoint or 'AWS'}"

    @classmethod
    def from_environment(cls, bucket: str = "") -> "Store":
        """Open the bucket that the environment names; boto3 itself reads keys and authority from there."""
        bucket = bucket or os.environ.get("S3_BUCKET", "")
        endpoint = os.environ.get("S3_ENDPOINT", "")
        if not bucket:
            raise BackupError("S3_BUCKET is empty: set it to the bucket of the backups")
        config = Config(
            # Checksums of boto3's own, which not every store knows; ours is compared instead.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if endpoint else "auto"},
            retries={"mode": "standard", "max_attempts": 5},
            connect_timeout=10,
            read_timeout=60,
        )
        try:
            client = boto3.client(
                "s3",
                endpoint_url=endpoint or None,
                region_name=os.environ.get("S3_REGION") or None,
                verify=os.environ.get("AWS_CA_BUNDLE") or True,  # boto3 refuses an empty one
                config=config,
            )
        except (BotoCoreError, ValueError) as error:
            raise BackupError(
                f"bucket {bucket} at {endpoint or 'AWS'}: {error}: {next_step(error)}"
            ) from error
        return cls(client, bucket, endpoint)

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise BackupError(f"{what} in {self.where} failed: {error}: {next_step(error)}") from error

    def upload(self, key: str, stream: Iterable[bytes]) -> tuple[int, str]:
        """Write an object from a stream; return size and SHA-256. It appears whole or not at all."""
        place = {"Bucket": self.bucket, "Key": key}
        sha, size, parts = hashlib.sha256(), 0, []
        with self._explained(f"writing {key}"):
            upload = place | {"UploadId": self.client.create_multipart_upload(**place)["UploadId"]}
            try:
                for number, part in enumerate(stream, 1):
                    sha.update(part)
                    size += len(part)
                    answer = self.client.upload_part(**upload, PartNumber=number, Body=part)
                    parts.append({"PartNumber": number, "ETag": answer["ETag"]})
                if not size:
                    raise BackupError(f"{key} would be empty: nothing was written to {self.where}")
                self.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
            except BaseException:  # also when we are told to end
                with contextlib.suppress(BotoCoreError, ClientError):  # `prune` clears it a day later
                    self.client.abort_multipart_upload(**upload)
                raise
        return size, sha.hexdigest()

    def write(self, key: str, content: bytes) -> None:
        """Write a small object."""
        with self._explained(f"writing {key}"):
            self.client.put_object(Bucket=self.bucket, Key=key, Body=content)

    def read(self, key: str) -> Iterator[bytes]:
        """Yield an object's content."""
        with self._explained(f"reading {key}"):
            yield from self.client.get_object(Bucket=self.bucket, Key=key)["Body"].iter_chunks(CHUNK)

    def delete(self, key: str) -> None:
        """Delete an object."""
        with self._explained(f"deleting {key}"):
            self.client.delete_object(Bucket=self.bucket, Key=key)

    def entries(self, prefix: str) -> list[Entry]:
        """Return the objects directly below a prefix."""
        with self._explained(f"listing {prefix}"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=f"{prefix}/", Delimiter="/"
            )
            return [
                Entry(found["Key"].removeprefix(f"{prefix}/"), found["Size"], found["LastModified"])
                for page in pages
                for found in page.get("Contents", [])
            ]

    def uploads(self, prefix: str) -> list[tuple[Entry, str]]:
        """Return the uploads below a prefix that were begun and not ended, with their numbers."""
        with self._explained(f"listing uploads of {prefix}"):
            pages = self.client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=f"{prefix}/"
            )
            return [
                (Entry(found["Key"].removeprefix(f"{prefix}/"), 0, found["Initiated"]), found["UploadId"])
                for page in pages
                for found in page.get("Uploads", [])
            ]

    def abort(self, key: str, upload: str) -> None:
        """End an upload that nobody will finish."""
        with self._explained(f"aborting {key}"):
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)

    def archive(self, prefix: str, days: int) -> bool:
        """Have objects below a prefix moved to GLACIER at that age; tell whether the rule is new."""
        rule = {
            "ID": f"quote-platform/{prefix}",
            "Status": "Enabled",
            "Filter": {"Prefix": f"{prefix}/"},
            "Transitions": [{"Days": days, "StorageClass": "GLACIER"}],
        }
        with self._explained("setting the lifecycle"):
            try:
                found = self.client.get_bucket_lifecycle_configuration(Bucket=self.bucket)
            except ClientError as error:
                if error.response["Error"]["Code"] != "NoSuchLifecycleConfiguration":
                    raise
                found = {}
            # The call replaces all rules: those of others go along.
            rules = found.get("Rules", [])
            if rule in rules:
                return False
            others = [one for one in rules if one.get("ID") != rule["ID"]]
            size = {k: v for k, v in found.items() if k == "TransitionDefaultMinimumObjectSize"}
            self.client.put_bucket_lifecycle_configuration(
                Bucket=self.bucket, LifecycleConfiguration={"Rules": [*others, rule]}, **size
            )
        return True
