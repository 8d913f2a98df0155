"""Networks: VPC, subnets, gateways, routes, endpoints, security groups and their rules."""

from __future__ import annotations

import re
from typing import Any

from botocore.exceptions import ClientError

from quote_platform.aws.account import NAME, Account, Answer, Doubtful, Refused, code, tag
from quote_platform.aws.resource import Found, Kind, Resource, Values


def tagged(account: Account, kind: str, name: str) -> list[Answer]:
    """Return tags as a call of EC2 takes them that makes something."""
    return [{"ResourceType": kind, "Tags": account.tags(name)}]


def gone(error: ClientError) -> bool:
    """Tell whether what was to be deleted is not there."""
    return "NotFound" in code(error) or code(error) in {"NoSuchEntity", "NoSuchBucket", "Gateway.NotAttached"}


def delete(account: Account, what: str, service: str, operation: str, **given: Any) -> None:
    """Delete something; what still depends on it is on its way, so wait for that."""
    for _ in account.tries(f"deleting {what}"):
        try:
            getattr(account.api(service), operation)(**given)
            return
        except ClientError as error:
            if gone(error):
                return
            if code(error) not in {
                "DependencyViolation",
                "ResourceInUse",
                "InvalidIPAddress.InUse",
                "DeleteConflict",
                "InvalidDBSubnetGroupStateFault",
                "InvalidDBParameterGroupState",
            }:
                raise Refused(f"{what} cannot be deleted: {error}") from error


class Vpc(Kind):
    """A network of its own."""

    name, fixed, stage = "vpc", frozenset({"cidr"}), 6

    def listed(self, account: Account) -> list[Found]:
        """List them."""
        return [
            Found(tag(one, NAME), one["VpcId"], {"cidr": one["CidrBlock"]})
            for one in account.ours("describe_vpcs", "Vpcs")
        ]

    def read(self, account: Account, found: Found) -> None:
        """Ask whether machines get names, without which names of endpoints are not resolved."""
        asked = account.api("ec2").describe_vpc_attribute(VpcId=found.id, Attribute="enableDnsHostnames")
        found.state["dns_hostnames"] = asked["EnableDnsHostnames"]["Value"]

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it."""
        made = account.create(
            "ec2", "create_vpc", CidrBlock=wanted["cidr"], TagSpecifications=tagged(account, "vpc", name)
        )["Vpc"]
        return Found(name, made["VpcId"], {"cidr": wanted["cidr"], "dns_hostnames": False})

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Switch names on or off."""
        account.api("ec2").modify_vpc_attribute(
            VpcId=found.id, EnableDnsHostnames={"Value": wanted["dns_hostnames"]}
        )

    def delete(self, account: Account, found: Found) -> None:
        """Delete it."""
        delete(account, f"vpc {found.name}", "ec2", "delete_vpc", VpcId=found.id)


class Subnet(Kind):
    """A part of the network in one zone."""

    name, fixed, stage = "subnet", frozenset({"vpc", "cidr", "zone"}), 4

    def listed(self, account: Account) -> list[Found]:
        """List them."""
        return [
            Found(
                tag(one, NAME),
                one["SubnetId"],
                {"vpc": one["VpcId"], "cidr": one["CidrBlock"], "zone": one["AvailabilityZone"]},
            )
            for one in account.ours("describe_subnets", "Subnets")
        ]

    def judge(self, account: Account, missing: list[Resource]) -> list[str]:
        """Return which zones the region has not."""
        wanted = sorted({one.wanted["zone"] for one in missing})
        known = {
            one["ZoneName"]
            for one in account.api("ec2").describe_availability_zones()["AvailabilityZones"]
            if one["State"] == "available"
        }
        return [
            f"aws_network_zones: the region {account.region} has no zone {zone}; allowed are "
            f"{', '.join(sorted(known))}"
            for zone in wanted
            if zone not in known
        ]

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it."""
        made = account.create_named(
            "ec2",
            "create_subnet",
            VpcId=wanted["vpc"],
            CidrBlock=wanted["cidr"],
            AvailabilityZone=wanted["zone"],
            TagSpecifications=tagged(account, "subnet", name),
        )["Subnet"]
        return Found(name, made["SubnetId"], dict(wanted))

    def delete(self, account: Account, found: Found) -> None:
        """Delete it, when the interfaces of what was in it are released."""
        delete(account, f"subnet {found.name}", "ec2", "delete_subnet", SubnetId=found.id)


class InternetGateway(Kind):
    """The way to the internet and from it."""

    name, stage = "internet-gateway", 4

    def listed(self, account: Account) -> list[Found]:
        """List them."""
        return [
            Found(
                tag(one, NAME),
                one["InternetGatewayId"],
                {"vpc": next((to["VpcId"] for to in one.get("Attachments", [])), "")},
            )
            for one in account.ours("describe_internet_gateways", "InternetGateways")
        ]

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it; it is attached to nothing."""
        made = account.create(
            "ec2", "create_internet_gateway", TagSpecifications=tagged(account, "internet-gateway", name)
        )["InternetGateway"]
        return Found(name, made["InternetGatewayId"], {"vpc": ""})

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Attach it."""
        account.api("ec2").attach_internet_gateway(InternetGatewayId=found.id, VpcId=wanted["vpc"])

    def delete(self, account: Account, found: Found) -> None:
        """Detach it, which waits until no public address uses it, and delete it."""
        what, given = f"internet-gateway {found.name}", {"InternetGatewayId": found.id}
        if found.state["vpc"]:
            delete(account, what, "ec2", "detach_internet_gateway", VpcId=found.state["vpc"], **given)
        delete(account, what, "ec2", "delete_internet_gateway", **given)


class Address(Kind):
    """A public address that stays (Elastic IP)."""

    name, stage = "address", 3

    def listed(self, account: Account) -> list[Found]:
        """List them."""
        return [
            Found(tag(one, NAME), one["AllocationId"], {}, {"address": one["PublicIp"]})
            for one in account.ours("describe_addresses", "Addresses")
        ]

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it."""
        made = account.create(
            "ec2", "allocate_address", Domain="vpc", TagSpecifications=tagged(account, "elastic-ip", name)
        )
        return Found(name, made["AllocationId"], {}, {"address": made["PublicIp"]})

    def delete(self, account: Account, found: Found) -> None:
        """Give it back."""
        delete(account, f"address {found.name}", "ec2", "release_address", AllocationId=found.id)


class NatGateway(Kind):
    """By which machines without public address reach the internet."""

    name, fixed, stage = "nat-gateway", frozenset({"subnet", "address"}), 2

    def listed(self, account: Account) -> list[Found]:
        """List those that are, or will be."""
        return [
            Found(
                tag(one, NAME),
                one["NatGatewayId"],
                {
                    "subnet": one["SubnetId"],
                    "address": one["NatGatewayAddresses"][0].get("AllocationId", ""),
                    "state": one["State"],
                },
            )
            for one in self._all(account)
            if one["State"] in {"pending", "available"}
        ]

    @staticmethod
    def _all(account: Account) -> list[Answer]:
        filters = [{"Name": "tag:quote-platform/cluster", "Values": [account.cluster]}]
        return account.pages("ec2", "describe_nat_gateways", "NatGateways", Filter=filters)

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it."""
        made = account.create(
            "ec2",
            "create_nat_gateway",
            SubnetId=wanted["subnet"],
            AllocationId=wanted["address"],
            ClientToken=account.token("nat-gateway", name, wanted["address"]),
            TagSpecifications=tagged(account, "natgateway", name),
        )["NatGateway"]
        return Found(name, made["NatGatewayId"], dict(wanted))

    def _state(self, account: Account, found: Found) -> Answer:
        known = account.remembered("poll nat-gateways", lambda: self._all(account), account.pause / 2)
        return next((one for one in known if one["NatGatewayId"] == found.id), {"State": ""})

    def ready(self, account: Account, found: Found) -> None:
        """Wait until it is available."""

        def available() -> bool:
            now = self._state(account, found)
            if now["State"] == "failed":
                raise Refused(f"nat-gateway {found.name} has failed: {now.get('FailureMessage')}")
            return bool(now["State"] == "available")

        account.until(f"nat-gateway {found.name} available", available)

    def delete(self, account: Account, found: Found) -> None:
        """Delete it, and wait until its address is free."""
        account.api("ec2").delete_nat_gateway(NatGatewayId=found.id)
        account.until(
            f"nat-gateway {found.name} deleted",
            lambda: self._state(account, found)["State"] in {"deleted", "failed", ""},
        )


class RouteTable(Kind):
    """Where packets of subnets go: routes are `CIDR via ID`."""

    name, fixed, stage = "route-table", frozenset({"vpc"}), 5

    def listed(self, account: Account) -> list[Found]:
        """List them."""
        return [self._found(one) for one in account.ours("describe_route_tables", "RouteTables")]

    @staticmethod
    def _found(one: Answer) -> Found:
        # Those of the network itself and of endpoints are not ours.
        routes = [
            f"{route.get('DestinationCidrBlock')} via {route.get('GatewayId') or route.get('NatGatewayId')}"
            for route in one["Routes"]
            if route.get("GatewayId") != "local"
            and not str(route.get("GatewayId")).startswith("vpce-")
            and route.get("DestinationCidrBlock")
        ]
        inside = {
            to["SubnetId"]: to["RouteTableAssociationId"] for to in one["Associations"] if "SubnetId" in to
        }
        state = {"vpc": one["VpcId"], "routes": routes, "subnets": list(inside)}
        return Found(tag(one, NAME), one["RouteTableId"], state, raw=inside)

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it, empty."""
        made = account.create(
            "ec2",
            "create_route_table",
            VpcId=wanted["vpc"],
            TagSpecifications=tagged(account, "route-table", name),
        )["RouteTable"]
        return Found(name, made["RouteTableId"], {"vpc": wanted["vpc"], "routes": [], "subnets": []})

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Add, replace and delete routes; attach and detach subnets."""
        ec2, table = account.api("ec2"), {"RouteTableId": found.id}
        before, after = (dict(map(str.split, _bare(one["routes"]))) for one in (found.state, wanted))
        for cidr, target in after.items():
            if before.get(cidr) != target:
                kind = "NatGatewayId" if target.startswith("nat-") else "GatewayId"
                change = ec2.replace_route if cidr in before else ec2.create_route
                change(DestinationCidrBlock=cidr, **{kind: target}, **table)
        for cidr in before.keys() - after.keys():
            ec2.delete_route(DestinationCidrBlock=cidr, **table)
        for subnet in set(wanted["subnets"]) - set(found.state["subnets"]):
            ec2.associate_route_table(SubnetId=subnet, **table)
        for subnet in set(found.state["subnets"]) - set(wanted["subnets"]):
            ec2.disassociate_route_table(AssociationId=found.raw[subnet])

    def delete(self, account: Account, found: Found) -> None:
        """Delete it, when its subnets are gone."""
        delete(account, f"route-table {found.name}", "ec2", "delete_route_table", RouteTableId=found.id)

    def size(self, wanted: Values) -> int:
        """A table, its routes, its subnets."""
        return 1 + len(wanted["routes"]) + len(wanted["subnets"])


def _bare(routes: list[str]) -> list[str]:
    return [route.replace(" via ", " ") for route in routes]


class Endpoint(Kind):
    """A way to a service of AWS that does not leave the network."""

    name, fixed, stage = "endpoint", frozenset({"vpc", "service"}), 2
    PARTS = (("routes", "RouteTableIds"), ("subnets", "SubnetIds"), ("groups", "SecurityGroupIds"))

    def listed(self, account: Account) -> list[Found]:
        """List those that are, or will be."""
        return [
            Found(
                tag(one, NAME),
                one["VpcEndpointId"],
                {
                    "vpc": one["VpcId"],
                    "service": one["ServiceName"],
                    "routes": one.get("RouteTableIds") or [],
                    "subnets": one.get("SubnetIds") or [],
                    "groups": [group["GroupId"] for group in one.get("Groups") or []],
                },
            )
            for one in account.ours("describe_vpc_endpoints", "VpcEndpoints")
            if one["State"].lower() not in {"deleting", "deleted", "failed", "rejected", "expired"}
        ]

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it: of the network's routes, or with an address in subnets."""
        parts = {argument: wanted[field] for field, argument in self.PARTS if wanted[field]}
        made = account.create(
            "ec2",
            "create_vpc_endpoint",
            VpcEndpointType="Interface" if wanted["subnets"] else "Gateway",
            VpcId=wanted["vpc"],
            ServiceName=wanted["service"],
            ClientToken=account.token("endpoint", name, wanted["vpc"]),
            TagSpecifications=tagged(account, "vpc-endpoint", name),
            **parts,
            **({"PrivateDnsEnabled": True} if wanted["subnets"] else {}),
        )["VpcEndpoint"]
        return Found(name, made["VpcEndpointId"], dict(wanted))

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Add and remove what it serves."""
        change: Values = {}
        for field, argument in self.PARTS:
            before, after = set(found.state[field]), set(wanted[field])
            if after - before:
                change[f"Add{argument}"] = sorted(after - before)
            if before - after:
                change[f"Remove{argument}"] = sorted(before - after)
        account.api("ec2").modify_vpc_endpoint(VpcEndpointId=found.id, **change)

    def delete(self, account: Account, found: Found) -> None:
        """Delete it; its interfaces are released later."""
        account.api("ec2").delete_vpc_endpoints(VpcEndpointIds=[found.id])


class SecurityGroup(Kind):
    """Whom machines let in; its rules are a thing of their own, since groups name one another."""

    name, fixed, stage = "security-group", frozenset({"vpc", "description"}), 5

    def listed(self, account: Account) -> list[Found]:
        """List them."""
        return [
            Found(tag(one, NAME), one["GroupId"], {"vpc": one["VpcId"], "description": one["Description"]})
            for one in _groups(account)
        ]

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Make it; it lets nobody in, and all out."""
        try:
            made = account.create_named(
                "ec2",
                "create_security_group",
                GroupName=f"{account.cluster}-{name}",
                Description=wanted["description"],
                VpcId=wanted["vpc"],
                TagSpecifications=tagged(account, "security-group", name),
            )
        except Doubtful:
            account.forget()
            raise
        return Found(name, made["GroupId"], dict(wanted))

    def delete(self, account: Account, found: Found) -> None:
        """Delete it, when nothing is in it and nobody names it."""
        delete(account, f"security-group {found.name}", "ec2", "delete_security_group", GroupId=found.id)


def _groups(account: Account) -> list[Answer]:
    return account.remembered(
        "security groups", lambda: account.ours("describe_security_groups", "SecurityGroups")
    )


# `tcp 80-81 from 10.0.0.0/8`, `icmp from sg-1`, `all to 0.0.0.0/0`.
RULE = re.compile(r"(?P<protocol>\w+)(?: (?P<low>\d+)(?:-(?P<high>\d+))?)? (?:from|to) (?P<other>\S+)")
ANY = "all to 0.0.0.0/0"


class Rules(Kind):
    """The rules of a security group, all of them: what nobody has declared is drift."""

    name, stage = "rules", 4

    def listed(self, account: Account) -> list[Found]:
        """List them, with the groups."""
        return [
            Found(
                tag(one, NAME),
                one["GroupId"],
                {
                    "group": one["GroupId"],
                    "ingress": self._texts(one["IpPermissions"], "from"),
                    "egress": self._texts(one["IpPermissionsEgress"], "to"),
                },
            )
            for one in _groups(account)
        ]

    @staticmethod
    def _texts(permissions: list[Answer], word: str) -> list[str]:
        texts = []
        for one in permissions:
            head = "all" if one["IpProtocol"] == "-1" else one["IpProtocol"]
            low, high = one.get("FromPort", -1), one.get("ToPort", -1)
            if low is not None and low >= 0:
                head += f" {low}" if low == high else f" {low}-{high}"
            others = [pair["GroupId"] for pair in one.get("UserIdGroupPairs", [])]
            others += [net["CidrIp"] for net in one.get("IpRanges", [])]
            others += [net["CidrIpv6"] for net in one.get("Ipv6Ranges", [])]
            others += [net["PrefixListId"] for net in one.get("PrefixListIds", [])]
            texts += [f"{head} {word} {other}" for other in others]
        return texts

    @staticmethod
    def permission(text: str) -> Answer:
        """Return a rule as EC2 has it."""
        found = RULE.fullmatch(text)
        if not found:
            raise Refused(f"{text!r} is no rule of a security group")
        protocol, low, high, other = found["protocol"], found["low"], found["high"], found["other"]
        permission: Answer = {"IpProtocol": "-1" if protocol == "all" else protocol}
        if low:
            permission |= {"FromPort": int(low), "ToPort": int(high or low)}
        elif protocol != "all":
            permission |= {"FromPort": -1, "ToPort": -1}
        if other.startswith("sg-"):
            permission["UserIdGroupPairs"] = [{"GroupId": other}]
        elif other.startswith("pl-"):
            permission["PrefixListIds"] = [{"PrefixListId": other}]
        elif ":" in other:
            permission["Ipv6Ranges"] = [{"CidrIpv6": other}]
        else:
            permission["IpRanges"] = [{"CidrIp": other}]
        return permission

    def create(self, account: Account, name: str, wanted: Values) -> Found:
        """Take those of a group that was just made."""
        return Found(name, wanted["group"], {"group": wanted["group"], "ingress": [], "egress": [ANY]})

    def update(self, account: Account, found: Found, wanted: Values, fields: list[str]) -> None:
        """Add what is missing before taking away what is too much."""
        ec2, group = account.api("ec2"), {"GroupId": found.id}
        for field in fields:
            before, after = set(found.state[field]), set(wanted[field])
            if missing := sorted(after - before):
                allow = getattr(ec2, f"authorize_security_group_{field}")
                allow(IpPermissions=[self.permission(text) for text in missing], **group)
            if strange := sorted(before - after):
                revoke = getattr(ec2, f"revoke_security_group_{field}")
                revoke(IpPermissions=[self.permission(text) for text in strange], **group)

    def delete(self, account: Account, found: Found) -> None:
        """Take away those that let in, so that groups name one another no longer."""
        if rules := found.state["ingress"]:
            account.api("ec2").revoke_security_group_ingress(
                GroupId=found.id, IpPermissions=[self.permission(text) for text in rules]
            )

    def size(self, wanted: Values) -> int:
        """Each rule is one."""
        return len(wanted["ingress"]) + len(wanted["egress"])
