"""Keys of KMS, by which Vault opens itself."""

from __future__ import annotations

from botocore.exceptions import ClientError

from quote_platform.aws.account import CLUSTER, NAME, Account, Answer, Refused, code
from quote_platform.aws.kinds.balancers import by_tags
from quote_platform.aws.kinds.network import gone
from quote_platform.aws.resource import Found, Kind, Resource, Values

# What AWS goes on to have until the days of its deletion are over.
ENDING = "PendingDeletion"


def _short(found: Found) -> str:
    """Return the id that stands in a key's ARN."""
    return found.id.rpartition("/")[2]


class Key(Kind):
    """A symmetric key with one alias, replaced inside each year; its policy leaves rights to IAM."""

    name, stage = "key", 3

    @staticmethod
    def _alias(account: Account, name: str) -> str:
        return f"alias/{account.cluster}-{name}"

    def listed(self, account: Account) -> list[Found]:
        """List those that are not about to end."""
        found = []
        for arn, tags in by_tags(account).items():
            if arn.startswith(f"arn:aws:kms:{account.region}:"):
                state = self._state(account, arn)
                if state != ENDING:
                    found.append(Found(tags.get(NAME, ""), arn, {"state": state}))
        return found

    @staticmethod
    def _state(account: Account, key: str) -> str:
        try:
            return str(account.api("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyState"])
        except ClientError as error:
            if gone(error):
                return ENDING
            raise

    def read(self, account: Account, found: Found) -> None:
        """Ask for its alias, and whether it is replaced each year."""
        aliases = account.pages("kms", "list_aliases", "Aliases", KeyId=_short(found))
        found.state["aliases"] = [one["AliasName"] for one in aliases]
        rotation = account.api("kms").get_key_rotation_status(KeyId=_short(found))
        found.state["rotated"] = rotation["KeyRotationEnabled"]

    def judge(self, account: Account, missing: list[Resource]) -> list[str]:
        """Return which aliases are somebody else's."""
        aliases = self._aliases(account)
        wrong = []
        for one in missing:
            alias = self._alias(account, one.name)
            target = next((key for key, names in aliases.items() if alias in names), "")
            if target and not self._ours(account, target, one.name):
                wrong.append(
                    f"aws_keys_{one.name}: the name {alias} is taken by the key {target}, without the tag "
                    f"{CLUSTER}={account.cluster}; delete that alias, or choose another cluster_name"
                )
        return wrong

    @staticmethod
    def _aliases(account: Account) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for one in account.pages("kms", "list_aliases", "Aliases"):
            if key := one.get("TargetKeyId"):
                found.setdefault(key, []).append(one["AliasName"])
        return found

    @staticmethod
    def _ours(account: Account, key: str, name: str) -> bool:
        try:
            tags = account.pages("kms", "list_resource_tags", "Tags", KeyId=key)
        except ClientError as error:
            if gone(error) or "AccessDenied" in code(error):
                return False
            raise
        known = {one["TagKey"]: one["TagValue"] for one in tags}
        return known.get(CLUSTER) == account.cluster and known.get(NAME) == name

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it, or take back the one that a killed run has made or a destroyed cluster has left."""
        # Not by the tagging API, which is late; a call that makes keys knows no client token.
        aliases, alias = self._aliases(account), self._alias(account, name)
        for one in account.pages("kms", "list_keys", "Keys"):
            key = one["KeyId"]
            if aliases.get(key, []) in ([], [alias]) and self._ours(account, key, name):
                found = Found(name, one["KeyArn"], {"state": self._state(account, key)})
                if found.state["state"] == ENDING:
                    account.api("kms").cancel_key_deletion(KeyId=key)
                    found.state["state"] = "Disabled"
                self.read(account, found)
                return found
        tags: list[Answer] = [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in account.tags(name)]
        made = account.create("kms", "create_key", Description=wanted["description"], Tags=tags)
        state = {"state": "Enabled", "aliases": [], "rotated": False}
        return Found(name, made["KeyMetadata"]["Arn"], state)

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Enable it, have it replaced, and name it."""
        kms, key = account.api("kms"), {"KeyId": _short(found)}
        if "state" in fields:
            kms.enable_key(**key)
        if "rotated" in fields:
            kms.enable_key_rotation(**key)
        for alias in sorted(set(wanted["aliases"]) - set(found.state["aliases"])):
            kms.create_alias(AliasName=alias, TargetKeyId=_short(found))
        for alias in sorted(set(found.state["aliases"]) - set(wanted["aliases"])):
            kms.delete_alias(AliasName=alias)

    def delete(self, account: Account, found: Found) -> None:
        """Free its name and let it end after some days: what it has sealed is lost with it."""
        kms = account.api("kms")
        try:
            for one in account.pages("kms", "list_aliases", "Aliases", KeyId=_short(found)):
                kms.delete_alias(AliasName=one["AliasName"])
            kms.schedule_key_deletion(KeyId=_short(found), PendingWindowInDays=account.key_days)
        except ClientError as error:
            if not gone(error) and code(error) != "KMSInvalidStateException":
                raise Refused(f"key {found.name} cannot be deleted: {error}") from error

    def over(self, account: Account, arn: str) -> bool:
        """Tell whether only its days are to pass."""
        return self._state(account, arn) == ENDING

    def size(self, wanted: Values) -> int:
        """A key and its alias."""
        return 2
