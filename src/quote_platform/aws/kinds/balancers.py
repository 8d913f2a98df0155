"""Load balancers (NLB), their listeners and target groups."""

from __future__ import annotations

from typing import Any

from quote_platform.aws.account import CLUSTER, NAME, Account, Answer, Refused
from quote_platform.aws.kinds.network import delete
from quote_platform.aws.resource import Found, Kind, Values


def by_tags(account: Account) -> dict[str, dict[str, str]]:
    """Return the tags of all that has the cluster's, by ARN: one call for all services."""

    def ask() -> dict[str, dict[str, str]]:
        listed = account.pages(
            "resourcegroupstaggingapi",
            "get_resources",
            "ResourceTagMappingList",
            TagFilters=[{"Key": CLUSTER, "Values": [account.cluster]}],
            ResourcesPerPage=100,
        )
        return {one["ResourceARN"]: {tag["Key"]: tag["Value"] for tag in one["Tags"]} for one in listed}

    return account.remembered("tags", ask)


def _ours(account: Account, listed: list[Answer], arn: str, name: str) -> list[tuple[str, Answer]]:
    """Return those with our tag, by our names; what the tagging API does not show yet is asked itself."""
    likely = {one[arn]: one for one in listed if one[name].startswith(f"{account.cluster}-")}
    tags = dict(by_tags(account)) if likely else {}
    if unseen := sorted(likely.keys() - tags.keys()):
        for one in account.api("elbv2").describe_tags(ResourceArns=unseen[:20])["TagDescriptions"]:
            tags[one["ResourceArn"]] = {tag["Key"]: tag["Value"] for tag in one["Tags"]}
    return [
        (tags[one][NAME], of)
        for one, of in likely.items()
        if tags.get(one, {}).get(CLUSTER) == account.cluster
    ]


def _create(account: Account, operation: str, name: str, **given: Any) -> Answer:
    full = f"{account.cluster}-{name}"
    return account.create_or_refuse(full, "elbv2", operation, Name=full, Tags=account.tags(name), **given)


class TargetGroup(Kind):
    """Machines, or addresses of them, behind a listener; and how they are found healthy."""

    name, stage = "target-group", 3
    fixed = frozenset({"vpc", "port", "by"})

    def listed(self, account: Account) -> list[Found]:
        """List them."""
        listed = account.pages("elbv2", "describe_target_groups", "TargetGroups")
        return [
            Found(
                name,
                one["TargetGroupArn"],
                {
                    "vpc": one.get("VpcId", ""),
                    "port": one.get("Port"),
                    "by": one.get("TargetType", "instance"),
                    "health": self._health_of(one),
                },
            )
            for name, one in _ours(account, listed, "TargetGroupArn", "TargetGroupName")
        ]

    @staticmethod
    def _health_of(one: Answer) -> str:
        """Return the protocol, and the path of one that has paths."""
        protocol = str(one["HealthCheckProtocol"])
        path = one.get("HealthCheckPath") if protocol.startswith("HTTP") else ""
        return f"{protocol} {path or ''}".strip()

    def read(self, account: Account, found: Found) -> None:
        """Ask who is in it."""
        asked = account.api("elbv2").describe_target_health(TargetGroupArn=found.id)
        found.state["targets"] = [
            one["Target"]["Id"]
            for one in asked["TargetHealthDescriptions"]
            if one["TargetHealth"]["State"] != "draining"
        ]

    @staticmethod
    def _health(wanted: Values) -> Values:
        protocol, _, path = wanted["health"].partition(" ")
        return {"HealthCheckProtocol": protocol} | ({"HealthCheckPath": path} if path else {})

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it, empty."""
        made = _create(
            account,
            "create_target_group",
            name,
            Protocol="TCP",
            Port=wanted["port"],
            VpcId=wanted["vpc"],
            TargetType=wanted["by"],
            **self._health(wanted),
        )["TargetGroups"][0]
        return Found(name, made["TargetGroupArn"], wanted | {"targets": []})

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Add and remove targets; change how health is asked for."""
        elb, group = account.api("elbv2"), {"TargetGroupArn": found.id}
        if "health" in fields:
            elb.modify_target_group(**group, **self._health(wanted))
        before, after = set(found.state["targets"]), set(wanted["targets"])
        if missing := sorted(after - before):
            elb.register_targets(Targets=[{"Id": one} for one in missing], **group)
        if strange := sorted(before - after):
            elb.deregister_targets(Targets=[{"Id": one} for one in strange], **group)

    def delete(self, account: Account, found: Found) -> None:
        """Delete it."""
        what = f"target-group {found.name}"
        delete(account, what, "elbv2", "delete_target_group", TargetGroupArn=found.id)

    def size(self, wanted: Values) -> int:
        """A group and each target."""
        return 1 + len(wanted["targets"])


class LoadBalancer(Kind):
    """A balancer with its listeners, each `PORT to TARGET GROUP`."""

    name, fixed, stage = "load-balancer", frozenset({"scheme"}), 2

    def listed(self, account: Account) -> list[Found]:
        """List them."""
        listed = account.pages("elbv2", "describe_load_balancers", "LoadBalancers")
        return [
            self._found(name, one)
            for name, one in _ours(account, listed, "LoadBalancerArn", "LoadBalancerName")
        ]

    @staticmethod
    def _found(name: str, one: Answer) -> Found:
        state = {
            "scheme": one["Scheme"],
            "subnets": [zone["SubnetId"] for zone in one["AvailabilityZones"]],
            "groups": list(one.get("SecurityGroups") or []),
            "state": one["State"]["Code"].removesuffix("_impaired"),
        }
        attributes = {
            "address": one["DNSName"].lower(),
            "zone": one.get("CanonicalHostedZoneId", ""),
        }
        return Found(name, one["LoadBalancerArn"], state, attributes)

    def read(self, account: Account, found: Found) -> None:
        """Ask for the listeners."""
        listeners = account.pages("elbv2", "describe_listeners", "Listeners", LoadBalancerArn=found.id)
        found.raw = {str(one["Port"]): one["ListenerArn"] for one in listeners}
        found.state["listeners"] = [
            f"{one['Port']} to {one['DefaultActions'][0].get('TargetGroupArn')}" for one in listeners
        ]

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it, without listeners."""
        made = _create(
            account,
            "create_load_balancer",
            name,
            Type="network",
            IpAddressType="ipv4",
            Scheme=wanted["scheme"],
            Subnets=wanted["subnets"],
            SecurityGroups=wanted["groups"],
        )["LoadBalancers"][0]
        found = self._found(name, made)
        found.state = wanted | {"listeners": []}
        return found

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Change subnets, groups and listeners."""
        elb, balancer = account.api("elbv2"), {"LoadBalancerArn": found.id}
        if "subnets" in fields:
            elb.set_subnets(Subnets=wanted["subnets"], **balancer)
        if "groups" in fields:
            elb.set_security_groups(SecurityGroups=wanted["groups"], **balancer)
        before, after = (dict(one.split(" to ") for one in of["listeners"]) for of in (found.state, wanted))
        for port, target in after.items():
            actions = [{"Type": "forward", "TargetGroupArn": target}]
            if port not in before:
                elb.create_listener(
                    Protocol="TCP",
                    Port=int(port),
                    DefaultActions=actions,
                    Tags=account.tags(f"{found.name}-{port}"),
                    **balancer,
                )
            elif before[port] != target:
                elb.modify_listener(ListenerArn=found.raw[port], DefaultActions=actions)
        for port in before.keys() - after.keys():
            elb.delete_listener(ListenerArn=found.raw[port])

    def ready(self, account: Account, found: Found) -> None:
        """Wait until it is active."""

        def active() -> bool:
            listed = account.remembered(
                "poll load balancers",
                lambda: account.pages("elbv2", "describe_load_balancers", "LoadBalancers"),
                account.pause / 2,
            )
            state = next((one["State"] for one in listed if one["LoadBalancerArn"] == found.id), {"Code": ""})
            if state["Code"] == "failed":
                raise Refused(f"load-balancer {found.name} has failed: {state.get('Reason')}")
            return bool(state["Code"] in {"active", "active_impaired"})

        account.until(f"load-balancer {found.name} active", active)

    def delete(self, account: Account, found: Found) -> None:
        """Delete it with its listeners; its interfaces are released later."""
        what = f"load-balancer {found.name}"
        delete(account, what, "elbv2", "delete_load_balancer", LoadBalancerArn=found.id)

    def size(self, wanted: Values) -> int:
        """A balancer and each listener."""
        return 1 + len(wanted["listeners"])
