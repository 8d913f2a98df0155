"""Quotas of the account: what a design needs beside what is there, before anything is made."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from botocore.exceptions import ClientError

from quote_platform.aws.account import DENIED, Account, Answer, code
from quote_platform.aws.resource import Ref, Resource

# Families of machines that count together: https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
STANDARD = re.compile(r"(a|c|d|h|i|im|is|m|r|t|z)\d")
NONE = "NoSuchResourceException"
# Without the right to ask, or where AWS does not say, nothing is refused.
UNKNOWN = {*DENIED, NONE}


@dataclass(frozen=True)
class Quota:
    """A quota of things of one kind. Both functions count by where it is counted, a zone or nothing."""

    kind: str
    service: str
    code: str
    what: str
    used: Callable[[Account], Counter[str]]
    needed: Callable[[Account, list[Resource]], Counter[str]]


def _count(service: str, operation: str, key: str, **only: str) -> Callable[[Account], Counter[str]]:
    def used(account: Account) -> Counter[str]:
        listed = account.pages(service, operation, key)
        return Counter("" for one in listed if all(one[name] == value for name, value in only.items()))

    return used


def _each(account: Account, missing: list[Resource]) -> Counter[str]:
    return Counter("" for _ in missing)


def _gateways(account: Account) -> Counter[str]:
    zones = {
        one["SubnetId"]: one["AvailabilityZone"]
        for one in account.pages("ec2", "describe_subnets", "Subnets")
    }
    listed = account.pages("ec2", "describe_nat_gateways", "NatGateways")
    return Counter(
        zones.get(one["SubnetId"], "") for one in listed if one["State"] in {"pending", "available"}
    )


def _zones(account: Account, missing: list[Resource]) -> Counter[str]:
    subnets = [one.wanted["subnet"] for one in missing]
    return Counter(f"{account.region}{one.name[-1]}" for one in subnets if isinstance(one, Ref))


def _cpus(account: Account, types: Iterable[str]) -> Counter[str]:
    counted = Counter(one for one in types if STANDARD.match(one))
    found = (
        account.pages("ec2", "describe_instance_types", "InstanceTypes", InstanceTypes=sorted(counted))
        if counted
        else []
    )
    cpus = {one["InstanceType"]: one["VCpuInfo"]["DefaultVCpus"] for one in found}
    return Counter({"": sum(cpus[kind] * number for kind, number in counted.items())})


def _machines(account: Account) -> Counter[str]:
    running = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    groups = account.pages("ec2", "describe_instances", "Reservations", Filters=running)
    machines: list[Answer] = [one for group in groups for one in group["Instances"]]
    return _cpus(account, [one["InstanceType"] for one in machines if not one.get("InstanceLifecycle")])


def _starting(account: Account, missing: list[Resource]) -> Counter[str]:
    return _cpus(account, [one.wanted["type"] for one in missing])


QUOTAS = (
    Quota("vpc", "vpc", "L-F678F1CE", "VPCs", _count("ec2", "describe_vpcs", "Vpcs"), _each),
    Quota(
        "internet-gateway",
        "vpc",
        "L-A4707A72",
        "internet gateways",
        _count("ec2", "describe_internet_gateways", "InternetGateways"),
        _each,
    ),
    Quota(
        "address",
        "ec2",
        "L-0263D0A3",
        "Elastic IP addresses",
        _count("ec2", "describe_addresses", "Addresses", Domain="vpc"),
        _each,
    ),
    Quota("nat-gateway", "vpc", "L-FE5A380F", "NAT gateways of a zone", _gateways, _zones),
    Quota("machine", "ec2", "L-1216C47A", "vCPUs of standard machines", _machines, _starting),
    Quota(
        "load-balancer",
        "elasticloadbalancing",
        "L-69A177A2",
        "network load balancers",
        _count("elbv2", "describe_load_balancers", "LoadBalancers", Type="network"),
        _each,
    ),
    Quota(
        "database",
        "rds",
        "L-7B6409FD",
        "databases",
        _count("rds", "describe_db_instances", "DBInstances"),
        _each,
    ),
)


def judge(account: Account, missing: list[Resource]) -> tuple[list[str], list[str]]:
    """Return which quotas are too small, and which could not be asked for."""
    wrong, unknown = [], []
    for quota in QUOTAS:
        more = [one for one in missing if one.kind == quota.kind]
        if not more:
            continue
        try:
            allowed = _value(account, quota)
        except ClientError as error:
            if code(error) not in UNKNOWN:
                raise
            unknown.append(f"{quota.service} {quota.code} ({quota.what}): {code(error)}")
            continue
        used = quota.used(account)
        for where, number in quota.needed(account, more).items():
            least = used[where] + number
            if least > allowed:
                zone = f" {where}" if where else ""
                how = f"--service-code {quota.service} --quota-code {quota.code} --desired-value {least}"
                wrong.append(
                    f"quota {quota.service} {quota.code}, {quota.what}{zone} in {account.region}: "
                    f"{allowed:g}, of which {used[where]} are used, and {number} more are needed; ask AWS "
                    f"for {least} or more (`aws service-quotas request-service-quota-increase {how}`), or "
                    "choose less"
                )
    return wrong, [f"quotas that were not compared: {', '.join(unknown)}"] if unknown else []


def _value(account: Account, quota: Quota) -> float:
    """Return the account's value, or AWS' own where the account has none."""
    api, given = account.api("service-quotas"), {"ServiceCode": quota.service, "QuotaCode": quota.code}
    try:
        return float(api.get_service_quota(**given)["Quota"]["Value"])
    except ClientError as error:
        if code(error) != NONE:
            raise
    return float(api.get_aws_default_service_quota(**given)["Quota"]["Value"])
