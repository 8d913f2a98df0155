"""PostgreSQL of RDS: an instance, where it stands, how it is set, and what is left of it."""

from __future__ import annotations

from datetime import UTC, datetime

from botocore.exceptions import ClientError

from quote_platform.aws.account import CLUSTER, NAME, Account, Answer, Refused, code
from quote_platform.aws.kinds.balancers import by_tags
from quote_platform.aws.kinds.network import delete, gone
from quote_platform.aws.resource import Found, Kind, Resource, Values

# States in which an instance serves, or will again by itself without being waited for.
SERVES = {
    "available",
    "backing-up",
    "modifying",
    "maintenance",
    "storage-optimization",
    "configuring-enhanced-monitoring",
}


def _tagged(account: Account, kind: str) -> dict[str, str]:
    """Return our names of what RDS has with the cluster's tag, by RDS' names."""
    head = f"arn:aws:rds:{account.region}:"
    return {
        arn.partition(f":{kind}:")[2]: tags.get(NAME, "")
        for arn, tags in by_tags(account).items()
        if arn.startswith(head) and f":{kind}:" in arn
    }


def _strangers(account: Account, missing: list[Resource], operation: str, key: str, kind: str) -> list[str]:
    """Return which names are somebody else's."""
    rds, arn = account.api("rds"), f"{kind}Arn"
    wrong = []
    for one in missing:
        name = f"{account.cluster}-{one.name}"
        try:
            there = getattr(rds, operation)(**{key: name})
        except ClientError as error:
            if not gone(error):
                raise
            continue
        for item in there[f"{kind}s"]:
            tags = rds.list_tags_for_resource(ResourceName=item[arn])["TagList"]
            if {"Key": CLUSTER, "Value": account.cluster} not in tags:
                wrong.append(
                    f"aws_database_choice: the name {name} is taken by {item[arn]}, without the tag "
                    f"{CLUSTER}={account.cluster}; delete that, or choose another cluster_name"
                )
    return wrong


class Subnets(Kind):
    """In which subnets a database stands."""

    name, stage = "database-subnets", 3

    def listed(self, account: Account) -> list[Found]:
        """List them."""
        names = _tagged(account, "subgrp")
        listed = account.pages("rds", "describe_db_subnet_groups", "DBSubnetGroups") if names else []
        return [
            Found(
                names[one["DBSubnetGroupName"]],
                one["DBSubnetGroupName"],
                {"subnets": [subnet["SubnetIdentifier"] for subnet in one["Subnets"]]},
            )
            for one in listed
            if one["DBSubnetGroupName"] in names
        ]

    def judge(self, account: Account, missing: list[Resource]) -> list[str]:
        """Return whether the name is somebody else's."""
        how = ("describe_db_subnet_groups", "DBSubnetGroupName", "DBSubnetGroup")
        return _strangers(account, missing, *how)

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it."""
        full = f"{account.cluster}-{name}"
        account.create_or_refuse(
            f"database-subnets {full}",
            "rds",
            "create_db_subnet_group",
            DBSubnetGroupName=full,
            DBSubnetGroupDescription=f"Database of {account.cluster}",
            SubnetIds=wanted["subnets"],
            Tags=account.tags(name),
        )
        return Found(name, full, dict(wanted))

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Change its subnets."""
        account.api("rds").modify_db_subnet_group(DBSubnetGroupName=found.id, SubnetIds=wanted["subnets"])

    def delete(self, account: Account, found: Found) -> None:
        """Delete it, when the database is gone."""
        what = f"database-subnets {found.name}"
        delete(account, what, "rds", "delete_db_subnet_group", DBSubnetGroupName=found.id)


class Parameters(Kind):
    """How a database is set, beside what RDS sets."""

    name, fixed, stage = "database-parameters", frozenset({"family"}), 3

    def listed(self, account: Account) -> list[Found]:
        """List them."""
        names = _tagged(account, "pg")
        listed = account.pages("rds", "describe_db_parameter_groups", "DBParameterGroups") if names else []
        return [
            Found(
                names[one["DBParameterGroupName"]],
                one["DBParameterGroupName"],
                {"family": one["DBParameterGroupFamily"]},
            )
            for one in listed
            if one["DBParameterGroupName"] in names
        ]

    def read(self, account: Account, found: Found) -> None:
        """Ask for what is set."""
        given = {"DBParameterGroupName": found.id, "Source": "user"}
        asked = account.pages("rds", "describe_db_parameters", "Parameters", **given)
        found.state["parameters"] = {
            one["ParameterName"]: one["ParameterValue"] for one in asked if one.get("ParameterValue")
        }

    def judge(self, account: Account, missing: list[Resource]) -> list[str]:
        """Return whether the name is somebody else's."""
        how = ("describe_db_parameter_groups", "DBParameterGroupName", "DBParameterGroup")
        return _strangers(account, missing, *how)

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it; it sets nothing."""
        full = f"{account.cluster}-{name}"
        account.create_or_refuse(
            f"database-parameters {full}",
            "rds",
            "create_db_parameter_group",
            DBParameterGroupName=full,
            DBParameterGroupFamily=wanted["family"],
            Description=f"Database of {account.cluster}",
            Tags=account.tags(name),
        )
        return Found(name, full, {"family": wanted["family"], "parameters": {}})

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Set what shall be set, and set back what somebody else has set."""
        rds, group = account.api("rds"), {"DBParameterGroupName": found.id}
        before, after = found.state["parameters"], wanted["parameters"]
        if strange := sorted(before.keys() - after.keys()):
            given = [{"ParameterName": one, "ApplyMethod": "pending-reboot"} for one in strange]
            rds.reset_db_parameter_group(Parameters=given, **group)
        if missing := {key: value for key, value in after.items() if before.get(key) != value}:
            given = [
                {"ParameterName": key, "ParameterValue": value, "ApplyMethod": "immediate"}
                for key, value in missing.items()
            ]
            rds.modify_db_parameter_group(Parameters=given, **group)

    def delete(self, account: Account, found: Found) -> None:
        """Delete it, when the database is gone."""
        what = f"database-parameters {found.name}"
        delete(account, what, "rds", "delete_db_parameter_group", DBParameterGroupName=found.id)


class Database(Kind):
    """An instance of PostgreSQL, encrypted, whose password AWS makes, keeps and replaces."""

    name, stage = "database", 2
    fixed = frozenset({"major", "subnets", "encrypted"})

    def listed(self, account: Account) -> list[Found]:
        """List those that are, or will be."""
        names = _tagged(account, "db")
        listed = account.pages("rds", "describe_db_instances", "DBInstances") if names else []
        return [
            self._found(names[one["DBInstanceIdentifier"]], one)
            for one in listed
            if one["DBInstanceIdentifier"] in names and one["DBInstanceStatus"] != "deleting"
        ]

    @staticmethod
    def _found(name: str, one: Answer) -> Found:
        status, endpoint = one["DBInstanceStatus"], one.get("Endpoint") or {}
        state = {
            "major": one["EngineVersion"].partition(".")[0],
            "type": one["DBInstanceClass"],
            "multi_az": one["MultiAZ"],
            "backup_days": one["BackupRetentionPeriod"],
            "protected": one["DeletionProtection"],
            "encrypted": one["StorageEncrypted"],
            "public": one["PubliclyAccessible"],
            "subnets": one["DBSubnetGroup"]["DBSubnetGroupName"],
            "groups": [group["VpcSecurityGroupId"] for group in one["VpcSecurityGroups"]],
            "parameters": one["DBParameterGroups"][0]["DBParameterGroupName"],
            "password_of_aws": bool(one.get("MasterUserSecret")),
            "state": "available" if status in SERVES else status,
        }
        attributes = {
            "address": endpoint.get("Address", ""),
            "port": str(endpoint.get("Port", "")),
            "secret": (one.get("MasterUserSecret") or {}).get("SecretArn", ""),
        }
        return Found(name, one["DBInstanceIdentifier"], state, attributes)

    def judge(self, account: Account, missing: list[Resource]) -> list[str]:
        """Return which versions RDS has not, and whether the name is somebody else's."""
        listed = account.pages("rds", "describe_db_engine_versions", "DBEngineVersions", Engine="postgres")
        known = sorted({int(one["EngineVersion"].partition(".")[0]) for one in listed})
        wrong = [
            f"aws_database_version: RDS has no PostgreSQL {one.wanted['major']} in {account.region}; allowed "
            f"are {', '.join(map(str, known))}"
            for one in missing
            if one.wanted["major"] not in map(str, known)
        ]
        how = ("describe_db_instances", "DBInstanceIdentifier", "DBInstance")
        return wrong + _strangers(account, missing, *how)

    @staticmethod
    def _changeable(wanted: Values) -> Values:
        return {
            "DBInstanceClass": wanted["type"],
            "MultiAZ": wanted["multi_az"],
            "BackupRetentionPeriod": wanted["backup_days"],
            "DeletionProtection": wanted["protected"],
            "PubliclyAccessible": wanted["public"],
            "VpcSecurityGroupIds": wanted["groups"],
            "DBParameterGroupName": wanted["parameters"],
            "ManageMasterUserPassword": wanted["password_of_aws"],
        }

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it; AWS says its address later."""
        full = f"{account.cluster}-{name}"
        made = account.create_or_refuse(
            f"database {full}",
            "rds",
            "create_db_instance",
            DBInstanceIdentifier=full,
            Engine="postgres",
            EngineVersion=wanted["major"],
            AllocatedStorage=wanted["disk"],
            StorageType="gp3",
            StorageEncrypted=wanted["encrypted"],
            DBSubnetGroupName=wanted["subnets"],
            DBName="quote",
            MasterUsername="quote_admin",
            CopyTagsToSnapshot=True,
            AutoMinorVersionUpgrade=True,
            Tags=account.tags(name),
            **self._changeable(wanted),
        )["DBInstance"]
        return Found(name, full, dict(wanted), self._found(name, made).attributes)

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Start one that is stopped; change the rest at once, which may restart it."""
        rds, one = account.api("rds"), {"DBInstanceIdentifier": found.id}
        if "state" in fields and found.state["state"] == "stopped":
            rds.start_db_instance(**one)
        if set(fields) - {"state"}:
            before, after = self._changeable(found.state), self._changeable(wanted)
            change = {key: value for key, value in after.items() if before[key] != value}
            rds.modify_db_instance(ApplyImmediately=True, **one, **change)

    def ready(self, account: Account, found: Found) -> None:
        """Wait until it is available, and has its address."""
        given = {"DBInstanceIdentifier": found.id}

        def available() -> bool:
            now = account.api("rds").describe_db_instances(**given)["DBInstances"][0]
            if "failed" in now["DBInstanceStatus"] or "incompatible" in now["DBInstanceStatus"]:
                raise Refused(f"database {found.name} is {now['DBInstanceStatus']}")
            found.attributes = self._found(found.name, now).attributes
            return now["DBInstanceStatus"] in SERVES and bool(found.attributes["address"])

        account.until(f"database {found.name} available", available)

    def delete(self, account: Account, found: Found) -> None:
        """Take its protection away, and delete it; a snapshot stays, where backups stay."""
        rds, one = account.api("rds"), {"DBInstanceIdentifier": found.id}
        when = datetime.now(UTC).strftime("%Y%m%d%H%M%S")
        last: Values = (
            {"FinalDBSnapshotIdentifier": f"{found.id}-{when}", "SkipFinalSnapshot": False}
            if account.keeps_backups
            else {"SkipFinalSnapshot": True}
        )
        for _ in account.tries(f"deleting database {found.name}"):
            try:
                rds.modify_db_instance(DeletionProtection=False, ApplyImmediately=True, **one)
                rds.delete_db_instance(DeleteAutomatedBackups=True, **one, **last)
                break
            except ClientError as error:
                if gone(error):
                    return
                if code(error) != "InvalidDBInstanceState":
                    raise Refused(f"database {found.name} cannot be deleted: {error}") from error
                if self._status(account, found) in {"deleting", ""}:
                    break
        account.until(f"database {found.name} deleted", lambda: not self._status(account, found))

    @staticmethod
    def _status(account: Account, found: Found) -> str:
        try:
            asked = account.api("rds").describe_db_instances(DBInstanceIdentifier=found.id)
            return str(asked["DBInstances"][0]["DBInstanceStatus"])
        except ClientError as error:
            if gone(error):
                return ""
            raise


class Snapshot(Kind):
    """What is left of a database that was deleted; nobody declares one."""

    name, stage = "database-snapshot", 2

    def listed(self, account: Account) -> list[Found]:
        """List them; those that RDS makes each day (`rds:`) go with their database."""
        names = [one for one in _tagged(account, "snapshot") if not one.startswith("rds:")]
        return [Found(one, one, {}) for one in sorted(names)]

    def delete(self, account: Account, found: Found) -> None:
        """Delete it."""
        what = f"database-snapshot {found.name}"
        delete(account, what, "rds", "delete_db_snapshot", DBSnapshotIdentifier=found.id)
