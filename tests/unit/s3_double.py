"""An object store in memory behind a real boto3 client, whose own model judges every call.

No server, and no moto, which is not among the locked packages: a store's answers over HTTP are not tested.
"""

import hashlib
import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from botocore.validate import validate_parameters

Given = dict[str, Any]


class Double:
    """What a bucket holds, and what was asked of it."""

    def __init__(self) -> None:
        self.bucket = "backups"
        self.now = datetime(2026, 6, 1, tzinfo=UTC)
        self.objects: dict[str, bytes] = {}
        self.modified: dict[str, datetime] = {}
        self.begun: dict[str, tuple[str, datetime, dict[int, bytes]]] = {}
        self.lifecycle: Given = {}
        self.calls: list[str] = []
        # By operation: called before the store answers; may raise.
        self.before: dict[str, Callable[[Given], None]] = {}
        self.page = 3
        self.client = boto3.client(
            "s3",
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",  # noqa: S106 (of nothing)
        )
        self.client._make_api_call = self.answer

    def answer(self, operation: str, given: Given) -> Any:
        validate_parameters(given, self.client.meta.service_model.operation_model(operation).input_shape)
        self.calls.append(operation)
        if operation in self.before:
            self.before[operation](given)
        if given["Bucket"] != self.bucket:
            raise refusal("NoSuchBucket", 404, operation)
        return getattr(self, operation)(given)

    def put(self, key: str, content: bytes, modified: datetime | None = None) -> None:
        self.objects[key] = content
        self.modified[key] = modified or self.now

    # --- operations -------------------------------------------------------------------------------------

    def CreateMultipartUpload(self, given: Given) -> Given:
        number = f"upload-{len(self.calls)}"
        self.begun[number] = (given["Key"], self.now, {})
        return {"UploadId": number}

    def UploadPart(self, given: Given) -> Given:
        self.begun[given["UploadId"]][2][given["PartNumber"]] = given["Body"]
        return {"ETag": hashlib.sha256(given["Body"]).hexdigest()}

    def CompleteMultipartUpload(self, given: Given) -> Given:
        key, _, parts = self.begun.pop(given["UploadId"])
        wanted = given["MultipartUpload"]["Parts"]
        assert [part["PartNumber"] for part in wanted] == sorted(parts)
        for part in wanted:
            assert part["ETag"] == hashlib.sha256(parts[part["PartNumber"]]).hexdigest()
        self.put(key, b"".join(parts[number] for number in sorted(parts)))
        return {}

    def AbortMultipartUpload(self, given: Given) -> Given:
        if self.begun.pop(given["UploadId"], None) is None:
            raise refusal("NoSuchUpload", 404, "AbortMultipartUpload")
        return {}

    def PutObject(self, given: Given) -> Given:
        self.put(given["Key"], given["Body"])
        return {}

    def GetObject(self, given: Given) -> Given:
        if given["Key"] not in self.objects:
            raise refusal("NoSuchKey", 404, "GetObject")
        content = self.objects[given["Key"]]
        return {"Body": StreamingBody(io.BytesIO(content), len(content))}

    def DeleteObject(self, given: Given) -> Given:
        self.objects.pop(given["Key"], None)
        return {}

    def ListObjectsV2(self, given: Given) -> Given:
        keys = sorted(
            key
            for key in self.objects
            if key.startswith(given["Prefix"]) and "/" not in key.removeprefix(given["Prefix"])
        )
        start = int(given.get("ContinuationToken", 0))
        page = keys[start : start + self.page]
        answer: Given = {
            "Contents": [
                {"Key": key, "Size": len(self.objects[key]), "LastModified": self.modified[key]}
                for key in page
            ],
            "IsTruncated": start + self.page < len(keys),
        }
        if answer["IsTruncated"]:
            answer["NextContinuationToken"] = str(start + self.page)
        return answer if page else {"IsTruncated": False}

    def ListMultipartUploads(self, given: Given) -> Given:
        found = [
            {"Key": key, "UploadId": number, "Initiated": time}
            for number, (key, time, _) in self.begun.items()
            if key.startswith(given["Prefix"])
        ]
        return {"Uploads": found, "IsTruncated": False} if found else {"IsTruncated": False}

    def GetBucketLifecycleConfiguration(self, given: Given) -> Given:
        if not self.lifecycle:
            raise refusal("NoSuchLifecycleConfiguration", 404, "GetBucketLifecycleConfiguration")
        return self.lifecycle

    def PutBucketLifecycleConfiguration(self, given: Given) -> Given:
        size = {k: v for k, v in given.items() if k == "TransitionDefaultMinimumObjectSize"}
        self.lifecycle = given["LifecycleConfiguration"] | size
        return {}


def refusal(code: str, status: int, operation: str) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}},
        operation,
    )
