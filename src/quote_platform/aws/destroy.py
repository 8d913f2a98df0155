"""Take away all that has a cluster's tag, in the order that AWS wants, and ask whether anything is left."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from botocore.exceptions import BotoCoreError, ClientError

from quote_platform.aws.account import Account, Refused
from quote_platform.aws.kinds import KINDS
from quote_platform.aws.kinds.balancers import by_tags
from quote_platform.aws.kinds.buckets import ARN
from quote_platform.aws.reconcile import THREADS, list_all
from quote_platform.aws.resource import Found, Key

# What stays unless told otherwise.
BACKUPS = {"bucket", "database-snapshot"}
# What AWS goes on to show for some time after its end.
LINGERS = {
    "instance": ("describe_instances", "terminated"),
    "natgateway": ("describe_nat_gateways", "deleted"),
}


def doomed(account: Account, with_buckets: bool) -> dict[Key, Found]:
    """Return what would go."""
    known = list_all(account)
    return {key: found for key, found in known.items() if with_buckets or key[0] not in BACKUPS}


def destroy(account: Account, going: dict[Key, Found]) -> None:
    """Delete all of it: stage by stage, side by side within one."""
    errors: list[str] = []

    def delete(key: Key) -> None:
        try:
            KINDS[key[0]].delete(account, going[key])
        except Refused as error:
            errors.append(str(error))
        except (ClientError, BotoCoreError) as error:
            errors.append(f"{' '.join(key)}: {error}")

    with ThreadPoolExecutor(THREADS) as pool:
        for stage in sorted({kind.stage for kind in KINDS.values()}):
            list(pool.map(delete, [key for key in going if KINDS[key[0]].stage == stage]))
            if errors:
                raise Refused("\n".join([*errors, "Run again, which goes on from there"]))


def left(account: Account, with_buckets: bool) -> list[str]:
    """Return the ARNs of what AWS still has with the cluster's tag; what was only slow to go is waited "
    "for."""
    found: list[str] = []

    def none() -> bool:
        account.forget()
        found[:] = [
            arn
            for arn in by_tags(account)
            if (with_buckets or not (arn.startswith(ARN) or ":snapshot:" in arn)) and not _over(account, arn)
        ]
        return not found

    # Of services that the tagging API of the region does not know; what they delete is gone at once.
    others = [name for name, kind in KINDS.items() if kind.optional]
    account.forget()
    if there := list_all(account, others):
        return [f"{kind} {name}" for kind, name in sorted(there)]
    try:
        account.until("nothing left", none)
    except Refused:
        return sorted(found)
    return []


def _over(account: Account, arn: str) -> bool:
    """Tell whether a thing is only a memory."""
    kind, _, name = arn.rpartition(":")[2].partition("/")
    if kind in KINDS:
        return KINDS[kind].over(account, arn)
    if kind not in LINGERS:
        return False
    ec2, (operation, end) = account.api("ec2"), LINGERS[kind]
    try:
        if kind == "instance":
            groups = ec2.describe_instances(InstanceIds=[name])["Reservations"]
            return all(one["State"]["Name"] == end for group in groups for one in group["Instances"])
        asked = getattr(ec2, operation)(NatGatewayIds=[name])["NatGateways"]
        return all(one["State"] == end for one in asked)
    except ClientError as error:
        return "NotFound" in str(error)
