"""Machines, and the rights that they have by themselves."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from botocore.exceptions import ClientError

from quote_platform.aws.account import CLUSTER, NAME, Account, Answer, Refused, code, tag
from quote_platform.aws.kinds.network import delete, gone
from quote_platform.aws.resource import Found, Kind, Resource, Values

# Group of the inventory that a machine belongs to.
GROUP = "quote-platform/group"
# Canonical's own, public: https://documentation.ubuntu.com/aws/aws-how-to/instances/find-ubuntu-images/
IMAGE = "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id"
# States in which a machine is there; it then has what it had.
THERE = {"pending", "running", "stopping", "stopped"}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}
POLICY = "quote-platform"


def path(account: Account) -> str:
    """Return below which path of IAM the cluster's things lie."""
    return f"/quote-platform/{account.cluster}/"


def document(value: Any) -> Any:
    """Return a policy as data: botocore decodes some by itself."""
    return json.loads(unquote(value)) if isinstance(value, str) else value


class Role(Kind):
    """What a machine may do by itself: a role with one policy."""

    name, fixed, stage = "role", frozenset({"trust"}), 4

    def listed(self, account: Account) -> list[Found]:
        """List them."""
        return [
            Found(
                one["RoleName"].removeprefix(f"{account.cluster}-"),
                one["RoleName"],
                {"trust": document(one["AssumeRolePolicyDocument"])},
            )
            for one in account.pages("iam", "list_roles", "Roles", PathPrefix=path(account))
        ]

    def read(self, account: Account, found: Found) -> None:
        """Ask for the policy."""
        try:
            asked = account.api("iam").get_role_policy(RoleName=found.id, PolicyName=POLICY)
            found.state["policy"] = document(asked["PolicyDocument"])
        except ClientError as error:
            if code(error) != "NoSuchEntity":
                raise
            found.state["policy"] = {}

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it; it may nothing."""
        full = f"{account.cluster}-{name}"
        account.create_named(
            "iam",
            "create_role",
            RoleName=full,
            Path=path(account),
            AssumeRolePolicyDocument=json.dumps(wanted["trust"]),
            Tags=account.tags(name),
        )
        return Found(name, full, {"trust": wanted["trust"], "policy": {}})

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Write the policy."""
        account.api("iam").put_role_policy(
            RoleName=found.id, PolicyName=POLICY, PolicyDocument=json.dumps(wanted["policy"])
        )

    def delete(self, account: Account, found: Found) -> None:
        """Delete it with its policy."""
        what = f"role {found.name}"
        delete(account, what, "iam", "delete_role_policy", RoleName=found.id, PolicyName=POLICY)
        delete(account, what, "iam", "delete_role", RoleName=found.id)

    def size(self, wanted: Values) -> int:
        """A role and its policy."""
        return 2


class Profile(Kind):
    """By which a machine has a role."""

    name, stage = "profile", 3

    def listed(self, account: Account) -> list[Found]:
        """List them."""
        return [
            Found(
                one["InstanceProfileName"].removeprefix(f"{account.cluster}-"),
                one["InstanceProfileName"],
                {"role": next((role["RoleName"] for role in one["Roles"]), "")},
            )
            for one in account.pages(
                "iam", "list_instance_profiles", "InstanceProfiles", PathPrefix=path(account)
            )
        ]

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it, without a role."""
        full = f"{account.cluster}-{name}"
        given = {"InstanceProfileName": full, "Path": path(account), "Tags": account.tags(name)}
        account.create_named("iam", "create_instance_profile", **given)
        return Found(name, full, {"role": ""})

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Put the role in."""
        iam, given = account.api("iam"), {"InstanceProfileName": found.id}
        if found.state["role"]:
            iam.remove_role_from_instance_profile(RoleName=found.state["role"], **given)
        iam.add_role_to_instance_profile(RoleName=wanted["role"], **given)

    def delete(self, account: Account, found: Found) -> None:
        """Take the role out and delete it."""
        what, given = f"profile {found.name}", {"InstanceProfileName": found.id}
        if role := found.state["role"]:
            delete(account, what, "iam", "remove_role_from_instance_profile", RoleName=role, **given)
        delete(account, what, "iam", "delete_instance_profile", **given)


class Machine(Kind):
    """A machine with one encrypted disk, which goes with it."""

    name, stage = "machine", 2
    fixed = frozenset({"type", "subnet"})

    def listed(self, account: Account) -> list[Found]:
        """List those that are there; others say which client tokens are used up."""
        return [self._found(one) for one in self._all(account) if one["State"]["Name"] in THERE]

    @staticmethod
    def _all(account: Account) -> list[Answer]:
        return [
            one for group in account.ours("describe_instances", "Reservations") for one in group["Instances"]
        ]

    def _poll(self, account: Account, found: Found) -> Answer:
        """Return what became of one; all that wait ask together."""
        known = account.remembered("poll machines", lambda: self._all(account), account.pause / 2)
        return next((one for one in known if one["InstanceId"] == found.id), {"State": {"Name": ""}})

    @staticmethod
    def _found(one: Answer) -> Found:
        card = next(iter(one.get("NetworkInterfaces") or []), one)
        state = {
            "type": one["InstanceType"],
            "subnet": one.get("SubnetId", ""),
            "groups": [group["GroupId"] for group in card.get("Groups") or one.get("SecurityGroups") or []],
            "group": tag(one, GROUP),
            "checks_addresses": one.get("SourceDestCheck", True),
            "profile": (one.get("IamInstanceProfile") or {}).get("Arn", "").rpartition("/")[2],
            "metadata": (one.get("MetadataOptions") or {}).get("HttpTokens", "optional"),
            "state": one["State"]["Name"],
        }
        attributes = {"private": one.get("PrivateIpAddress", ""), "public": one.get("PublicIpAddress", "")}
        return Found(tag(one, NAME), one["InstanceId"], state, attributes, one)

    def judge(self, account: Account, missing: list[Resource]) -> list[str]:
        """Return which types the zones have not."""
        types = sorted({one.wanted["type"] for one in missing})
        offered = account.pages(
            "ec2",
            "describe_instance_type_offerings",
            "InstanceTypeOfferings",
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": types}],
        )
        known = {(one["InstanceType"], one["Location"]) for one in offered}
        return [
            f"{one.name}: the zone {one.wanted['zone']} has no machines of type {one.wanted['type']}; "
            f"choose another type, or of these zones: "
            f"{', '.join(sorted(zone for kind, zone in known if kind == one.wanted['type'])) or 'none'}"
            for one in missing
            if (one.wanted["type"], one.wanted["zone"]) not in known
        ]

    def _image(self, account: Account, wanted: Values) -> str:
        """Return the chosen image, or that of machines that are there, or the newest: a new one "
        "changes none."""
        if wanted["image"]:
            return str(wanted["image"])

        def pinned() -> str:
            there = [one for one in self._all(account) if one["State"]["Name"] in THERE]
            if there:
                return str(min(there, key=lambda one: (one["LaunchTime"], one["InstanceId"]))["ImageId"])
            return str(account.api("ssm").get_parameter(Name=IMAGE)["Parameter"]["Value"])

        return account.remembered("image", pinned)

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Start it."""
        tags = [*account.tags(name), {"Key": GROUP, "Value": wanted["group"]}]
        given: Values = {
            "ImageId": self._image(account, wanted),
            "InstanceType": wanted["type"],
            "MinCount": 1,
            "MaxCount": 1,
            "UserData": wanted["user_data"],
            "DisableApiTermination": wanted["protected"],
            "MetadataOptions": {
                "HttpTokens": "required",
                "HttpPutResponseHopLimit": 1,
                "HttpEndpoint": "enabled",
            },
            "NetworkInterfaces": [
                {
                    "DeviceIndex": 0,
                    "SubnetId": wanted["subnet"],
                    "Groups": wanted["groups"],
                    "AssociatePublicIpAddress": wanted["public"],
                }
            ],
            "BlockDeviceMappings": [
                {
                    "DeviceName": "/dev/sda1",
                    "Ebs": {
                        "VolumeType": "gp3",
                        "VolumeSize": wanted["disk"],
                        "Encrypted": True,
                        "DeleteOnTermination": True,
                    },
                }
            ],
            "TagSpecifications": [
                {"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume", "network-interface")
            ],
        }
        if wanted["profile"]:
            given["IamInstanceProfile"] = {"Name": wanted["profile"]}
        # A token of a machine that was terminated starts none.
        generation = 0
        for _ in account.tries(f"starting machine {name}"):
            token = account.token("machine", name, wanted["subnet"], str(generation))
            try:
                made = account.create("ec2", "run_instances", ClientToken=token, **given)["Instances"][0]
                found = self._found(made)
                found.name = name
                found.state |= {key: wanted[key] for key in ("groups", "group", "metadata", "profile")}
                return found
            except ClientError as error:
                if code(error) in {"IdempotentInstanceTerminated", "IdempotentParameterMismatch"}:
                    generation += 1
                elif code(error) != "InvalidParameterValue" or "nstance Profile" not in str(error):
                    raise Refused(f"machine {name} cannot be started: {error}") from error
                # Else the profile was made a moment ago, and is not seen everywhere yet.
        raise AssertionError  # tries refuses by itself

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Change what can be changed while it runs, and start one that is stopped."""
        ec2, one = account.api("ec2"), {"InstanceId": found.id}
        if "groups" in fields:
            ec2.modify_instance_attribute(Groups=wanted["groups"], **one)
        if "checks_addresses" in fields:
            ec2.modify_instance_attribute(SourceDestCheck={"Value": wanted["checks_addresses"]}, **one)
        if "metadata" in fields:
            ec2.modify_instance_metadata_options(HttpTokens=wanted["metadata"], **one)
        if "profile" in fields:
            self._give(account, found, wanted["profile"])
        if "group" in fields:
            ec2.create_tags(Resources=[found.id], Tags=[{"Key": GROUP, "Value": wanted["group"]}])
        if "state" in fields and found.state["state"] != "pending":
            account.until(  # one that is being stopped cannot be started yet
                f"machine {found.name} stopped",
                lambda: self._poll(account, found)["State"]["Name"] != "stopping",
            )
            ec2.start_instances(InstanceIds=[found.id])

    @staticmethod
    def _give(account: Account, found: Found, profile: str) -> None:
        """Give it a profile, or none."""
        ec2 = account.api("ec2")
        known = account.pages(
            "ec2",
            "describe_iam_instance_profile_associations",
            "IamInstanceProfileAssociations",
            Filters=[{"Name": "instance-id", "Values": [found.id]}],
        )
        there = [one["AssociationId"] for one in known if one["State"] in {"associating", "associated"}]
        if not profile:
            for one in there:
                ec2.disassociate_iam_instance_profile(AssociationId=one)
        elif there:
            ec2.replace_iam_instance_profile_association(
                AssociationId=there[0], IamInstanceProfile={"Name": profile}
            )
        else:
            ec2.associate_iam_instance_profile(InstanceId=found.id, IamInstanceProfile={"Name": profile})

    def ready(self, account: Account, found: Found) -> None:
        """Wait until it runs, and has its addresses."""

        def running() -> bool:
            now = self._poll(account, found)
            if now["State"]["Name"] in {"shutting-down", "terminated"}:
                reason = now.get("StateReason", {}).get("Message")
                raise Refused(f"machine {found.name} has ended as soon as it was started: {reason}")
            if now["State"]["Name"] == "running":
                found.attributes = self._found(now).attributes
            return bool(now["State"]["Name"] == "running")

        account.until(f"machine {found.name} running", running)

    def delete(self, account: Account, found: Found) -> None:
        """Take its protection away, terminate it, and wait until it is gone."""
        ec2, one = account.api("ec2"), {"InstanceId": found.id}
        try:
            ec2.modify_instance_attribute(DisableApiTermination={"Value": False}, **one)
            ec2.terminate_instances(InstanceIds=[found.id])
        except ClientError as error:
            if not gone(error):
                raise
        account.until(
            f"machine {found.name} terminated",
            lambda: self._poll(account, found)["State"]["Name"] in {"terminated", ""},
        )


__all__ = ["CLUSTER", "GROUP", "IMAGE", "TRUST", "Machine", "Profile", "Role"]
