"""A snapshot reaches the object store whole; its pods have few rights; a store that refuses fails the job."""

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from proxy import proxying
from scenario import Cluster, Eventually, Inventory

NAMESPACE = "etcd-snapshots"


class Job(Protocol):
    """Runs the CronJob once under a name, until it has a condition."""

    def __call__(self, name: str, condition: str = "Complete") -> None: ...


@pytest.fixture(scope="module")
def job(cluster: Cluster) -> Iterator[Job]:
    """Run the CronJob by hand; return a caller that waits for it."""
    made: list[str] = []

    def run(name: str, condition: str = "Complete") -> None:
        cluster.run(f"--namespace={NAMESPACE} create job {name} --from=cronjob/etcd-snapshot")
        made.append(name)
        cluster.wait(f"--namespace={NAMESPACE} --for=condition={condition} job/{name}", 180)

    yield run
    for name in made:
        cluster.run(f"--namespace={NAMESPACE} delete job {name} --ignore-not-found")


@pytest.fixture(scope="module")
def prefix(variables: dict[str, Any]) -> str:
    return f"{variables['cluster_name']}/etcd"


def backup(inventory: Inventory, *words: str) -> Any:
    """Call the package as an administrator does, with the account that the CronJob has."""
    master = inventory.variables(inventory.hosts("control_plane")[0])
    keys = yaml.safe_load((inventory.secrets / "object-store.yml").read_text())
    store = inventory.variables(inventory.hosts("object_store")[0])["ansible_host"]
    environment = {
        "S3_ENDPOINT": f"https://{store}:7070",
        "S3_REGION": "us-east-1",
        "S3_BUCKET": f"{master['cluster_name']}-snapshots",
        "AWS_ACCESS_KEY_ID": "snapshots",
        "AWS_SECRET_ACCESS_KEY": keys["snapshots"],
        "AWS_CA_BUNDLE": str(inventory.secrets / "certificates/authority.crt"),
    }
    command = [sys.executable, "-m", "quote_platform.backup", *words]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_snapshot_is_stored_whole(
    cluster: Cluster, inventory: Inventory, job: Job, prefix: str, tmp_path: Path
) -> None:
    job("molecule-whole")
    logs = f"--namespace={NAMESPACE} logs job/molecule-whole --container"
    stored = json.loads(cluster.run(f"{logs}=store"))
    status = json.loads(cluster.run(f"{logs}=inspect"))
    assert status["totalKey"] > 100
    listed = backup(inventory, "list", prefix, "--json")
    assert {"name": stored["name"].rpartition("/")[2], "bytes": stored["bytes"], "whole": True}.items() <= (
        listed[0].items()
    )
    fetched = backup(inventory, "fetch", prefix, str(tmp_path / "etcd.db"))
    assert fetched["sha256"] == stored["sha256"]
    assert (tmp_path / "etcd.db").stat().st_size == stored["bytes"]
    assert backup(inventory, "check", prefix, "--max-age=600")["name"] == stored["name"]


def test_retention_ran_and_kept_the_newest_of_the_day(
    cluster: Cluster, inventory: Inventory, job: Job, prefix: str
) -> None:
    job("molecule-prune")
    line = json.loads(cluster.run(f"--namespace={NAMESPACE} logs job/molecule-prune --container=prune"))
    assert line["kept"] == len(backup(inventory, "list", prefix, "--json"))
    assert line["kept"] <= 2  # midnight may have passed


def test_its_pods_hold_no_more_than_they_need(cluster: Cluster) -> None:
    spec = cluster.get(f"cronjob etcd-snapshot --namespace={NAMESPACE}")["spec"]["jobTemplate"]["spec"]
    pod = spec["template"]["spec"]
    assert not pod.get("hostNetwork")
    assert pod["automountServiceAccountToken"] is False
    mounted = {volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    assert mounted == {
        f"/etc/kubernetes/pki/etcd/{name}"
        for name in ("ca.crt", "healthcheck-client.crt", "healthcheck-client.key")
    }
    for container in pod["initContainers"] + pod["containers"]:
        rights = container["securityContext"]
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert rights["readOnlyRootFilesystem"] is True
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        assert "healthcheck-client-key" not in mounts or container["name"] == "take"
        assert not any("value" in one for one in container.get("env", []) if "SECRET" in one["name"])


def test_a_store_that_refuses_fails_the_job_and_says_why(
    cluster: Cluster, job: Job, variables: dict[str, Any]
) -> None:
    secret = f"--namespace={NAMESPACE} patch secret object-store --type=merge --patch"
    before = cluster.get(f"secret object-store --namespace={NAMESPACE}")["data"]["secret-key"]
    cluster.run(f"""{secret}='{json.dumps({"data": {"secret-key": "d3Jvbmc="}})}'""")
    try:
        job("molecule-refused", "Failed")
        pods = cluster.get(f"pods --namespace={NAMESPACE} --selector=job-name=molecule-refused")["items"]
        logs = cluster.run(f"--namespace={NAMESPACE} logs {pods[0]['metadata']['name']} --container=store")
        assert f"bucket {variables['cluster_name']}-snapshots at https://" in logs
        assert "check AWS_ACCESS_KEY_ID" in logs
    finally:
        cluster.run(f"""{secret}='{json.dumps({"data": {"secret-key": before}})}'""")


def names(cluster: Cluster, kind: str) -> set[str]:
    return {one["metadata"]["name"] for one in cluster.get(f"{kind} --namespace={NAMESPACE}")["items"]}


def test_snapshots_go_through_a_proxy_whose_password_is_in_a_secret_only(
    cluster: Cluster,
    inventory: Inventory,
    job: Job,
    variables: dict[str, Any],
    eventually: Eventually,
) -> None:
    # With a character that stands encoded in a URL.
    password = f"{uuid.uuid4().hex}/"
    host = inventory.variables(inventory.hosts("object_store")[0])["ansible_host"]
    with proxying(f"platform:{password}") as proxy:
        gateway = re.sub(r"\d+$", "1", str(variables["ansible_host"]))
        # Not the store, which is an exception otherwise.
        given = {"cluster_http_proxy": proxy.url(gateway), "cluster_no_proxy": [".svc", "10.96.0.0/16"]}
        try:
            _, output = inventory.converge("--diff", "--extra-vars", json.dumps(given))
            assert "proxy" in names(cluster, "secrets")
            job("molecule-proxied")
            found = [one for one in list(proxy.asked) if one.target == f"{host}:7070"]
            assert found, f"nobody asked for the store: {proxy.asked}"
            assert all(one.account == proxy.account for one in found)
            logs = f"--namespace={NAMESPACE} logs job/molecule-proxied --container"
            shown = [output, cluster.run(f"{logs}=store"), cluster.run(f"{logs}=prune")]
            kinds = "cronjobs,jobs,pods,configmaps,networkpolicies,events"
            shown.append(cluster.run(f"--namespace={NAMESPACE} get {kinds} --output=yaml"))
            for text in shown:
                assert password[:-1] not in text
        finally:
            inventory.converge()

        def gone() -> None:
            assert "proxy" not in names(cluster, "secrets")

        eventually(gone)
        before = len(proxy.asked)
        job("molecule-direct")
        assert len(proxy.asked) == before
