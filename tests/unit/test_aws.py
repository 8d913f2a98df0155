"""AWS, against moto's server, as strict as AWS: made, kept, repaired, taken away, however often killed."""

import functools
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar
from aws_double import ACCOUNT, IMAGE, Strict, serve
from aws_rights import DATA, Need, lacking
from botocore.exceptions import ClientError
from botocore.loaders import create_loader
from moto.ec2.models import ec2_backends
from moto.ecr.models import ecr_backends
from moto.kms.models import kms_backends
from moto.rds.models import rds_backends
from moto.s3.models import s3_backends
from typer.testing import CliRunner

from quote_platform import aws
from quote_platform.aws import account as accounts
from quote_platform.aws import cost, design, policy, quotas, reconcile
from quote_platform.aws.kinds import KINDS
from quote_platform.cli import app

ROOT = Path(__file__).resolve().parents[2]

GROUPS = ("control_plane", "workers", "vault", "bastion")
GIVEN: dict[str, Any] = {
    "account_id": ACCOUNT,
    "region": "eu-west-1",
    "cluster": "quote",
    "pod_cidr": "10.244.0.0/16",
    "service_cidr": "10.96.0.0/16",
    "network": {
        "cidr": "10.0.0.0/16",
        "zones": [],
        "nat": "one",
        "endpoints": ["s3"],
        "admin_cidrs": ["198.18.0.7/32"],
        "user_cidrs": ["0.0.0.0/0"],
    },
    "machines": {
        "control_planes": 3,
        "workers": 3,
        "vaults": 1,
        "bastion": True,
        "types": dict.fromkeys(GROUPS, "t3.medium"),
        "disks": dict.fromkeys(GROUPS, 30),
        "image": "",
        "ssh_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me"],
        "protected": True,
    },
    "balancers": {"api_scheme": "internet-facing"},
    "buckets": {
        "purposes": ["postgres", "snapshots", "velero", "logs"],
        "names": {},
        "noncurrent_days": 30,
        "upload_days": 7,
    },
    "keys": {"vault": False},
    "registry": {"repositories": [], "keep": 30},
    "database": {
        "choice": "cloudnative-pg",
        "version": "17",
        "type": "db.t3.medium",
        "disk": 20,
        "multi_az": True,
        "backup_days": 7,
        "protected": True,
    },
    "dns": {"domain": "", "create_zone": False, "hosts": [], "api_host": "", "health_path": ""},
    "budget": 0,
    "budget_mails": [],
    "assumed": {},
    "inventory": "",
    "timeout": 120,
}
GONE = {
    "account_id": ACCOUNT,
    "region": "eu-west-1",
    "cluster": "quote",
    "confirm": "quote",
    "buckets": True,
    "key_days": 30,
    "timeout": 120,
}
SECRET = "a-secret-key-that-nobody-may-see"  # noqa: S105


class Killed(BaseException):
    """The end of the process: no call is sent any more."""


def given(**changed: Any) -> dict[str, Any]:
    """Return right input but for `part__name=value`."""
    whole = deepcopy(GIVEN)
    for name, value in changed.items():
        part, _, field = name.partition("__")
        if field:
            whole[part][field] = value
        else:
            whole[part] = value
    return whole


# All that can be chosen beyond that.
CHOSEN: dict[str, Any] = {
    "keys__vault": True,
    "registry__repositories": ["quote-app"],
    "database__choice": "rds",
    "dns": {
        "domain": "example.com",
        "create_zone": True,
        "hosts": ["app.example.com", "example.com"],
        "api_host": "api.example.com",
        "health_path": "/healthz",
    },
    "budget": 900,
    "budget_mails": ["ops@example.com", "boss@example.com"],
}
# A cluster of few things, where their number proves nothing.
SMALL: dict[str, Any] = {
    "network__zones": ["eu-west-1a"],
    "machines__control_planes": 1,
    "machines__workers": 1,
    "machines__vaults": 0,
    "machines__bastion": False,
    "network__endpoints": [],
    "buckets__purposes": ["postgres"],
}
# The same with all that can be chosen, in two zones as a database wants it.
WIDE = SMALL | CHOSEN | {"network__zones": ["eu-west-1a", "eu-west-1b"], "machines__vaults": 1}


def apply(dry_run: bool = False, **changed: Any) -> dict[str, Any]:
    return aws.apply(given(**changed), dry_run, pause=0.1)


def total(result: dict[str, Any]) -> int:
    return sum(result["calls"].values())


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Strict, str]]:
    strict = Strict()
    server = serve(strict)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield strict, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module", autouse=True)
def loader() -> Iterator[None]:
    """Read the models of AWS' services once, not for each account."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", functools.cache(create_loader))
        yield


@pytest.fixture
def strict(served: tuple[Strict, str], monkeypatch: pytest.MonkeyPatch) -> Strict:
    double, endpoint = served
    double.reset()
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    return double


@functools.cache
def looking() -> accounts.Account:
    """Return an account that only looks: making its clients takes longest."""
    return accounts.Account("eu-west-1", "quote", 120, 0.1)


def found() -> dict[tuple[str, str], Any]:
    """Return what is there by name; two of one name are refused."""
    account = looking()
    account.forget()
    account.id = ACCOUNT
    return reconcile.list_all(account)


def declared(**changed: Any) -> set[tuple[str, str]]:
    return {one.key for one in aws.chosen(given(**changed)).resources}


def changes(result: dict[str, Any]) -> set[str]:
    return set(result["changes"])


def test_a_whole_account_is_made_and_a_second_run_changes_nothing(strict: Strict) -> None:
    planned = apply(dry_run=True)
    assert found() == {}, "a dry run has made something"
    made = apply()
    assert planned["changes"] == made["changes"], "the dry run has told another plan"
    assert len(made["changes"]) == len(declared()) == len(found())
    assert total(made) <= 1.3 * made["objects"] + len(KINDS)
    assert len(made["chain"]) >= 3

    started = time.monotonic()
    again = apply()
    assert time.monotonic() - started < 15
    assert not again["changed"] and again["diff"] == []
    assert total(again) <= 40
    listings = {
        name: number for name, number in again["calls"].items() if "Describe" in name or "List" in name
    }
    own = {"DescribeListeners", "DescribeTargetHealth"}  # there is none for several at once
    assert {
        name for name, number in listings.items() if number > 1 and name.split(":")[1] not in own
    } == set()
    assert again["outputs"] == made["outputs"]
    assert again["outputs"]["api_endpoint"].endswith(":6443")
    assert set(again["outputs"]["addresses"]) == {
        f"{kind}-{n}" for kind in ("master", "worker") for n in (1, 2, 3)
    } | {"vault-1"}


def test_what_is_made_is_closed_spread_and_marked(strict: Strict) -> None:
    apply()
    ec2 = boto3.client("ec2")
    machines = [one for group in ec2.describe_instances()["Reservations"] for one in group["Instances"]]
    assert len(machines) == 8
    for one in machines:
        tags = {tag["Key"]: tag["Value"] for tag in one["Tags"]}
        assert tags["quote-platform/cluster"] == "quote"
        assert one["MetadataOptions"]["HttpTokens"] == "required"
        assert one["ImageId"] == IMAGE
        node = tags["quote-platform/group"] in ("control_plane", "workers")
        assert one["SourceDestCheck"] is not node
        assert bool(one.get("IamInstanceProfile")) is node
        protected = ec2.describe_instance_attribute(
            InstanceId=one["InstanceId"], Attribute="disableApiTermination"
        )
        assert protected["DisableApiTermination"]["Value"]
    for disk in ec2.describe_volumes()["Volumes"]:
        assert disk["Encrypted"] and disk["VolumeType"] == "gp3"
    zones = {one["Placement"]["AvailabilityZone"] for one in machines if "master" in str(one["Tags"])}
    assert len(zones) == 3
    assert strict.calls["ssm:GetParameter"] == 1
    assert not any(SECRET in body for body in strict.bodies)


def test_rules_are_the_flows_of_the_documentation_and_no_others() -> None:
    flows = {
        name: sorted(one if isinstance(one, str) else one.form.format(f"@{one.name}") for one in rules)
        for name, rules in design.flows(aws.chosen(GIVEN)).items()
    }
    assert flows["vault"] == [
        "tcp 22 from @bastion",
        "tcp 8200 from @bastion",
        "tcp 8200 from @control-plane",
        "tcp 8200 from @vault",
        "tcp 8200 from @workers",
        "tcp 8201 from @vault",
        "tcp 9100 from @workers",
    ]
    assert flows["api"] == ["tcp 6443 from 198.18.0.7/32", "tcp 6443 from @nat-a/32"]
    assert flows["bastion"] == ["tcp 22 from 198.18.0.7/32"]
    assert {"tcp 2379-2380 from @control-plane", "tcp 10257 from @workers", "4 from @workers"} <= set(
        flows["control-plane"]
    )
    assert {"tcp 443 from @ingress", "tcp 30432 from @vault", "all from 10.244.0.0/16"} <= set(
        flows["workers"]
    )
    open_to_all = {name for name, rules in flows.items() if any("0.0.0.0/0" in rule for rule in rules)}
    assert open_to_all == {"ingress"}


def test_independent_things_are_made_side_by_side(strict: Strict) -> None:
    strict.delay = 0.05
    account = accounts.Account("eu-west-1", "quote", 120, 0.1)
    account.verify(ACCOUNT)
    run = reconcile.Run(account, reconcile.plan(account, aws.chosen(GIVEN).resources))
    started = time.monotonic()
    run.run()
    took = time.monotonic() - started
    alone = sum(step.ended - step.began for step in run.plan.changes)
    assert took < alone / 2
    chain = run.chain()
    assert all(later.began >= earlier.ended for earlier, later in pairwise(chain))


def disturb(there: dict[tuple[str, str], Any]) -> None:
    """Change by hand what a run repairs."""
    ec2, s3, elb = boto3.client("ec2"), boto3.client("s3"), boto3.client("elbv2")

    def of(kind: str, name: str) -> str:
        return str(there[kind, name].id)

    open_by_hand = [
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ]
    ec2.authorize_security_group_ingress(GroupId=of("security-group", "workers"), IpPermissions=open_by_hand)
    ec2.stop_instances(InstanceIds=[of("machine", "worker-2")])
    ec2.modify_instance_attribute(InstanceId=of("machine", "worker-1"), SourceDestCheck={"Value": True})
    ec2.modify_vpc_attribute(VpcId=of("vpc", "main"), EnableDnsHostnames={"Value": False})
    ec2.delete_route(RouteTableId=of("route-table", "private"), DestinationCidrBlock="0.0.0.0/0")
    s3.delete_public_access_block(Bucket=of("bucket", "postgres"))
    s3.delete_bucket_policy(Bucket=of("bucket", "velero"))
    s3.put_bucket_versioning(Bucket=of("bucket", "logs"), VersioningConfiguration={"Status": "Suspended"})
    theirs = {"ID": "dumps", "Status": "Enabled", "Filter": {"Prefix": "dumps/"}, "Expiration": {"Days": 9}}
    s3.put_bucket_lifecycle_configuration(
        Bucket=of("bucket", "snapshots"), LifecycleConfiguration={"Rules": [theirs]}
    )
    elb.deregister_targets(
        TargetGroupArn=of("target-group", "api"),
        Targets=[{"Id": there["machine", "master-1"].attributes["private"]}],
    )
    boto3.client("iam").delete_role_policy(RoleName="quote-nodes", PolicyName="quote-platform")
    (vault,) = ec2.describe_iam_instance_profile_associations(
        Filters=[{"Name": "instance-id", "Values": [of("machine", "vault-1")]}]
    )["IamInstanceProfileAssociations"]
    ec2.disassociate_iam_instance_profile(AssociationId=vault["AssociationId"])
    kms, ecr = boto3.client("kms"), boto3.client("ecr")
    key = of("key", "vault").rpartition("/")[2]
    kms.disable_key(KeyId=key)
    kms.delete_alias(AliasName="alias/quote-vault")
    kms.disable_key_rotation(KeyId=key)
    app = {"repositoryName": of("repository", "quote-app")}
    ecr.put_image_tag_mutability(imageTagMutability="MUTABLE", **app)
    ecr.put_image_scanning_configuration(imageScanningConfiguration={"scanOnPush": False}, **app)
    ecr.delete_lifecycle_policy(**app)
    rds, database = boto3.client("rds"), {"DBInstanceIdentifier": of("database", "main")}
    opened = [of("security-group", "database"), of("security-group", "bastion")]
    less = {"DeletionProtection": False, "MultiAZ": False, "BackupRetentionPeriod": 1}
    rds.modify_db_instance(PubliclyAccessible=True, VpcSecurityGroupIds=opened, **less, **database)
    off = {"ParameterName": "rds.force_ssl", "ParameterValue": "0", "ApplyMethod": "immediate"}
    rds.modify_db_parameter_group(DBParameterGroupName="quote-main", Parameters=[off])


def test_drift_is_named_by_its_fields_and_repaired(strict: Strict) -> None:
    apply(**CHOSEN)
    there, s3 = found(), boto3.client("s3")
    disturb(there)
    before = dict(strict.calls)
    told = apply(dry_run=True, **CHOSEN)
    assert changes(told) == {
        "change rules workers: ingress",
        "change machine worker-2: state",
        "change machine worker-1: checks_addresses",
        "change vpc main: dns_hostnames",
        "change route-table private: routes",
        "change bucket postgres: private",
        "change bucket velero: policy",
        "change bucket logs: versioned",
        "change bucket snapshots: lifecycle",
        "change target-group api: targets",
        "change role nodes: policy",
        "change machine vault-1: profile",
        "change key vault: state, aliases, rotated",
        "change database main: multi_az, backup_days, protected, public, groups",
        "change database-parameters main: parameters",
        "change repository quote-app: immutable, scanned, lifecycle",
    }
    by_title = {one["before_header"]: one for one in told["diff"]}
    assert "tcp 22 from 0.0.0.0/0" in by_title["rules workers"]["before"]
    assert "tcp 22 from 0.0.0.0/0" not in by_title["rules workers"]["after"]
    assert "tcp 10250 from security-group control-plane" in by_title["rules workers"]["after"]
    assert by_title["machine worker-2"]["before"] == "state: stopped\n"
    asked = {name.split(":")[1] for name, number in strict.calls.items() if number > before.get(name, 0)}
    writes = (
        "Create",
        "Put",
        "Delete",
        "Modify",
        "Authorize",
        "Revoke",
        "Start",
        "Run",
        "PUT",
        "DELETE",
        "Register",
    )
    assert not [name for name in asked if name.startswith(writes)]

    assert changes(apply(**CHOSEN)) == changes(told)
    again = apply(**CHOSEN)
    assert not again["changed"] and total(again) <= 65, again["calls"]
    rules = s3.get_bucket_lifecycle_configuration(Bucket=there["bucket", "snapshots"].id)["Rules"]
    assert "dumps" in {rule["ID"] for rule in rules}, "a rule of the platform's own is gone"


CALLER = "AKIAOPERATOREXAMPLE"


def rights(**changed: Any) -> dict[str, Any]:
    return policy.document(aws.chosen(given(**changed)))


@contextmanager
def operator(strict: Strict, allowed: dict[str, Any]) -> Iterator[None]:
    """Run as somebody who has one policy; the clients of the tests go on with all rights."""
    boto3.client("sts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", CALLER)
        strict.policies[CALLER] = allowed
        yield


def disturb_more(there: dict[tuple[str, str], Any]) -> str:
    """Change by hand what is repaired by other calls; return a subnet that is in the way of deleting."""
    ec2, elb, rds = boto3.client("ec2"), boto3.client("elbv2"), boto3.client("rds")

    def of(kind: str, name: str) -> str:
        return str(there[kind, name].id)

    ec2.modify_instance_metadata_options(InstanceId=of("machine", "worker-1"), HttpTokens="optional")
    ec2.create_tags(
        Resources=[of("machine", "master-1")], Tags=[{"Key": "quote-platform/group", "Value": "other"}]
    )
    ec2.associate_iam_instance_profile(
        InstanceId=of("machine", "bastion"), IamInstanceProfile={"Name": "quote-nodes"}
    )
    table = of("route-table", "public")
    everywhere = {"RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0"}
    ec2.replace_route(NatGatewayId=of("nat-gateway", "a"), **everywhere)
    ec2.create_route(
        RouteTableId=table, DestinationCidrBlock="192.168.0.0/24", GatewayId=of("internet-gateway", "main")
    )
    subnet = ec2.create_subnet(VpcId=of("vpc", "main"), CidrBlock="10.0.48.0/24")["Subnet"]["SubnetId"]
    ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    ec2.modify_vpc_endpoint(
        VpcEndpointId=of("endpoint", "s3"), RemoveRouteTableIds=[of("route-table", "private")]
    )
    group = of("security-group", "vault")
    everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    mail = {"IpProtocol": "tcp", "FromPort": 25, "ToPort": 25, "IpRanges": [{"CidrIp": "10.9.0.0/16"}]}
    ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[everything])
    ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[mail])
    balancer, target = of("load-balancer", "ingress"), of("target-group", "ingress-http")
    elb.set_subnets(LoadBalancerArn=balancer, Subnets=[of("subnet", "public-a"), of("subnet", "public-b")])
    elb.set_security_groups(LoadBalancerArn=balancer, SecurityGroups=[of("security-group", "api")])
    listeners = elb.describe_listeners(LoadBalancerArn=balancer)["Listeners"]
    (secure,) = [one["ListenerArn"] for one in listeners if one["Port"] == 443]
    forward = [{"Type": "forward", "TargetGroupArn": target}]
    elb.modify_listener(ListenerArn=secure, DefaultActions=forward)
    elb.create_listener(LoadBalancerArn=balancer, Protocol="TCP", Port=8080, DefaultActions=forward)
    elb.modify_target_group(TargetGroupArn=target, HealthCheckProtocol="HTTP", HealthCheckPath="/")
    elb.register_targets(TargetGroupArn=target, Targets=[{"Id": of("machine", "master-1")}])
    rds.stop_db_instance(DBInstanceIdentifier="quote-main")
    boto3.client("kms").create_alias(
        AliasName="alias/quote-other", TargetKeyId=of("key", "vault").rpartition("/")[2]
    )
    return str(subnet)


def test_the_policy_is_enough_for_all_that_is_done(strict: Strict) -> None:
    allowed = rights(**CHOSEN)
    for one in allowed["Statement"]:
        for action in one["Action"]:
            assert DATA.actions.action_exists(*action.split(":")), f"AWS knows no {action}"
    rds, elb, ec2 = boto3.client("rds"), boto3.client("elbv2"), boto3.client("ec2")
    stranger = {"DBParameterGroupName": "quote-main"}
    rds.create_db_parameter_group(DBParameterGroupFamily="postgres17", Description="theirs", **stranger)
    elb.create_target_group(Name="quote-theirs", Protocol="TCP", Port=1, VpcId=own_network(ec2))
    with operator(strict, allowed):
        with pytest.raises(aws.Refused, match="the name quote-main is taken"):
            apply(**CHOSEN)
        rds.delete_db_parameter_group(**stranger)
        strict.lose = {"PUT", "CreateRepository"}
        strict.default = {"L-7B6409FD"}
        apply(dry_run=True, **CHOSEN)
        apply(**CHOSEN)
        assert not apply(**CHOSEN)["changed"]
        disturb(found())
        apply(**CHOSEN)
        subnet = disturb_more(found())
        assert "change database main: state" in changes(apply(**CHOSEN))
        ec2.delete_subnet(SubnetId=subnet)
        assert not apply(**CHOSEN)["changed"]
        aws.remove(GONE | {"buckets": False}, False, pause=0.1)
        apply(**CHOSEN)  # takes the key back


def own_network(ec2: Any) -> str:
    """Return the network that every account has."""
    return str(ec2.describe_vpcs()["Vpcs"][0]["VpcId"])


# Others are needed by what a run does only after moto has refused to empty a bucket, or by drift.
@pytest.mark.parametrize("sid", ["Read", "Make", "Buckets", "PassRoles", "ChangeKeys"])
def test_without_a_statement_the_right_that_is_missing_is_named(strict: Strict, sid: str) -> None:
    allowed = rights(**WIDE)
    (less,) = [one for one in allowed["Statement"] if one["Sid"] == sid]
    allowed["Statement"].remove(less)
    with operator(strict, allowed), pytest.raises(aws.Refused) as refused:
        apply(**WIDE)
        s3_backends[ACCOUNT]["aws"].put_object(found()["bucket", "postgres"].id, "a", b"b")
        aws.remove(GONE | {"timeout": 3}, False, pause=0.1)
    said = str(refused.value)
    assert any(f"the credentials lack the right {action} on " in said for action in less["Action"]), said
    assert "`quote-platform aws policy -i INVENTORY`" in said
    assert "Encoded" not in said


def test_the_command_prints_the_policy_of_the_shipped_inventory(tmp_path: Path) -> None:
    folder = tmp_path / "aws"
    shutil.copytree(ROOT / "inventories/aws", folder)
    command = ["aws", "policy", "-i", str(folder)]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 1 and "aws_account_id: '' is not an account" in refused.output
    own: dict[str, Any] = {
        "aws_account_id": ACCOUNT,
        "aws_network_admin_cidrs": ["198.18.0.7/32"],
        "aws_machines_ssh_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me"],
    }
    (folder / "group_vars/all/own.yml").write_text(yaml.safe_dump(own))
    told = json.loads(CliRunner().invoke(app, command).stdout)
    sids = {one["Sid"] for one in told["Statement"]}
    assert "MakeKeys" in sids and "Databases" not in sids and "Repositories" not in sids
    no_zone = CliRunner().invoke(app, [*command, "--of", "cert-manager"])
    assert no_zone.exit_code == 1 and "--of cert-manager: no zone is known" in no_zone.output
    own |= {"aws_dns_domain": "example.com", "aws_account_made": {"zone": "Z1"}}
    (folder / "group_vars/all/own.yml").write_text(yaml.safe_dump(own))
    challenges = json.loads(CliRunner().invoke(app, [*command, "--of", "cert-manager"]).stdout)
    assert challenges["Statement"][0]["Resource"] == "arn:aws:route53:::hostedzone/Z1"
    assert "_acme-challenge.quotes.example.com" in str(challenges["Statement"][0])
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html: of a role's own policies
    assert len(json.dumps(rights(**CHOSEN), separators=(",", ":"))) < 10240


# Names in a zone that others have made, and a budget that tells.
NAMED: dict[str, Any] = SMALL | {
    "dns": CHOSEN["dns"] | {"create_zone": False},
    "budget": 900,
    "budget_mails": CHOSEN["budget_mails"],
}


def theirs() -> str:
    """Make a zone with a record that is not ours; return its id."""
    names = boto3.client("route53")
    zone = names.create_hosted_zone(Name="example.com", CallerReference="theirs")["HostedZone"]["Id"]
    record = {"Name": "old.example.com", "Type": "A", "TTL": 60, "ResourceRecords": [{"Value": "10.1.1.1"}]}
    changed(zone, "CREATE", record)
    return str(zone)


def changed(zone: str, action: str, record: dict[str, Any]) -> None:
    boto3.client("route53").change_resource_record_sets(
        HostedZoneId=zone, ChangeBatch={"Changes": [{"Action": action, "ResourceRecordSet": record}]}
    )


def records(zone: str) -> dict[str, Any]:
    listed = boto3.client("route53").list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    return {f"{one['Name'].rstrip('.')} {one['Type']}": one for one in listed}


def test_names_lead_to_the_balancers_and_go_without_what_others_have(strict: Strict) -> None:
    zone, names = theirs(), boto3.client("route53")
    before = set(records(zone))
    made = apply(**NAMED)
    balancers = {
        one["LoadBalancerName"]: one["DNSName"]
        for one in boto3.client("elbv2").describe_load_balancers()["LoadBalancers"]
    }
    for host, balancer in (("app.", "ingress"), ("", "ingress"), ("api.", "api")):
        alias = records(zone)[f"{host}example.com A"]["AliasTarget"]
        assert alias["DNSName"].rstrip(".") == balancers[f"quote-{balancer}"]
        assert alias["HostedZoneId"]
        assert f"{host}_quote-platform-quote.example.com TXT" in records(zone)
    assert made["outputs"]["zone"] == zone.rpartition("/")[2]
    assert made["outputs"]["api_endpoint"] == "api.example.com:6443"
    again = apply(**NAMED)
    assert not again["changed"] and again["outputs"] == made["outputs"]

    alias = {"DNSName": "elsewhere.example.net", "HostedZoneId": "Z2", "EvaluateTargetHealth": False}
    changed(zone, "UPSERT", {"Name": "app.example.com", "Type": "A", "AliasTarget": alias})
    (check,) = names.list_health_checks()["HealthChecks"]
    names.update_health_check(HealthCheckId=check["Id"], ResourcePath="/other")
    budgets, budget = boto3.client("budgets"), {"AccountId": ACCOUNT, "BudgetName": "quote-month"}
    (actual, _) = budgets.describe_notifications_for_budget(**budget)["Notifications"]
    budgets.delete_notification(Notification=actual, **budget)
    higher = budgets.describe_budget(**budget)["Budget"] | {"BudgetLimit": {"Amount": "9000", "Unit": "USD"}}
    budgets.update_budget(
        AccountId=ACCOUNT,
        NewBudget={key: higher[key] for key in ("BudgetName", "BudgetLimit", "TimeUnit", "BudgetType")},
    )
    told = apply(dry_run=True, **NAMED)
    assert changes(told) == {
        "change record app.example.com: target, target_zone",
        "change health-check ingress: path",
        "change budget month: limit, alarms",
    }
    assert changes(apply(**NAMED)) == changes(told)
    assert not apply(**NAMED)["changed"]
    told_of = budgets.describe_notifications_for_budget(**budget)["Notifications"]
    assert {(one["NotificationType"], one["Threshold"]) for one in told_of} == {
        ("ACTUAL", 80),
        ("FORECASTED", 100),
    }

    aws.remove(GONE, False, pause=0.1)
    assert set(records(zone)) == before
    assert found() == {} and not names.list_health_checks()["HealthChecks"]


def test_a_zone_is_made_and_goes_unless_others_use_it(strict: Strict) -> None:
    own = NAMED | {"dns": CHOSEN["dns"]}
    strict.lose = {"CreateHostedZone", "ChangeResourceRecordSets", "CreateHealthCheck", "CreateBudget"}
    made = apply(**own)
    assert not strict.lose
    assert len(made["outputs"]["name_servers"]) == 4
    (zone,) = boto3.client("route53").list_hosted_zones()["HostedZones"]
    assert made["outputs"]["zone"] == zone["Id"].rpartition("/")[2]
    assert not apply(**own)["changed"]
    other = {"Name": "x.example.com", "Type": "TXT", "TTL": 60, "ResourceRecords": [{"Value": '"x"'}]}
    changed(zone["Id"], "CREATE", other)
    with pytest.raises(
        aws.Refused, match=r"zone example.com has records that were not made by the playbooks"
    ):
        aws.remove(GONE, False, pause=0.1)
    changed(zone["Id"], "DELETE", other)
    aws.remove(GONE, False, pause=0.1)
    assert not boto3.client("route53").list_hosted_zones()["HostedZones"]


def test_what_is_not_chosen_costs_no_call(strict: Strict) -> None:
    apply(**SMALL)
    assert not [name for name in strict.calls if name.startswith(("route53:", "budgets:"))]


def test_cert_manager_may_write_the_challenges_and_nothing_else() -> None:
    document = policy.challenges(aws.chosen(given(**NAMED)), "Z1")
    where = "arn:aws:route53:::hostedzone/Z1"
    prefix = "route53:ChangeResourceRecordSets"

    def may(name: str, kind: str, zone: str = where) -> bool:
        context = {f"{prefix}NormalizedRecordNames": [name], f"{prefix}RecordTypes": [kind]}
        return lacking(document, [Need(prefix, zone, context)]) is None

    assert may("_acme-challenge.app.example.com", "TXT")
    assert not may("app.example.com", "TXT")
    assert not may("_acme-challenge.app.example.com", "A")
    assert not may("_acme-challenge.app.example.com", "TXT", "arn:aws:route53:::hostedzone/Z2")


@pytest.mark.parametrize(
    ("code", "value", "said"),
    [
        ("L-F678F1CE", 1, "vpc L-F678F1CE, VPCs in eu-west-1: 1, of which 1 are used, and 1 more are needed"),
        ("L-0263D0A3", 2, "Elastic IP addresses in eu-west-1: 2, of which 2 are used, and 1 more are needed"),
        ("L-1216C47A", 7, "vCPUs of standard machines in eu-west-1: 7, of which 2 are used, and 6 more are"),
        ("L-69A177A2", 1, "network load balancers in eu-west-1: 1, of which 0 are used, and 2 more are"),
        ("L-FE5A380F", 0, "NAT gateways of a zone eu-west-1a in eu-west-1: 0, of which 0 are used, and 1"),
        ("L-7B6409FD", 0, "rds L-7B6409FD, databases in eu-west-1: 0, of which 0 are used, and 1 more are"),
    ],
)
def test_a_quota_that_is_too_small_is_refused_before_anything_is_made(
    strict: Strict, code: str, value: int, said: str
) -> None:
    ec2 = boto3.client("ec2")
    for _ in range(2):
        ec2.allocate_address(Domain="vpc")
    ec2.run_instances(ImageId=IMAGE, InstanceType="t3.medium", MinCount=1, MaxCount=1)
    strict.quotas = {code: value}
    strict.default = {code}
    with pytest.raises(aws.Refused) as refused:
        apply(**WIDE)
    assert said in str(refused.value) and f"--quota-code {code} --desired-value" in str(refused.value)
    assert {kind for kind, _ in found()} == set(), "something was made"
    strict.quotas = {code: 100}
    assert not apply(dry_run=True, **WIDE).get("warnings")


def test_quotas_that_nobody_may_ask_for_are_a_warning(strict: Strict) -> None:
    allowed = rights(**SMALL)
    for one in allowed["Statement"]:
        one["Action"] = [action for action in one["Action"] if not action.startswith("servicequotas:")]
    strict.quotas = dict.fromkeys([one.code for one in quotas.QUOTAS], 0)
    with operator(strict, allowed):
        (warning,) = apply(**SMALL)["warnings"]
    assert "quotas that were not compared: vpc L-F678F1CE (VPCs)" in warning
    assert "AccessDeniedException" in warning
    assert set(found()) == declared(**SMALL)


WRITES: tuple[str, ...] = (
    *("Create", "Put", "Modify", "Authorize", "Allocate", "Run", "Attach", "Associate", "Register", "Add"),
    *("Terminate", "Delete", "Release", "Detach", "Revoke", "Remove"),
)


def killed_after(writes: int, patch: pytest.MonkeyPatch) -> None:
    """Let that many calls through that write; those before which the run is killed, and all later, are "
    "not sent."""
    count, lock = accounts.Account._count, threading.Lock()
    left = writes

    def counting(self: Any, event_name: str, **more: Any) -> None:
        nonlocal left
        with lock:
            left -= event_name.split(".")[2].startswith(WRITES)
            if left < 0:
                raise Killed
        count(self, event_name, **more)

    patch.setattr(accounts.Account, "_count", counting)


def test_killed_at_twenty_points_it_ends_with_one_of_each(strict: Strict) -> None:
    """One account: each run goes on where the one before was killed, one or two calls further."""
    for point in range(20):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            killed_after(1 + point % 2, patch)
            apply(**WIDE)
    made = apply(**WIDE)
    assert made["changes"], "nothing was left to do: it was not killed 20 times"
    assert set(found()) == declared(**WIDE)
    assert not apply(**WIDE)["changed"]
    assert len(Strict.there(ec2_backends[ACCOUNT]["eu-west-1"])) == 3


@pytest.mark.parametrize(
    ("throttled", "lost"),
    # One call in ten costs much waiting.
    [(0.01, 0.0), pytest.param(0.1, 0.0, marks=pytest.mark.proof(minutes=1)), (0.0, 0.05)],
)
def test_what_is_refused_for_being_too_much_or_not_answered_ends_right(
    strict: Strict, throttled: float, lost: float
) -> None:
    strict.throttled, strict.lost = throttled, lost
    apply(**WIDE)
    assert strict.refused, "nothing was refused"
    strict.throttled = strict.lost = 0
    assert set(found()) == declared(**WIDE)
    assert not apply(**WIDE)["changed"]


def test_what_was_made_without_an_answer_is_found_and_not_made_again(strict: Strict) -> None:
    strict.lose = {
        *("CreateVpc", "CreateSubnet", "CreateInternetGateway", "AllocateAddress", "CreateNatGateway"),
        *("CreateRouteTable", "CreateSecurityGroup", "RunInstances", "CreateRole", "CreateInstanceProfile"),
        *("CreateTargetGroup", "CreateLoadBalancer", "CreateListener", "AddRoleToInstanceProfile"),
        *("CreateKey", "CreateAlias", "CreateRepository"),
        *("CreateDBSubnetGroup", "CreateDBParameterGroup", "CreateDBInstance"),
    }
    apply(**WIDE)
    assert not strict.lose
    assert set(found()) == declared(**WIDE)
    assert not apply(**WIDE)["changed"]


def test_a_profile_that_is_not_seen_yet_is_waited_for(strict: Strict) -> None:
    strict.profile_unseen = 2
    apply(**SMALL)
    assert strict.refused["RunInstances InvalidParameterValue"] >= 2
    assert set(found()) == declared(**SMALL)


def test_destroy_asks_for_the_name_and_leaves_nothing(strict: Strict) -> None:
    apply(**WIDE)
    for wrong in ("", "other"):
        with pytest.raises(aws.Refused, match=r"machine master-1 \(i-(.|\n)*aws_account_confirm=quote"):
            aws.remove(GONE | {"confirm": wrong}, False, pause=0.1)
    assert set(found()) == declared(**WIDE)
    told = aws.remove(GONE, True, pause=0.1)
    assert set(found()) == declared(**WIDE) and len(told["deleted"]) == len(
        [one for one in declared(**WIDE) if one[0] != "rules"]
    )
    strict.unreleased = 2  # interfaces of balancers
    logs = found()["bucket", "postgres"].id
    with pytest.raises(ClientError, match="403"):  # the server speaks no TLS
        boto3.client("s3").put_object(Bucket=logs, Key="a", Body=b"b")
    s3_backends[ACCOUNT]["aws"].put_object(logs, "a", b"b")
    boto3.client("s3").delete_bucket_policy(Bucket=logs)
    aws.remove(GONE, False, pause=0.1)
    assert strict.refused["DeleteSubnet DependencyViolation"] >= 1
    assert found() == {}
    assert not aws.remove(GONE, False, pause=0.1)["changed"]
    # Machines that are gone are shown for a while; the next are others.
    apply(**WIDE)
    assert set(found()) == declared(**WIDE)


def test_destroy_keeps_buckets_and_a_snapshot_of_the_database_unless_told_otherwise(strict: Strict) -> None:
    apply(**WIDE)
    aws.remove(GONE | {"buckets": False}, False, pause=0.1)
    left = found()
    (snapshot,) = [name for kind, name in left if kind == "database-snapshot"]
    assert {kind for kind, _ in left} == {"bucket", "database-snapshot"}
    assert snapshot.startswith("quote-main-2")
    again = apply(**WIDE)
    assert len(changes(again)) == len(declared(**WIDE)) - 1, "the buckets are those that were kept"
    assert f"database-snapshot {snapshot}" in again["warnings"][0]
    told = aws.remove(GONE, False, pause=0.1)
    assert f"database-snapshot {snapshot} ({snapshot})" in told["deleted"]
    assert found() == {}


def test_a_key_that_ends_is_taken_back(strict: Strict) -> None:
    apply(**WIDE)
    key, kms = found()["key", "vault"].id, boto3.client("kms")
    aws.remove(GONE | {"key_days": 7}, False, pause=0.1)
    told = kms.describe_key(KeyId=key)["KeyMetadata"]
    assert told["KeyState"] == "PendingDeletion"
    assert round((told["DeletionDate"] - datetime.now(UTC)) / timedelta(days=1)) == 7
    assert apply(**WIDE)["outputs"]["vault_key"] == key, "what Vault has sealed could not be opened"
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Enabled"
    keys = [kms.describe_key(KeyId=one["KeyId"])["KeyMetadata"] for one in kms.list_keys()["Keys"]]
    assert [one["Arn"] for one in keys if one["Description"] == "Opens Vault of quote"] == [key]
    with pytest.raises(aws.Refused, match="aws_account_destroy_key_days: 3; allowed are 7 to 30"):
        aws.remove(GONE | {"key_days": 3}, False)


def test_vault_may_use_its_key_and_the_database_is_closed(strict: Strict) -> None:
    strict.database_seconds = 1
    started = time.monotonic()
    made = apply(**WIDE)
    assert time.monotonic() - started > 1
    (one,) = boto3.client("rds").describe_db_instances()["DBInstances"]
    assert one["MultiAZ"] and one["StorageEncrypted"] and one["DeletionProtection"]
    assert not one["PubliclyAccessible"] and one["BackupRetentionPeriod"] == 7
    assert one["DBInstanceClass"] == "db.t3.medium" and one["CopyTagsToSnapshot"]
    assert made["outputs"]["database"] == {
        "host": one["Endpoint"]["Address"],
        "port": "5432",
        "secret": one["MasterUserSecret"]["SecretArn"],
        "networks": [
            subnet["CidrBlock"]
            for subnet in boto3.client("ec2").describe_subnets()["Subnets"]
            if subnet["SubnetId"] in {its["SubnetIdentifier"] for its in one["DBSubnetGroup"]["Subnets"]}
        ],
    }
    assert len(made["outputs"]["database"]["networks"]) == 2
    assert not any("MasterUserPassword=" in body.replace("ManageM", "") for body in strict.bodies)
    flows = design.flows(aws.chosen(given(**WIDE)))["database"]
    assert [rule if isinstance(rule, str) else rule.form.format(rule.name) for rule in flows] == [
        "tcp 5432 from control-plane",
        "tcp 5432 from workers",
    ]

    key = made["outputs"]["vault_key"]
    (allowed,) = boto3.client("iam").get_role_policy(RoleName="quote-vault", PolicyName="quote-platform")[
        "PolicyDocument"
    ]["Statement"]
    assert allowed["Resource"] == key
    assert set(allowed["Action"]) == {"kms:Encrypt", "kms:Decrypt", "kms:DescribeKey"}
    (machine,) = [
        one for one in Strict.there(ec2_backends[ACCOUNT]["eu-west-1"]) if "vault-1" in str(one.get_tags())
    ]
    assert machine.iam_instance_profile["Arn"].endswith("/quote-vault")
    repository = boto3.client("ecr").describe_repositories()["repositories"][0]
    assert made["outputs"]["repositories"] == {"quote-app": repository["repositoryUri"]}


def told(made: dict[str, Any], folder: Path, *names: str, **own: Any) -> dict[str, Any]:
    """Return what inventories/aws tells the platform of what was made, with the roles' defaults."""
    init_plugin_loader()
    loader = DataLoader()
    context: dict[str, Any] = {
        "inventory_dir": str(folder),
        "playbook_dir": str(folder),
        "groups": {"vault": ["vault-1"]},
    }
    for file in (
        "roles/postgres/defaults/main.yml",
        "roles/postgres/vars/main.yml",
        "group_vars/all/main.yml",
        "inventories/aws/group_vars/all/main.yml",
        "inventories/aws/group_vars/platform/main.yml",
    ):
        context |= loader.load_from_file(str(ROOT / file), trusted_as_template=True)
    templar = Templar(loader=loader, variables=context | {"aws_account_made": made} | own)
    return {name: templar.template((context | own)[name]) for name in names}


def test_the_platform_uses_the_database_that_is_made(strict: Strict, tmp_path: Path) -> None:
    made = apply(**WIDE)["outputs"]
    (one,) = boto3.client("rds").describe_db_instances()["DBInstances"]
    # As AWS makes it; of the double it is a name only.
    account = {"username": one["MasterUsername"], "password": "of the administrator"}
    secret = boto3.client("secretsmanager").create_secret(Name="rds!db-1", SecretString=json.dumps(account))
    made["database"]["secret"] = secret["ARN"]
    (tmp_path / "rds-bundle.pem").write_text("an authority\n")
    names = ["database", "database_host", "database_port", "database_networks", "database_authority"]
    names += ["secrets_backend", "database_administrator_secret", "__postgres_administrator_account"]
    found = told(made, tmp_path, *names, aws_database_choice="rds")
    assert found == {
        "database": "external",
        "database_host": one["Endpoint"]["Address"],
        "database_port": 5432,
        "database_networks": made["database"]["networks"],
        "database_authority": "an authority\n",
        "database_administrator_secret": secret["ARN"],
        "__postgres_administrator_account": account,
        "secrets_backend": "",
    }
    usual = told(made, tmp_path, *names[:-1])
    assert usual.pop("database") == "cloudnative-pg" and usual.pop("secrets_backend") == "vault"
    assert usual.pop("database_port") == 5432 and not any(usual.values())


def test_destroy_is_killed_and_goes_on(strict: Strict) -> None:
    apply(**WIDE)
    for _ in range(4):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            killed_after(5, patch)
            aws.remove(GONE, False, pause=0.1)
    aws.remove(GONE, False, pause=0.1)
    assert found() == {}


def test_the_double_refuses_a_wrong_order(strict: Strict) -> None:
    """Else it would prove nothing."""
    apply(**WIDE)
    there, ec2 = found(), boto3.client("ec2")
    rds = boto3.client("rds")
    for kind, name, call, argument in (
        ("database-subnets", "main", rds.delete_db_subnet_group, "DBSubnetGroupName"),
        ("database-parameters", "main", rds.delete_db_parameter_group, "DBParameterGroupName"),
        ("security-group", "database", ec2.delete_security_group, "GroupId"),
        ("subnet", "private-a", ec2.delete_subnet, "SubnetId"),
        ("vpc", "main", ec2.delete_vpc, "VpcId"),
        ("security-group", "workers", ec2.delete_security_group, "GroupId"),
        ("route-table", "public", ec2.delete_route_table, "RouteTableId"),
        ("address", "nat-a", ec2.release_address, "AllocationId"),
        ("target-group", "api", boto3.client("elbv2").delete_target_group, "TargetGroupArn"),
    ):
        with pytest.raises(ClientError, match=r"DependencyViolation|InUse|InvalidDB\w+GroupState"):
            call(**{argument: there[kind, name].id})
    with pytest.raises(ClientError, match="OperationNotPermitted"):
        ec2.terminate_instances(InstanceIds=[there["machine", "master-1"].id])


def test_another_account_is_left_alone(strict: Strict) -> None:
    with pytest.raises(aws.Refused, match=f"aws_account_id: 210987654321 is not the account .* {ACCOUNT}"):
        apply(account_id="210987654321")
    with pytest.raises(aws.Refused, match="aws_account_id: 210987654321 is not the account"):
        aws.remove(GONE | {"account_id": "210987654321"}, False)
    assert set(strict.calls) == {"sts:GetCallerIdentity"}


def test_without_credentials_it_says_so(
    strict: Strict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(aws.Refused, match="there are no credentials for it"):
        apply()
    assert not strict.calls


WRONG = [
    ({"region": "europe"}, "aws_account_region: 'europe' is not a region; allowed is for example eu-west-1"),
    ({"account_id": "12"}, "aws_account_id: '12' is not an account; allowed are its 12 digits, as text"),
    ({"cluster": "a-cluster-with-a-long-name"}, "cluster_name: 'a-cluster-with-a-long-name' cannot name"),
    ({"network__cidr": "10.0.0.0/26"}, "aws_network_cidr: 10.0.0.0/26 is too small; allowed are /16 to /24"),
    (
        {"network__cidr": "10.240.0.0/12"},
        "aws_network_cidr: 10.240.0.0/12 overlaps cluster_pod_cidr 10.244.0.0/16",
    ),
    (
        {"network__cidr": "10.96.4.0/22"},
        "aws_network_cidr: 10.96.4.0/22 overlaps cluster_service_cidr 10.96.0.0/16",
    ),
    ({"network__cidr": "10.0.0.1/16"}, "aws_network_cidr: '10.0.0.1/16' is not a network"),
    ({"network__cidr": "198.51.0.0/16"}, "aws_network_cidr: 198.51.0.0/16 is not private"),
    ({"network__zones": ["us-east-1a"]}, "aws_network_zones: us-east-1a is not a zone of eu-west-1"),
    (
        {"network__zones": ["eu-west-1z"]},
        "aws_network_zones: the region eu-west-1 has no zone eu-west-1z; allowed are",
    ),
    ({"network__admin_cidrs": []}, "aws_network_admin_cidrs: empty"),
    ({"network__admin_cidrs": ["0.0.0.0/0"]}, "aws_network_admin_cidrs: 0.0.0.0/0 opens SSH to the world"),
    ({"machines__control_planes": 2}, "aws_machines_control_planes: 2; allowed are 1 or 3"),
    ({"machines__vaults": 2}, "aws_machines_vaults: 2; allowed are 0, 1 or 3"),
    ({"machines__ssh_keys": []}, "aws_machines_ssh_keys: empty"),
    ({"machines__ssh_keys": ["-----BEGIN"]}, "aws_machines_ssh_keys: '-----BEGIN' is not a public key"),
    (
        {"machines__types": dict.fromkeys(GROUPS, "x9.huge")},
        "master-1: the zone eu-west-1a has no machines of type x9.huge",
    ),
    ({"buckets__names": {"logs": "Logs"}}, "aws_buckets_names.logs: 'Logs' is not the name of a bucket"),
    ({"buckets__names": {"log": "logs-7"}}, "aws_buckets_names.log: is none of aws_buckets_purposes"),
    (
        {"buckets__names": {"logs": "strangers-logs"}},
        "aws_buckets_names.logs: the name strangers-logs is taken",
    ),
    (
        {"buckets__names": {"logs": "own-full-logs"}},
        "aws_buckets_names.logs: the name own-full-logs is taken",
    ),
    ({"keys__vault": True, "machines__vaults": 0}, "aws_keys_vault: true, and there is no machine"),
    ({"keys__vault": True}, "aws_keys_vault: the name alias/quote-vault is taken by the key"),
    ({"registry__repositories": ["App"]}, "aws_registry_repositories: 'App' is not the name of a repository"),
    (
        {"registry__repositories": ["old"]},
        "aws_registry_repositories: the repository quote/old is there without",
    ),
    ({"database__choice": "mysql"}, "aws_database_choice: 'mysql'; allowed are cloudnative-pg, rds"),
    (
        {"database__choice": "rds", "database__version": "9"},
        "aws_database_version: RDS has no PostgreSQL 9 in eu-west-1; allowed are 15, 16, 17",
    ),
    (
        {"database__choice": "rds", "database__version": "17.4"},
        "aws_database_version: '17.4' is not a major version of PostgreSQL",
    ),
    ({"database__choice": "rds", "network__zones": ["eu-west-1a"]}, "aws_network_zones: one; RDS wants two"),
    (
        {"database__choice": "rds", "database__type": "t3.medium"},
        "aws_database_type: 't3.medium' is not a type",
    ),
    (
        {"database__choice": "rds", "database__backup_days": 0},
        "aws_database_backup_days: 0; allowed are 1 to 35",
    ),
    ({"database__choice": "rds"}, "aws_database_choice: the name quote-main is taken by arn:aws:rds:"),
    (
        {"dns": CHOSEN["dns"] | {"domain": "example.org", "hosts": ["a.example.com"]}},
        "aws_dns_hosts: 'a.example.com' is not in aws_dns_domain example.org; allowed is for example",
    ),
    (
        {"dns": CHOSEN["dns"] | {"create_zone": False}},
        "aws_dns_domain: example.com: its zone is not in the account 123456789012; allowed are those",
    ),
    (
        {"dns": CHOSEN["dns"] | {"create_zone": False, "hosts": ["old.example.com"]}},
        "aws_dns_hosts: old.example.com is in the zone already",
    ),
    ({"dns": CHOSEN["dns"]}, "aws_dns_create_zone: the account has a zone of example.com"),
    ({"budget_mails": ["ops@example.com"]}, "aws_account_budget_mails: there is no budget to tell of"),
    ({"budget_mails": ["ops"], "budget": 900}, "aws_account_budget_mails: 'ops' is not an address"),
    ({"budget": 200}, "aws_account_budget: 200 USD a month is less than"),
    ({"budget": 900, "region": "sa-east-1"}, "aws_account_budget: cannot be held against region sa-east-1"),
]


@pytest.mark.parametrize(
    ("changed", "message"), WRONG, ids=[message.partition(";")[0] for _, message in WRONG]
)
def test_wrong_input_is_refused_before_anything_is_made(
    strict: Strict, changed: dict[str, Any], message: str
) -> None:
    s3_backends["999999999999"]["aws"].create_bucket("strangers-logs", "eu-west-1")
    s3_backends[ACCOUNT]["aws"].create_bucket("own-full-logs", "eu-west-1")
    if message.startswith("aws_keys_vault: the name"):
        kms = kms_backends[ACCOUNT]["eu-west-1"]
        stranger = kms.create_key(None, "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", "", [])
        kms.create_alias(stranger.id, "alias/quote-vault")
    if message.startswith("aws_database_choice: the name"):
        rds_backends[ACCOUNT]["eu-west-1"].create_db_parameter_group(
            {
                "db_parameter_group_name": "quote-main",
                "description": "a stranger's",
                "db_parameter_group_family": "postgres17",
                "tags": [],
            }
        )
    if message.startswith(("aws_dns_hosts: old", "aws_dns_create_zone")):
        theirs()
        strict.calls.clear()
    ecr_backends[ACCOUNT]["eu-west-1"].create_repository("quote/old", None, {}, {}, "MUTABLE", [])
    s3_backends[ACCOUNT]["aws"].put_object("own-full-logs", "a", b"b")
    for dry_run in (True, False):
        with pytest.raises(aws.Refused) as refused:
            apply(dry_run, **changed)
        assert message in str(refused.value)
    assert not [name for name in strict.calls if name.split(":")[1].startswith((*WRITES, "PUT"))]


def test_what_cannot_be_changed_is_refused_and_what_is_no_longer_declared_is_named(strict: Strict) -> None:
    apply(**SMALL)
    with pytest.raises(
        aws.Refused, match=r"machine worker-1: type is t3.medium and cannot become t3.large; keep it"
    ):
        apply(**SMALL, machines__types=dict.fromkeys(GROUPS, "t3.large"))
    targets = {"change target-group ingress-http: targets", "change target-group ingress-https: targets"}
    more = SMALL | {"machines__workers": 2}
    assert changes(apply(**more)) == {"create machine worker-2"} | targets
    fewer = apply(**SMALL)
    assert "machine worker-2" in fewer["warnings"][0]
    assert changes(fewer) == targets
    assert set(found()) == declared(**more)


def test_two_of_one_name_are_told(strict: Strict) -> None:
    apply(**SMALL)
    tags = [
        {"Key": "quote-platform/cluster", "Value": "quote"},
        {"Key": "quote-platform/name", "Value": "main"},
    ]
    boto3.client("ec2").create_vpc(
        CidrBlock="10.9.0.0/16", TagSpecifications=[{"ResourceType": "vpc", "Tags": tags}]
    )
    with pytest.raises(aws.Refused, match=r"vpc main: there are two, vpc-\w+ and vpc-\w+"):
        apply(**SMALL)


def test_the_inventory_looks_for_the_machines_that_are_made(tmp_path: Path) -> None:
    shipped = yaml.safe_load((ROOT / "inventories/aws/aws_ec2.yml").read_text())
    own = yaml.safe_load((ROOT / "inventories/aws/group_vars/all/main.yml").read_text())
    assert shipped["regions"] == [own["aws_account_region"]]
    assert shipped["filters"]["tag:quote-platform/cluster"] == own["cluster_name"]
    shipped["filters"]["tag:quote-platform/cluster"] = "another"
    (tmp_path / "aws_ec2.yml").write_text(yaml.safe_dump(shipped))
    with pytest.raises(
        aws.Refused, match=r"tag:quote-platform/cluster another; allowed is cluster_name, quote"
    ):
        aws.designed(given(inventory=str(tmp_path)))


def test_a_bill_names_everything_that_is_paid() -> None:
    bill = cost.bill(aws.chosen(GIVEN), {})
    rows = {row.component: row for row in bill.rows}
    assert rows["machines, workers"].price == pytest.approx(3 * 0.0456 * 730)
    assert rows["NAT gateways"].count == 1
    assert rows["public addresses"].count == 3 * 2 + 1 + 1
    assert rows["disks"].count == 8 * 30
    assert bill.total == pytest.approx(sum(row.price for row in bill.rows), abs=0.01)
    inside = cost.bill(aws.chosen(given(balancers__api_scheme="internal", network__nat="none")), {})
    assert {row.component: row.count for row in inside.rows}["public addresses"] == 3 + 8
    assert not [row for row in inside.rows if "NAT" in row.component]
    more = cost.bill(aws.chosen(given(**CHOSEN)), {})
    extra = {row.component: row.price for row in more.rows}
    assert extra["database, RDS"] == pytest.approx(2 * 0.078 * 730)
    assert extra["database, disks"] == pytest.approx(2 * 20 * 0.127)
    assert extra["names, zone"] == 0.5 and extra["names, health check"] == 1.5
    assert extra["keys"] == 1 and extra["repositories"] == pytest.approx(10 * 0.1)
    paid = cost.bill(aws.chosen(given(network__endpoints=["s3", "ecr.api", "ecr.dkr"])), {"transfer_gb": 150})
    assert {row.component: row.count for row in paid.rows}["endpoints"] == 6
    assert {row.component: row.price for row in paid.rows}["transfer to the internet"] == pytest.approx(
        50 * 0.09
    )
    unknown = cost.bill(aws.chosen(given(machines__types=dict.fromkeys(GROUPS, "x9.huge"))), {})
    assert unknown.unknown == ["machines of type x9.huge"] * 4
    assert sum(row["price"] for row in bill.reference["rows"]) == bill.reference["total"]


def test_the_command_prints_the_bill_of_the_shipped_inventory() -> None:
    done = CliRunner().invoke(app, ["cost", "-i", str(ROOT / "inventories/aws"), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["region"] == "eu-west-1" and 250 < told["total"] < 400
    shown = CliRunner().invoke(app, ["cost", "-i", str(ROOT / "inventories/aws")])
    assert f"{told['total']:.2f}" in shown.output and "216.00" in shown.output


def test_the_command_compares_databases() -> None:
    command = ["cost", "-i", str(ROOT / "inventories/aws"), "--compare"]
    told = json.loads(CliRunner().invoke(app, [*command, "rds,cloudnative-pg", "--json"]).stdout)
    own = {row["component"]: row["price"] for row in told["rds"]["rows"]}
    without = {row["component"] for row in told["cloudnative-pg"]["rows"]}
    more = sum(own[name] for name in own.keys() - without)
    assert told["rds"]["total"] - told["cloudnative-pg"]["total"] == pytest.approx(more, abs=0.02)
    shown = CliRunner().invoke(app, [*command, "rds,cloudnative-pg"])
    assert f"{told['rds']['total']:.2f}" in shown.output and "database, RDS" in shown.output
    wrong = CliRunner().invoke(app, [*command, "mysql"])
    assert wrong.exit_code == 1 and "--compare: mysql; allowed are cloudnative-pg, rds" in wrong.output
