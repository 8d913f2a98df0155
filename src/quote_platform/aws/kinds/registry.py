"""Repositories of ECR: images that nobody can replace, scanned as they come in, the newest kept."""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import ClientError

from quote_platform.aws.account import CLUSTER, Account, Answer, Doubtful, Refused, code
from quote_platform.aws.kinds.balancers import by_tags
from quote_platform.aws.kinds.network import delete
from quote_platform.aws.resource import Found, Kind, Resource, Values


class Repository(Kind):
    """A repository, CLUSTER/NAME."""

    name, stage = "repository", 2

    def listed(self, account: Account) -> list[Found]:
        """List them."""
        head = f"arn:aws:ecr:{account.region}:"
        names = sorted(arn.partition(":repository/")[2] for arn in by_tags(account) if arn.startswith(head))
        found: list[Found] = []
        for first in range(0, len(names), 100):
            try:
                some = account.api("ecr").describe_repositories(repositoryNames=names[first : first + 100])
                found += [self._found(account, one) for one in some["repositories"]]
            except ClientError as error:
                if code(error) != "RepositoryNotFoundException":
                    raise
                # The tagging API still has one that is gone.
                there = account.pages("ecr", "describe_repositories", "repositories")
                return [self._found(account, one) for one in there if one["repositoryName"] in names]
        return found

    @staticmethod
    def _found(account: Account, one: Answer) -> Found:
        state = {
            "immutable": one["imageTagMutability"] == "IMMUTABLE",
            "scanned": one["imageScanningConfiguration"]["scanOnPush"],
        }
        name = one["repositoryName"]
        return Found(name.removeprefix(f"{account.cluster}/"), name, state, {"address": one["repositoryUri"]})

    def read(self, account: Account, found: Found) -> None:
        """Ask which images stay."""
        try:
            asked = account.api("ecr").get_lifecycle_policy(repositoryName=found.id)
            found.state["lifecycle"] = json.loads(asked["lifecyclePolicyText"])
        except ClientError as error:
            if code(error) != "LifecyclePolicyNotFoundException":
                raise
            found.state["lifecycle"] = {}

    def _there(self, account: Account, full: str) -> tuple[Answer | None, bool]:
        """Return the repository of a name, and whether it is ours."""
        ecr = account.api("ecr")
        try:
            one = ecr.describe_repositories(repositoryNames=[full])["repositories"][0]
        except ClientError as error:
            if code(error) != "RepositoryNotFoundException":
                raise
            return None, False
        tags = ecr.list_tags_for_resource(resourceArn=one["repositoryArn"])["tags"]
        return one, {"Key": CLUSTER, "Value": account.cluster} in tags

    def judge(self, account: Account, missing: list[Resource]) -> list[str]:
        """Return which names are somebody else's."""
        wrong = []
        for one in missing:
            full = f"{account.cluster}/{one.name}"
            there, ours = self._there(account, full)
            if there and not ours:
                wrong.append(
                    f"aws_registry_repositories: the repository {full} is there without the tag "
                    f"{CLUSTER}={account.cluster}; tag it, or choose another name"
                )
        return wrong

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it, or take the one that an earlier attempt has made."""
        full = f"{account.cluster}/{name}"
        given: dict[str, Any] = {
            "repositoryName": full,
            "imageTagMutability": "IMMUTABLE",
            "imageScanningConfiguration": {"scanOnPush": True},
            "tags": account.tags(name),
        }
        try:
            made = account.create("ecr", "create_repository", **given)["repository"]
        except ClientError as error:
            if code(error) != "RepositoryAlreadyExistsException":
                raise Refused(f"repository {full} cannot be made: {error}") from error
            there, ours = self._there(account, full)
            if not there:
                raise Doubtful(str(error)) from error
            if not ours:
                raise Refused(f"repository {full} is somebody else's") from error
            found = self._found(account, there)
            self.read(account, found)
            return found
        except Doubtful:
            account.forget()
            raise
        found = self._found(account, made)
        found.state["lifecycle"] = {}
        return found

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Make each setting as it shall be."""
        ecr, one = account.api("ecr"), {"repositoryName": found.id}
        if "immutable" in fields:
            ecr.put_image_tag_mutability(imageTagMutability="IMMUTABLE", **one)
        if "scanned" in fields:
            ecr.put_image_scanning_configuration(imageScanningConfiguration={"scanOnPush": True}, **one)
        if "lifecycle" in fields:
            ecr.put_lifecycle_policy(lifecyclePolicyText=json.dumps(wanted["lifecycle"]), **one)

    def delete(self, account: Account, found: Found) -> None:
        """Delete it with its images."""
        what, given = f"repository {found.name}", {"repositoryName": found.id, "force": True}
        delete(account, what, "ecr", "delete_repository", **given)

    def size(self, wanted: Values) -> int:
        """A repository and its lifecycle."""
        return 2
