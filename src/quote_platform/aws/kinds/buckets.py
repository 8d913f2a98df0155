"""Buckets of S3: private, versioned, over TLS only. AWS encrypts all objects, which nobody can switch off."""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import ClientError

from quote_platform.aws.account import CLUSTER, DENIED, NAME, TAKEN, Account, Doubtful, Refused, code
from quote_platform.aws.kinds.balancers import by_tags
from quote_platform.aws.kinds.network import gone
from quote_platform.aws.resource import Found, Kind, Resource, Values

CLOSED = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
# Rules of others stay: the platform has its own for dumps.
OURS = "quote-platform-"
# What S3 answers for a setting that is not made.
UNSET = {
    "NoSuchPublicAccessBlockConfiguration",
    "NoSuchBucketPolicy",
    "NoSuchLifecycleConfiguration",
    "NoSuchTagSet",
}
ARN = "arn:aws:s3:::"


class Bucket(Kind):
    """A bucket; its own name is the world's, `bucket`, and cannot be taken twice."""

    name, fixed, stage = "bucket", frozenset({"bucket"}), 2

    def listed(self, account: Account) -> list[Found]:
        """List them."""
        mine = {one["Name"] for one in account.pages("s3", "list_buckets", "Buckets")}
        tags = by_tags(account) if mine else {}
        return [
            Found(tags[f"{ARN}{one}"].get(NAME, ""), one, {"bucket": one})
            for one in sorted(mine)
            if f"{ARN}{one}" in tags
        ]

    def read(self, account: Account, found: Found) -> None:
        """Ask for its settings."""
        s3, one = account.api("s3"), {"Bucket": found.id}
        found.state["tagged"] = True
        closed = self._ask(s3.get_public_access_block, **one).get("PublicAccessBlockConfiguration", {})
        found.state["private"] = all(closed.get(key) for key in CLOSED)
        found.state["versioned"] = s3.get_bucket_versioning(**one).get("Status") == "Enabled"
        found.state["policy"] = json.loads(self._ask(s3.get_bucket_policy, **one).get("Policy", "{}"))
        rules = self._ask(s3.get_bucket_lifecycle_configuration, **one).get("Rules", [])
        found.raw["rules"] = [rule for rule in rules if not rule["ID"].startswith(OURS)]
        found.state["lifecycle"] = [rule for rule in rules if rule["ID"].startswith(OURS)]

    @staticmethod
    def _ask(question: Any, **given: Any) -> Values:
        try:
            return dict(question(**given))
        except ClientError as error:
            if code(error) in UNSET:
                return {}
            raise

    def judge(self, account: Account, missing: list[Resource]) -> list[str]:
        """Return which names are somebody else's."""
        wrong = []
        for one in missing:
            bucket = one.wanted["bucket"]
            try:
                account.api("s3").head_bucket(Bucket=bucket, ExpectedBucketOwner=account.id)
            except ClientError as error:
                if code(error) in {"404", "NoSuchBucket"}:
                    continue
                if code(error) not in {"403", "301", "400"}:  # 301, 400: of another region
                    raise
                reason = (
                    "belongs to another account, is in another region, or the credentials lack the right "
                    "s3:ListBucket on it (`quote-platform aws policy -i INVENTORY` prints what is needed)"
                )
            else:
                if self._adoptable(account, bucket):
                    continue
                reason = f"is there without the tag {CLUSTER}={account.cluster}, and not empty"
            wrong.append(
                f"aws_buckets_names.{one.name}: the name {bucket} is taken: the bucket {reason}; choose "
                "another"
            )
        return wrong

    def _adoptable(self, account: Account, bucket: str) -> bool:
        """Tell whether a bucket of this account is what a run has made that ended before it gave it "
        "its tags."""
        s3 = account.api("s3")
        tags = {
            one["Key"]: one["Value"]
            for one in self._ask(s3.get_bucket_tagging, Bucket=bucket).get("TagSet", [])
        }
        if CLUSTER in tags:
            return bool(tags[CLUSTER] == account.cluster)  # the tagging API is late
        return not tags and not s3.list_objects_v2(Bucket=bucket, MaxKeys=1).get("KeyCount")

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it, or take the one that an earlier run has made."""
        bucket = wanted["bucket"]
        place = (
            {}
            if account.region == "us-east-1"
            else {"CreateBucketConfiguration": {"LocationConstraint": account.region}}
        )
        try:
            account.create("s3", "create_bucket", Bucket=bucket, **place)
            new = True
        except Doubtful:
            new = False
        except ClientError as error:
            if code(error) == "OperationAborted":  # the one that was not answered is under way
                raise Doubtful(str(error)) from error
            if code(error) in DENIED:
                raise
            if code(error) not in TAKEN or not self._adoptable(account, bucket):
                raise Refused(
                    f"aws_buckets_names.{name}: the name {bucket} is taken ({code(error)}); choose another"
                ) from error
            new = False
        found = Found(name, bucket, {"bucket": bucket})
        if new and place:  # the oldest region says of one that is there already that it was made
            found.state |= {
                "tagged": False,
                "private": False,
                "versioned": False,
                "policy": {},
                "lifecycle": [],
            }
        else:
            self.read(account, found)
            found.state["tagged"] = False
        return found

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Make each setting as it shall be."""
        s3, one = account.api("s3"), {"Bucket": found.id}
        if "tagged" in fields:
            s3.put_bucket_tagging(Tagging={"TagSet": account.tags(found.name)}, **one)
        if "private" in fields:
            s3.put_public_access_block(PublicAccessBlockConfiguration=dict.fromkeys(CLOSED, True), **one)
        if "versioned" in fields:
            s3.put_bucket_versioning(VersioningConfiguration={"Status": "Enabled"}, **one)
        if "policy" in fields:
            s3.put_bucket_policy(Policy=json.dumps(wanted["policy"]), **one)
        if "lifecycle" in fields:
            rules = [*found.raw.get("rules", []), *wanted["lifecycle"]]
            s3.put_bucket_lifecycle_configuration(LifecycleConfiguration={"Rules": rules}, **one)

    def delete(self, account: Account, found: Found) -> None:
        """Delete it with all that is in it, every version."""
        s3, one = account.api("s3"), {"Bucket": found.id}
        try:
            for page in s3.get_paginator("list_object_versions").paginate(**one):
                versions = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
                if versions:
                    keys = [{"Key": of["Key"], "VersionId": of["VersionId"]} for of in versions]
                    answer = s3.delete_objects(Delete={"Objects": keys, "Quiet": True}, **one)
                    if errors := answer.get("Errors"):
                        raise Refused(f"bucket {found.id} cannot be emptied: {errors[0]}")
            s3.delete_bucket(**one)
        except ClientError as error:
            if not gone(error):
                raise Refused(f"bucket {found.id} cannot be deleted: {error}") from error

    def size(self, wanted: Values) -> int:
        """A bucket, its access block, versioning, policy and lifecycle."""
        return 5
