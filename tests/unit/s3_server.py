"""A bucket of a server that speaks AWS' API, in which single answers fail on demand."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from quote_platform.backup.store import Store

Given = dict[str, Any]


def environment(endpoint: str) -> dict[str, str]:
    """Return by what a backup finds its bucket, and may use it."""
    return {
        "S3_ENDPOINT": endpoint,
        "S3_REGION": "us-east-1",
        "S3_BUCKET": "backups",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }


@contextmanager
def serving() -> Iterator[str]:
    """Serve AWS' API; yield where."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Bucket:
    """What a bucket holds, and what was asked of it."""

    def __init__(self, endpoint: str) -> None:
        httpx.post(f"{endpoint}/moto-api/reset").raise_for_status()
        self.name = "backups"
        self.now = datetime(2026, 6, 1, tzinfo=UTC)
        self.times: dict[str, datetime] = {}
        self.calls: list[str] = []
        # By operation: called before it is asked; may raise.
        self.before: dict[str, Callable[[Given], None]] = {}
        self.client, self.unobserved = Store.from_environment().client, Store.from_environment().client
        self.unobserved.create_bucket(Bucket=self.name)
        self.client.meta.events.register("provide-client-params.s3", self._ask)
        for operation in ("ListObjectsV2", "ListMultipartUploads"):
            self.client.meta.events.register(f"after-call.s3.{operation}", self._date)

    def _ask(self, params: Given, model: Any, **_: Any) -> Given:
        self.calls.append(model.name)
        if model.name in self.before:
            self.before[model.name](params)
        return params | ({"MaxKeys": 3} if model.name == "ListObjectsV2" else {})  # several pages

    def _date(self, parsed: Given, **_: Any) -> None:
        """Put our time in the place of the server's."""
        for kind, name in (("Contents", "LastModified"), ("Uploads", "Initiated")):
            for entry in parsed.get(kind, []):
                entry[name] = self.times.get(entry["Key"], self.now)

    @property
    def objects(self) -> dict[str, bytes]:
        listed = self.unobserved.list_objects_v2(Bucket=self.name).get("Contents", [])
        return {
            one["Key"]: self.unobserved.get_object(Bucket=self.name, Key=one["Key"])["Body"].read()
            for one in listed
        }

    @property
    def begun(self) -> list[str]:
        """Return what is being uploaded."""
        return [
            one["Key"] for one in self.unobserved.list_multipart_uploads(Bucket=self.name).get("Uploads", [])
        ]

    @property
    def lifecycle(self) -> Given:
        found = self.unobserved.get_bucket_lifecycle_configuration(Bucket=self.name)
        return {name: value for name, value in found.items() if name != "ResponseMetadata"}

    def put(self, key: str, content: bytes, time: datetime | None = None) -> None:
        self.unobserved.put_object(Bucket=self.name, Key=key, Body=content)
        self.times[key] = time or self.now

    def begin(self, key: str, time: datetime) -> None:
        self.unobserved.create_multipart_upload(Bucket=self.name, Key=key)
        self.times[key] = time

    def delete(self, key: str) -> None:
        self.unobserved.delete_object(Bucket=self.name, Key=key)


def refusal(code: str, status: int, operation: str) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}},
        operation,
    )
