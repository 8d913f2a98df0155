"""moto's server, made as strict as AWS where it is more lenient; each rule has AWS' own page beside it.

As a program, it serves on a port while a file is there, which it writes: `aws_double.py PORT FILE`.
"""

import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from aws_rights import Need, Request, lacking, needed, operation
from moto.budgets.models import budgets_backends
from moto.ec2.models import ec2_backends
from moto.ecr.models import ecr_backends
from moto.elbv2.models import elbv2_backends
from moto.iam.models import iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.rds.models import rds_backends
from moto.s3.models import s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server

ACCOUNT = "123456789012"
IMAGE = "ami-0123456789abcdef0"
PARAMETER = "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id"
# What a service answers in: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
ERROR = "<Error><Code>{}</Code><Message>{}</Message></Error>"
FORMS = {
    "ec2": f"<Response><Errors>{ERROR}</Errors><RequestID>1</RequestID></Response>",
    "s3": ERROR,
    "": f"<ErrorResponse>{ERROR}<RequestId>1</RequestId></ErrorResponse>",
}
THROTTLED = {"ec2": "RequestLimitExceeded", "s3": "SlowDown"}
JSON = ("ssm", "tagging", "kms", "ecr", "servicequotas", "budgets")
REFUSED = {"ec2": "UnauthorizedOperation"} | dict.fromkeys(JSON, "AccessDeniedException")


# moto knows none: https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_DescribeDBEngineVersions.html
VERSIONS = (
    "<DescribeDBEngineVersionsResponse><DescribeDBEngineVersionsResult><DBEngineVersions>"
    + "".join(
        f"<DBEngineVersion><Engine>postgres</Engine><EngineVersion>{one}</EngineVersion></DBEngineVersion>"
        for one in ("15.12", "16.8", "17.4", "17.5")
    )
    + "</DBEngineVersions></DescribeDBEngineVersionsResult></DescribeDBEngineVersionsResponse>"
)


class Refusal(Exception):
    def __init__(self, code: str, message: str = "as AWS does", status: str = "400 Bad Request") -> None:
        super().__init__(code)
        self.code, self.message, self.status = code, message, status


class Strict:
    """The application of moto's server behind AWS' own rules."""

    def __init__(self) -> None:
        self.app = DomainDispatcherApplication(create_backend_app)
        self.lock = threading.Lock()
        # Of all calls: refused for being too much; done, and answered by an error.
        self.throttled = self.lost = self.delay = 0.0
        self.database_seconds = 0.0
        # How often is refused: a machine with a new profile; the end of a subnet whose balancer has gone.
        self.profile_unseen = self.unreleased = 0
        # Whose first call is done, and answered by an error.
        self.lose: set[str] = set()
        self.profiles: dict[str, int] = {}
        self.releasing: dict[str, int] = {}
        self.database_since = 0.0
        self.calls: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.bodies: list[str] = []
        # What a caller may do, by access key; others may do all. And what these have asked for.
        self.policies: dict[str, dict[str, Any]] = {}
        self.needs: list[Need] = []
        # Values of quotas, by code; of those in `default` the account has none of its own.
        self.quotas: dict[str, int] = {}
        self.default: set[str] = set()

        self.random = random.Random(5)  # noqa: S311 (the same faults in each run)

    def reset(self) -> None:
        calls = self.app.get_application({"PATH_INFO": "/moto-api/", "HTTP_HOST": "localhost"}).test_client()
        assert calls.post("/moto-api/reset").status_code == 200
        self.throttled = self.lost = self.delay = 0.0
        self.profile_unseen = self.unreleased = 0
        self.database_seconds = self.database_since = 0.0
        self.profiles, self.releasing, self.lose = {}, {}, set()
        self.calls, self.refused, self.bodies = Counter(), Counter(), []
        self.policies, self.needs = {}, []
        self.quotas, self.default = {}, set()
        self.random = random.Random(5)  # noqa: S311

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = BytesIO(body)
        scope = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].split("/")
        service, region = (scope[3], scope[2]) if len(scope) > 3 else ("", "")
        given = {key: value[0] for key, value in parse_qs(body.decode(errors="replace")).items()}
        target = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        action = given.get("Action") or target or environ["REQUEST_METHOD"]
        if service == "route53":
            action = operation(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        chance = self.random.random()
        time.sleep(self.delay)
        with self.lock:
            self.calls[f"{service}:{action}"] += 1
            self.bodies.append(body.decode(errors="replace"))
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        asked = Request(
            ACCOUNT, service, region, action, given, body, method, path, environ.get("QUERY_STRING", "")
        )
        try:
            self.authorize(asked, scope[0], environ.get("HTTP_X_AMZ_EXPECTED_BUCKET_OWNER"))
            if service and chance < self.throttled:
                raise Refusal(THROTTLED.get(service, "ThrottlingException"))
            self.judge(action, given, region)
            own = self.own(action, body)
        except Refusal as refusal:
            with self.lock:
                self.refused[f"{action} {refusal.code}"] += 1
            if method == "HEAD" and refusal.status.startswith("403"):
                start_response(refusal.status, [])
                return []
            return answer(start_response, service, refusal.code, refusal.message, refusal.status)
        if own:
            start_response("200 OK", [("Content-Type", own[0])])
            return [own[1].encode()]
        if service and (action in self.lose or self.throttled <= chance < self.throttled + self.lost):
            list(self.app(environ, lambda *_: None))
            with self.lock:
                self.lose -= {action}
                self.refused[f"{action} InternalError"] += 1
            return answer(
                start_response, service, "InternalError", "done, and not said", "500 Internal Server Error"
            )
        said: list[Any] = []
        done = list(self.app(environ, lambda *head: said.extend(head)))
        if said[0].startswith("500"):  # moto's threads may meet; AWS says it in words that clients read
            return answer(start_response, service, "InternalError", "of moto's own", said[0])
        if (other := self.corrected(action, body, b"".join(done), region)) is not None:
            done = [other]
            said[1] = [pair for pair in said[1] if pair[0].lower() != "content-length"]
        start_response(*said[:2])
        if (
            action == "RunInstances" and given.get("DisableApiTermination") == "true"
        ):  # which moto leaves aside
            for one in self.there(ec2_backends[ACCOUNT][region]):
                if one.client_token == given.get("ClientToken"):
                    one.disable_api_termination = True
        return done

    # https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
    def authorize(self, asked: Request, key: str, owner: str | None) -> None:
        """Refuse what a caller has no right to, and a bucket that is somebody else's."""
        bucket = s3_backends.bucket_accounts.get(asked.path.strip("/"), ("aws", owner))
        if asked.service == "s3" and owner and bucket[1] != owner:
            raise Refusal("AccessDenied", status="403 Forbidden")
        needs = needed(asked) if key in self.policies else []
        with self.lock:
            self.needs += needs
        lacks = lacking(self.policies[key], needs) if needs else None
        if not lacks:
            return
        text = (
            f"User: arn:aws:iam::{ACCOUNT}:user/operator is not authorized to perform: {lacks.action} on "
            f"resource: {lacks.resource} because no identity-based policy allows the {lacks.action} action"
        )
        if asked.service == "ec2":
            text = f"You are not authorized to perform this operation. {text}. Encoded authorization failure"
        raise Refusal(REFUSED.get(asked.service, "AccessDenied"), text, "403 Forbidden")

    def own(self, action: str, body: bytes) -> tuple[str, str] | None:
        """Return what moto does not know at all, with its type."""
        if action in {"GetServiceQuota", "GetAWSDefaultServiceQuota"}:
            name = json.loads(body)["QuotaCode"]
            if action == "GetServiceQuota" and name in self.default:
                raise Refusal("NoSuchResourceException")
            quota = {"Quota": {"Value": float(self.quotas.get(name, 1000))}}
            return "application/x-amz-json-1.1", json.dumps(quota)
        if action in {"UpdateBudget", "DescribeSubscribersForNotification"}:
            return "application/x-amz-json-1.1", json.dumps(self.budget(action, json.loads(body)))
        if action == "DescribeDBEngineVersions":
            return "text/xml", VERSIONS
        if action == "GetParameter" and json.loads(body)["Name"] == PARAMETER:
            parameter = {"Parameter": {"Name": PARAMETER, "Value": IMAGE}}
            return "application/x-amz-json-1.1", json.dumps(parameter)
        return None

    @staticmethod
    def budget(action: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Do what moto's budgets cannot."""
        known = budgets_backends[ACCOUNT]["aws"].budgets[ACCOUNT]
        if action == "UpdateBudget":
            known[asked["NewBudget"]["BudgetName"]].budget |= asked["NewBudget"]
            return {}
        for one in known[asked["BudgetName"]].notifications:
            if one.details == asked["Notification"]:
                return {"Subscribers": one.subscribers}
        return {"Subscribers": []}

    def corrected(self, action: str, body: bytes, answered: bytes, region: str) -> bytes | None:
        """Return an answer that AWS gives otherwise than moto."""
        if action == "GetResources":
            return self.more(json.loads(body), answered, region)
        if action == "DescribeDBInstances" and self.database_since > time.monotonic():
            # https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/accessing-monitoring.html
            status = b"<DBInstanceStatus>%s</DBInstanceStatus>"
            return answered.replace(status % b"available", status % b"creating")
        return None

    @staticmethod
    def more(asked: dict[str, Any], answered: bytes, region: str) -> bytes:
        """Add what moto's tagging API does not know, and AWS' does."""
        known = json.loads(answered)
        (sought,) = asked["TagFilters"]
        ecr = ecr_backends[ACCOUNT][region]
        for one in list(ecr.repositories.values()):
            tags = ecr.list_tags_for_resource(one.arn)["tags"]
            if bears(tags, sought):
                known["ResourceTagMappingList"].append({"ResourceARN": one.arn, "Tags": tags})
        rds = rds_backends[ACCOUNT][region]
        for group in [*rds.subnet_groups.values(), *rds.db_parameter_groups.values()]:
            if bears(group.tags, sought):
                known["ResourceTagMappingList"].append({"ResourceARN": group.arn, "Tags": group.tags})
        return json.dumps(known).encode()

    def judge(self, action: str, given: dict[str, str], region: str) -> None:
        """Refuse what AWS refuses."""
        rule = getattr(self, f"on_{action}", None)
        if rule:
            rule(given, ec2_backends[ACCOUNT][region], elbv2_backends[ACCOUNT][region])

    # A profile is seen later: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/iam-roles-for-amazon-ec2.html
    def on_CreateInstanceProfile(self, given: Any, ec2: Any, elb: Any) -> None:
        self.profiles[given["InstanceProfileName"]] = self.profile_unseen

    def on_RunInstances(self, given: Any, ec2: Any, elb: Any) -> None:
        name = given.get("IamInstanceProfile.Name")
        there = {one.name for one in iam_backends[ACCOUNT]["aws"].instance_profiles.values()}
        unseen = self.profiles.get(name, 0)
        if name and (name not in there or unseen):
            self.profiles[name] = max(0, unseen - 1)
            text = f"Value ({name}) for parameter iamInstanceProfile.name: Invalid IAM Instance Profile name"
            raise Refusal("InvalidParameterValue", text)
        for one in self.there(ec2):
            if one.client_token == given.get("ClientToken"):
                raise AssertionError(
                    "a second request with a client token: moto would start a second machine"
                )

    @staticmethod
    def there(ec2: Any) -> list[Any]:
        return [one for one in ec2.all_instances() if one._state.name not in {"terminated", "shutting-down"}]

    @staticmethod
    def gates(ec2: Any) -> list[Any]:
        return [one for one in ec2.nat_gateways.values() if one.state not in {"deleted", "failed"}]

    # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteSubnet.html
    def on_DeleteSubnet(self, given: Any, ec2: Any, elb: Any) -> None:
        subnet = given["SubnetId"]
        balancers = [one for one in elb.load_balancers.values() if subnet in [net.id for net in one.subnets]]
        machines = [one for one in self.there(ec2) if one.subnet_id == subnet]
        gates = [one for one in self.gates(ec2) if one.subnet_id == subnet]
        held = self.releasing.get(subnet, 0)
        if balancers or machines or gates or held:
            self.releasing[subnet] = max(0, held - 1)
            raise Refusal("DependencyViolation")

    # https://docs.aws.amazon.com/elasticloadbalancing/latest/network/load-balancer-troubleshooting.html
    def on_DeleteLoadBalancer(self, given: Any, ec2: Any, elb: Any) -> None:
        balancer = elb.load_balancers.get(given["LoadBalancerArn"])
        for subnet in balancer.subnets if balancer else []:
            self.releasing[subnet.id] = self.unreleased

    # https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_DeleteTargetGroup.html
    def on_DeleteTargetGroup(self, given: Any, ec2: Any, elb: Any) -> None:
        for balancer in elb.load_balancers.values():
            for listener in balancer.listeners.values():
                if given["TargetGroupArn"] in str(
                    [
                        action.to_xml() if hasattr(action, "to_xml") else action.data
                        for action in listener.default_actions
                    ]
                ):
                    raise Refusal("ResourceInUse")

    # https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateListener.html
    def on_CreateListener(self, given: Any, ec2: Any, elb: Any) -> None:
        balancer = elb.load_balancers.get(given["LoadBalancerArn"])
        if balancer and str(given["Port"]) in {str(one.port) for one in balancer.listeners.values()}:
            raise Refusal("DuplicateListener")

    # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DetachInternetGateway.html
    def on_DetachInternetGateway(self, given: Any, ec2: Any, elb: Any) -> None:
        public = [one for one in self.there(ec2) if one.public_ip]
        if self.gates(ec2) or public or elb.load_balancers:
            raise Refusal("DependencyViolation")

    # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ReleaseAddress.html
    def on_ReleaseAddress(self, given: Any, ec2: Any, elb: Any) -> None:
        if any(one.address_set[0]["allocationId"] == given["AllocationId"] for one in self.gates(ec2)):
            raise Refusal("InvalidIPAddress.InUse")

    # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteSecurityGroup.html
    def on_DeleteSecurityGroup(self, given: Any, ec2: Any, elb: Any) -> None:
        group = given["GroupId"]
        cards = [card for machine in self.there(ec2) for card in machine.nics.values()]
        used = {one.id for card in cards for one in card.group_set}
        used |= {one for balancer in elb.load_balancers.values() for one in balancer.security_groups or []}
        for groups in ec2.groups.values():
            for other in groups.values():
                if other.id != group:
                    rules = [*other.ingress_rules, *other.egress_rules]
                    used |= {(rule.source_group or {}).get("GroupId") for rule in rules}
        for database in list(rds_backends[ACCOUNT][ec2.region_name].databases.values()):
            used |= set(database.vpc_security_group_ids)
        if group in used:
            raise Refusal("DependencyViolation")

    # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteRouteTable.html
    def on_DeleteRouteTable(self, given: Any, ec2: Any, elb: Any) -> None:
        table = ec2.route_tables.get(given["RouteTableId"])
        live = {subnet for zone in ec2.subnets.values() for subnet in zone}
        if table and set(table._associations.values()) & live:
            raise Refusal("DependencyViolation")
        if table:  # moto keeps those of subnets that are gone, AWS does not
            table._associations.clear()

    # https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_CreateDBInstance.html
    def on_CreateDBInstance(self, given: Any, ec2: Any, elb: Any) -> None:
        self.database_since = time.monotonic() + self.database_seconds

    # https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_CreateDBSubnetGroup.html
    def on_CreateDBSubnetGroup(self, given: Any, ec2: Any, elb: Any) -> None:
        if given["DBSubnetGroupName"] in rds_backends[ACCOUNT][ec2.region_name].subnet_groups:
            raise Refusal("DBSubnetGroupAlreadyExists")
        if not any(key.endswith(".2") and key.startswith("SubnetIds") for key in given):
            raise Refusal("DBSubnetGroupDoesNotCoverEnoughAZs")

    # https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_DeleteDBSubnetGroup.html
    def on_DeleteDBSubnetGroup(self, given: Any, ec2: Any, elb: Any) -> None:
        databases = list(rds_backends[ACCOUNT][ec2.region_name].databases.values())
        if given["DBSubnetGroupName"] in {one.db_subnet_group.name for one in databases}:
            raise Refusal("InvalidDBSubnetGroupStateFault")

    # https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_DeleteDBParameterGroup.html
    def on_DeleteDBParameterGroup(self, given: Any, ec2: Any, elb: Any) -> None:
        databases = list(rds_backends[ACCOUNT][ec2.region_name].databases.values())
        if given["DBParameterGroupName"] in {one.db_parameter_group_name for one in databases}:
            raise Refusal("InvalidDBParameterGroupState")

    # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteVpc.html
    def on_DeleteVpc(self, given: Any, ec2: Any, elb: Any) -> None:
        vpc = given["VpcId"]
        parts = [one for zone in ec2.subnets.values() for one in zone.values() if one.vpc_id == vpc]
        parts += [one for one in ec2.groups.get(vpc, {}).values() if one.name != "default"]
        parts += [one for one in ec2.internet_gateways.values() if one.vpc and one.vpc.id == vpc]
        if parts:
            raise Refusal("DependencyViolation")


def bears(tags: list[dict[str, str]], sought: dict[str, Any]) -> bool:
    """Tell whether a tag is there, with one of the values if any are asked for."""
    return any(
        one["Key"] == sought["Key"] and one["Value"] in sought.get("Values", [one["Value"]]) for one in tags
    )


def answer(
    start_response: Any, service: str, code: str, message: str, status: str = "400 Bad Request"
) -> list[bytes]:
    if service == "s3" and code == "SlowDown":
        status = "503 Slow Down"
    if service in JSON:
        start_response(status, [("Content-Type", "application/x-amz-json-1.1")])
        return [json.dumps({"__type": code, "message": message}).encode()]
    start_response(status, [("Content-Type", "text/xml")])
    return [FORMS.get(service, FORMS[""]).format(code, message).encode()]


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        pass


def serve(strict: Strict, port: int = 0) -> Any:
    return make_server("127.0.0.1", port, strict, threaded=True, request_handler=Quiet)


__all__ = ["ACCOUNT", "IMAGE", "Strict", "serve"]

if __name__ == "__main__":
    server = serve(Strict(), int(sys.argv[1]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    lives = Path(sys.argv[2])
    lives.touch()
    while lives.exists():
        time.sleep(0.2)
