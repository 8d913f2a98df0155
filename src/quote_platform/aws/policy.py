"""The least policy of IAM for whoever runs the playbooks: their calls, on the cluster's own things."""

from __future__ import annotations

from typing import Any

from quote_platform.aws.account import CLUSTER
from quote_platform.aws.design import Design
from quote_platform.aws.kinds.names import mark

Statement = dict[str, Any]

# What is asked for in every design: it cannot be narrowed to things, or is asked before they are known.
READS = (
    *("ec2:DescribeAddresses", "ec2:DescribeAvailabilityZones", "ec2:DescribeIamInstanceProfileAssociations"),
    *("ec2:DescribeInstanceTypeOfferings", "ec2:DescribeInstanceTypes", "ec2:DescribeInstances"),
    *("ec2:DescribeInternetGateways", "ec2:DescribeNatGateways", "ec2:DescribeRouteTables"),
    *("ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcAttribute"),
    *("ec2:DescribeVpcEndpoints", "ec2:DescribeVpcs"),
    *("elasticloadbalancing:DescribeListeners", "elasticloadbalancing:DescribeLoadBalancers"),
    *("elasticloadbalancing:DescribeTags", "elasticloadbalancing:DescribeTargetGroups"),
    "elasticloadbalancing:DescribeTargetHealth",
    *("iam:ListInstanceProfiles", "iam:ListRoles", "s3:ListAllMyBuckets", "tag:GetResources"),
    *("servicequotas:GetAWSDefaultServiceQuota", "servicequotas:GetServiceQuota"),
    # Before all is deleted, whatever was chosen.
    *("route53:ListHealthChecks", "route53:ListHostedZones", "route53:ListResourceRecordSets"),
    "budgets:ViewBudget",
)
# And by kinds of things that are chosen.
READS_OF = {
    "key": ("kms:ListAliases", "kms:ListKeys"),
    "repository": ("ecr:DescribeRepositories",),
    "database": (
        *("rds:DescribeDBEngineVersions", "rds:DescribeDBInstances", "rds:DescribeDBParameterGroups"),
        *("rds:DescribeDBParameters", "rds:DescribeDBSubnetGroups", "rds:ListTagsForResource"),
    ),
}
# What EC2 makes, by kinds.
MAKES = {
    "vpc": "CreateVpc",
    "subnet": "CreateSubnet",
    "internet-gateway": "CreateInternetGateway",
    "address": "AllocateAddress",
    "nat-gateway": "CreateNatGateway",
    "route-table": "CreateRouteTable",
    "endpoint": "CreateVpcEndpoint",
    "security-group": "CreateSecurityGroup",
    "machine": "RunInstances",
}
# What it changes and deletes. What is made in something that is ours has a right there, too.
CHANGES = {
    "vpc": ("ModifyVpcAttribute", "DeleteVpc"),
    "subnet": ("CreateSubnet", "DeleteSubnet"),
    "internet-gateway": ("AttachInternetGateway", "DetachInternetGateway", "DeleteInternetGateway"),
    "address": ("ReleaseAddress",),
    "nat-gateway": ("CreateNatGateway", "DeleteNatGateway"),
    "route-table": (
        *("CreateRouteTable", "DeleteRouteTable", "CreateRoute", "ReplaceRoute", "DeleteRoute"),
        *("AssociateRouteTable", "DisassociateRouteTable"),
    ),
    "endpoint": ("CreateVpcEndpoint", "ModifyVpcEndpoint", "DeleteVpcEndpoints"),
    "security-group": (
        *("CreateSecurityGroup", "DeleteSecurityGroup"),
        *("AuthorizeSecurityGroupIngress", "AuthorizeSecurityGroupEgress"),
        *("RevokeSecurityGroupIngress", "RevokeSecurityGroupEgress"),
    ),
    "machine": (
        *("RunInstances", "StartInstances", "TerminateInstances", "CreateTags"),
        *("ModifyInstanceAttribute", "ModifyInstanceMetadataOptions", "AssociateIamInstanceProfile"),
        *("DisassociateIamInstanceProfile", "ReplaceIamInstanceProfileAssociation"),
    ),
}
BALANCERS = (
    *("CreateListener", "SetSubnets", "SetSecurityGroups"),
    *("DeleteLoadBalancer", "ModifyTargetGroup", "DeleteTargetGroup", "RegisterTargets", "DeregisterTargets"),
)
ROLES = (
    *("CreateRole", "DeleteRole", "TagRole", "GetRolePolicy", "PutRolePolicy", "DeleteRolePolicy"),
    *("CreateInstanceProfile", "DeleteInstanceProfile", "TagInstanceProfile"),
    *("AddRoleToInstanceProfile", "RemoveRoleFromInstanceProfile"),
)
BUCKETS = (
    *("CreateBucket", "DeleteBucket", "ListBucket", "ListBucketVersions"),
    *("GetBucketPublicAccessBlock", "PutBucketPublicAccessBlock", "GetBucketVersioning"),
    *("PutBucketVersioning", "GetBucketPolicy", "PutBucketPolicy", "GetLifecycleConfiguration"),
    *("PutLifecycleConfiguration", "GetBucketTagging", "PutBucketTagging"),
)
KEYS = (
    *("DescribeKey", "EnableKey", "EnableKeyRotation", "GetKeyRotationStatus", "ListResourceTags"),
    *("ScheduleKeyDeletion", "CancelKeyDeletion", "CreateAlias", "DeleteAlias"),
)
REPOSITORIES = (
    *("CreateRepository", "DeleteRepository", "TagResource", "ListTagsForResource", "GetLifecyclePolicy"),
    *("PutLifecyclePolicy", "PutImageTagMutability", "PutImageScanningConfiguration"),
)
DATABASES = (
    *("AddTagsToResource", "CreateDBInstance", "ModifyDBInstance", "StartDBInstance", "DeleteDBInstance"),
    *("CreateDBSubnetGroup", "ModifyDBSubnetGroup", "DeleteDBSubnetGroup", "CreateDBParameterGroup"),
    *("ModifyDBParameterGroup", "ResetDBParameterGroup", "DeleteDBParameterGroup", "DeleteDBSnapshot"),
)


def document(of: Design) -> dict[str, Any]:
    """Return the policy for a design; statements that it does not need are not in it."""
    kinds = {one.kind for one in of.resources}
    found = [
        *_reads(kinds),
        *_ec2(of, kinds),
        *_balancers(of),
        *_roles(of, kinds),
        *_buckets(of),
        *(_keys(of) if "key" in kinds else []),
        *(_repositories(of) if "repository" in kinds else []),
        *(_database(of) if "database" in kinds else []),
        *_names(of, kinds),
        *(_budget(of) if "budget" in kinds else []),
    ]
    return {"Version": "2012-10-17", "Statement": found}


def _allow(
    sid: str, service: str, names: tuple[str, ...] | list[str], where: str | list[str], **condition: Any
) -> Statement:
    found: Statement = {
        "Sid": sid,
        "Effect": "Allow",
        "Action": sorted(f"{service}:{name}" if service else name for name in names),
        "Resource": where,
    }
    return found | ({"Condition": {"StringEquals": condition}} if condition else {})


def _arn(of: Design, service: str, rest: str = "*", region: bool = True) -> str:
    return f"arn:aws:{service}:{of.region if region else ''}:{of.account_id}:{rest}"


def _new(of: Design) -> dict[str, str]:
    """Return the condition that something is made with the cluster's tag."""
    return {f"aws:RequestTag/{CLUSTER}": of.cluster}


def _own(of: Design) -> dict[str, str]:
    """Return the condition that something has the cluster's tag."""
    return {f"aws:ResourceTag/{CLUSTER}": of.cluster}


def _reads(kinds: set[str]) -> list[Statement]:
    more = [name for kind, names in READS_OF.items() if kind in kinds for name in names]
    return [_allow("Read", "", [*READS, *more], "*")]


def _ec2(of: Design, kinds: set[str]) -> list[Statement]:
    makes = [name for kind, name in MAKES.items() if kind in kinds]
    changes = [name for kind, names in CHANGES.items() if kind in kinds for name in names]
    everything = _arn(of, "ec2")
    found = [
        _allow("Make", "ec2", makes, everything, **_new(of)),
        _allow("Tag", "ec2", ["CreateTags"], everything, **{"ec2:CreateAction": sorted(makes)}, **_new(of)),
        _allow("Change", "ec2", changes, everything, **_own(of)),
        _allow("Image", "ec2", ["RunInstances"], f"arn:aws:ec2:{of.region}::image/*"),
    ]
    if not of.machines.image:
        parameter = f"arn:aws:ssm:{of.region}::parameter/aws/service/canonical/ubuntu/*"
        found.append(_allow("NewestImage", "ssm", ["GetParameter"], parameter))
    return found


def _balancers(of: Design) -> list[Statement]:
    service, makes = "elasticloadbalancing", ["CreateLoadBalancer", "CreateTargetGroup"]
    everything = _arn(of, service)
    created = {f"{service}:CreateAction": [*makes, "CreateListener"]}
    names = [one.name for one in of.resources if one.kind == "load-balancer"]
    # Not by their tags: one that somebody has opened by hand has none.
    listeners = [_arn(of, service, f"listener/net/{of.cluster}-{name}/*") for name in names]
    return [
        _allow("Listeners", service, ["ModifyListener", "DeleteListener"], listeners),
        _allow("MakeBalancers", service, makes, everything, **_new(of)),
        _allow("TagBalancers", service, ["AddTags"], everything, **created, **_new(of)),
        _allow("ChangeBalancers", service, BALANCERS, everything, **_own(of)),
    ]


def _roles(of: Design, kinds: set[str]) -> list[Statement]:
    path = f"quote-platform/{of.cluster}/*"
    roles = _arn(of, "iam", f"role/{path}", region=False)
    profiles = _arn(of, "iam", f"instance-profile/{path}", region=False)
    of_services = ["elasticloadbalancing", *(["rds"] if "database" in kinds else [])]
    own = {"iam:AWSServiceName": [f"{one}.amazonaws.com" for one in of_services]}
    services = _arn(of, "iam", "role/aws-service-role/*", region=False)
    return [
        _allow("Roles", "iam", ROLES, [roles, profiles]),
        _allow("PassRoles", "iam", ["PassRole"], roles, **{"iam:PassedToService": "ec2.amazonaws.com"}),
        _allow("RolesOfServices", "iam", ["CreateServiceLinkedRole"], services, **own),
    ]


def _buckets(of: Design) -> list[Statement]:
    names = sorted(f"arn:aws:s3:::{one}" for one in of.buckets.names.values())
    if not names:
        return []
    objects = [f"{one}/*" for one in names]
    return [
        _allow("Buckets", "s3", BUCKETS, names),
        _allow("Objects", "s3", ["DeleteObject", "DeleteObjectVersion"], objects),
    ]


def _keys(of: Design) -> list[Statement]:
    keys = _arn(of, "kms", "key/*")
    aliases = _arn(of, "kms", f"alias/{of.cluster}-*")
    return [
        # A key that is made has no name yet.
        _allow("MakeKeys", "kms", ["CreateKey", "TagResource"], "*", **_new(of)),
        _allow("ChangeKeys", "kms", KEYS, keys, **_own(of)),
        _allow("NamesOfKeys", "kms", ["CreateAlias", "DeleteAlias"], aliases),
    ]


def _repositories(of: Design) -> list[Statement]:
    return [_allow("Repositories", "ecr", REPOSITORIES, _arn(of, "ecr", f"repository/{of.cluster}/*"))]


def _database(of: Design) -> list[Statement]:
    own = [_arn(of, "rds", f"{kind}:{of.cluster}-*") for kind in ("db", "pg", "snapshot", "subgrp")]
    # https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-secrets-manager.html
    password = ["secretsmanager:CreateSecret", "secretsmanager:TagResource"]
    return [
        _allow("Databases", "rds", DATABASES, own),
        _allow("Password", "", password, _arn(of, "secretsmanager", "secret:rds!*")),
        _allow("KeyOfPassword", "kms", ["DescribeKey"], _arn(of, "kms", "key/*")),
    ]


ZONES = "arn:aws:route53:::hostedzone"
RECORDS = "route53:ChangeResourceRecordSets"


def _names(of: Design, kinds: set[str]) -> list[Statement]:
    found, makes = [], []
    hosts = [one.name for one in of.resources if one.kind == "record"]
    if hosts:
        marks = [mark(of.cluster, host, of.dns.domain) for host in hosts]
        found.append(_records("Names", f"{ZONES}/*", [*hosts, *marks], ["A", "TXT"]))
    if "zone" in kinds:
        makes.append("CreateHostedZone")
        own = ["ChangeTagsForResource", "DeleteHostedZone", "GetHostedZone", "ListTagsForResource"]
        found.append(_allow("Zone", "route53", own, f"{ZONES}/*"))
    if "health-check" in kinds:
        makes.append("CreateHealthCheck")
        own = ["ChangeTagsForResource", "DeleteHealthCheck", "ListTagsForResource", "UpdateHealthCheck"]
        found.append(_allow("HealthCheck", "route53", own, "arn:aws:route53:::healthcheck/*"))
    # What is made has no name that a policy could know.
    return found + ([_allow("MakeNames", "route53", makes, "*")] if makes else [])


def _records(sid: str, zone: str, names: list[str], types: list[str]) -> Statement:
    """Return the right to some records, of whose kinds all of a request have to be."""
    condition = {
        "route53:ChangeResourceRecordSetsNormalizedRecordNames": sorted(names),
        "route53:ChangeResourceRecordSetsRecordTypes": types,
    }
    return _allow(sid, "", [RECORDS], zone) | {"Condition": {"ForAllValues:StringEquals": condition}}


def _budget(of: Design) -> list[Statement]:
    budget = _arn(of, "budgets", f"budget/{of.cluster}-month", region=False)
    return [_allow("Budget", "budgets", ["ModifyBudget", "TagResource"], budget)]


def challenges(of: Design, zone: str) -> dict[str, Any]:
    """Return what cert-manager needs to prove by DNS that the names of a design are ours, and no more."""
    names = [f"_acme-challenge.{one}" for one in of.dns.hosts]
    where = f"{ZONES}/{zone}"
    found = [
        _records("Challenges", where, names, ["TXT"]),
        _allow("Records", "route53", ["ListResourceRecordSets"], where),
        _allow("Changes", "route53", ["GetChange"], "arn:aws:route53:::change/*"),
        _allow("Zones", "route53", ["ListHostedZonesByName"], "*"),
    ]
    return {"Version": "2012-10-17", "Statement": found}
