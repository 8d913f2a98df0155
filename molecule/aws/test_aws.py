"""From an account to machines that the platform is told of, and back to nothing, by a user's playbooks."""

import json
import os
import subprocess
from pathlib import Path

import boto3
import yaml

from quote_platform.aws.account import CLUSTER
from scenario import Inventory, words

ROOT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
PLAYBOOKS = ROOT / "playbooks"
FOLDER = ROOT / "inventories/molecule-aws"


def of(inventory: Inventory, host: str, name: str) -> str:
    """Return a variable that a plugin has set, which Ansible marks as such."""
    return str(inventory.variables(host)[name]["__ansible_unsafe"])


def test_the_inventory_has_the_groups_of_the_platform(inventory: Inventory) -> None:
    assert sorted(inventory.hosts("control_plane")) == ["master-1"]
    assert sorted(inventory.hosts("workers")) == ["worker-1", "worker-2", "worker-3"]
    assert inventory.hosts("vault") == ["vault-1"]
    made = yaml.safe_load((FOLDER / "group_vars/all/outputs.yml").read_text())["aws_account_made"]
    assert made["vault_key"].startswith("arn:aws:kms:eu-west-1:123456789012:key/")
    for host, address in made["addresses"].items():
        assert of(inventory, host, "ansible_host") == address


def test_validation_wants_nothing_but_the_accounts_of_the_buckets(inventory: Inventory) -> None:
    done = inventory.play("--tags=static", playbook=PLAYBOOKS / "validate.yml")
    said = words(done)
    assert done.returncode != 0 and "8 mistakes; nothing was touched." in said
    assert said.count("object_store_accounts.") >= 8
    keys = {
        purpose: {"bucket": "b", "access_key": "AKIAOWN", "secret_key": "own"}
        for purpose in ("postgres", "snapshots", "velero", "logs")
    }
    own = FOLDER / "group_vars/platform/own.yml"
    own.write_text(yaml.safe_dump({"object_store_accounts": keys}))
    assert inventory.play("--tags=static", playbook=PLAYBOOKS / "validate.yml").returncode == 0
    own.unlink()


def test_drift_is_named_and_repaired(inventory: Inventory) -> None:
    ec2 = boto3.client("ec2", region_name="eu-west-1")
    worker = of(inventory, "worker-1", "instance_id")
    group = ec2.describe_security_groups(Filters=[{"Name": "tag:quote-platform/name", "Values": ["workers"]}])
    opened = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.authorize_security_group_ingress(
        GroupId=group["SecurityGroups"][0]["GroupId"], IpPermissions=[opened]
    )
    ec2.stop_instances(InstanceIds=[worker])
    changes, output = inventory.converge("--check", "--diff")
    assert changes["localhost"] == 1
    assert "-- tcp 22 from 0.0.0.0/0" in output
    assert "-state: stopped" in output and "+state: running" in output
    inventory.converge()
    inventory.unchanged()


def test_another_account_is_refused(inventory: Inventory) -> None:
    done = inventory.play("--extra-vars=aws_account_id=210987654321")
    assert done.returncode != 0
    assert "aws_account_id: 210987654321 is not the account of these credentials" in words(done)


def test_credentials_are_in_no_output_and_in_no_file(inventory: Inventory) -> None:
    done = inventory.play("-vvv", "--check")
    assert done.returncode == 0
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    assert secret not in done.stdout + done.stderr
    assert not [file for file in FOLDER.rglob("*") if file.is_file() and secret in file.read_text()]


def test_zz_all_of_it_is_taken_away(inventory: Inventory) -> None:
    """The last: what the others use is gone then."""
    playbook = PLAYBOOKS / "aws-destroy.yml"
    refused = inventory.play(playbook=playbook)
    assert refused.returncode != 0
    assert "machine worker-3 (i-" in words(refused)
    assert "-e aws_account_confirm=production" in words(refused)
    confirmed = "--extra-vars=" + json.dumps({"aws_account_confirm": "production"})
    inventory.converge(confirmed, playbook=playbook)
    tagged = boto3.client("resourcegroupstaggingapi", region_name="eu-west-1").get_resources(
        TagFilters=[{"Key": CLUSTER}], ResourcesPerPage=100
    )["ResourceTagMappingList"]
    arns = [one["ResourceARN"] for one in tagged if ":instance/" not in one["ResourceARN"]]
    # All are shown for a while after their end, keys until their days are over.
    left = [arn for arn in arns if "natgateway" not in arn and ":key/" not in arn]
    assert sorted(arn.rpartition("-")[2] for arn in left) == ["logs", "postgres", "snapshots", "velero"]
    inventory.converge(confirmed, "--extra-vars=aws_account_destroy_buckets=true", playbook=playbook)
    names = [one["Name"] for one in boto3.client("s3").list_buckets()["Buckets"]]
    assert names == []
    found = subprocess.run(
        ["ansible-inventory", "--list", *inventory.arguments], check=True, capture_output=True, text=True
    )
    assert json.loads(found.stdout)["_meta"]["hostvars"] == {}
