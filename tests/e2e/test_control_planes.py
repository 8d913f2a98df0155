"""Three control planes behind an address of theirs, in a lab of their own: any of them may go."""

import base64
import json
import re
import ssl
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from .conftest import ROOT, Eventually, Machines, Run, gone_before_and_after, repeated

NAME, SUBNET, ADDRESS = "ha", "10.89.51.0/24", "10.89.51.10"
LAB_UP = ["quote-platform", "lab", "up", "--name", NAME, "--subnet", SUBNET, "--virtual-ip"]
LAB_UP += ["--workers", "1", "--control-plane-memory", "2500m", "--worker-memory", "2500m"]
LAB_UP += ["--components", "core"]
KUBECONFIG = ROOT / "secrets" / NAME / "kubeconfig"
NAMES = [f"master-{number}" for number in (1, 2, 3)]
SECONDS_WITHOUT_API = 15
PKI = "/etc/kubernetes/pki/etcd"
ETCDCTL = (
    "crictl exec $(crictl ps --quiet --label io.kubernetes.pod.namespace=kube-system --name '^etcd$') "
    f"etcdctl --endpoints=https://127.0.0.1:2379 --cacert={PKI}/ca.crt --cert={PKI}/healthcheck-client.crt "
    f"--key={PKI}/healthcheck-client.key "
)
# Says on which node it runs, whatever becomes of the API server.
SERVER = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "server"},
    "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {
                "name": "main",
                "image": "docker.io/library/busybox:1.37.0",
                "command": ["sh", "-c", "cd /tmp && echo here > index.html && busybox httpd -f -p 8080"],
            }
        ],
    },
}

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def masters() -> Iterator[Machines]:
    """Return a lab, which the tests start as large as they want it; E2E_KEEP=1 keeps what there is."""
    with gone_before_and_after(Machines(name=NAME)) as found:
        yield found


def cluster(masters: Machines, title: str) -> Run:
    """Build the cluster, or what is missing of it."""
    run = masters.play(title, "playbooks/cluster.yml", seconds=1800)
    assert run.status == 0, run.output[-6000:]
    return run


def members(masters: Machines, node: str) -> tuple[dict[str, str], str]:
    """Return etcd's members by their names, each with its number, and which leads.

    One that never started has no name.
    """
    asked = f"{ETCDCTL} member list --write-out json && {ETCDCTL} endpoint status --write-out json"
    listed, status = map(json.loads, masters.ssh(node, asked).split("\n", maxsplit=1))
    numbers = {one.get("name", "").removeprefix(f"{NAME}-"): f"{one['ID']:x}" for one in listed["members"]}
    leads = f"{status[0]['Status']['leader']:x}"
    return numbers, next(name for name, number in numbers.items() if number == leads)


def holder(masters: Machines) -> str:
    """Return who has the virtual address."""
    shown = {name: masters.ssh(name, "ip -4 -oneline address show", check=False) for name in NAMES}
    (has,) = [name for name, text in shown.items() if f" {ADDRESS}/32 " in text]
    return has


def whole(masters: Machines, node: str) -> bool:
    """Tell whether all members of etcd and all nodes are well."""
    health = masters.ssh(node, f"{ETCDCTL} endpoint health --cluster 2>&1", check=False)
    nodes = masters.kubectl("get nodes --no-headers", check=False, node=node)
    return health.count("is healthy") == 3 and len(re.findall(r" Ready ", nodes)) == 4


def client(folder: Path) -> httpx.Client:
    """Return a client by the kubeconfig that a run has left on the controller."""
    kept = yaml.safe_load(KUBECONFIG.read_text())
    cluster, user = kept["clusters"][0]["cluster"], kept["users"][0]["user"]
    context = ssl.create_default_context(cadata=decoded(cluster["certificate-authority-data"]))
    pair = folder / "administrator.pem"
    pair.touch(mode=0o600)
    pair.write_text(decoded(user["client-certificate-data"]) + decoded(user["client-key-data"]))
    context.load_cert_chain(pair)
    assert cluster["server"] == f"https://{ADDRESS}:8443"
    return httpx.Client(base_url=cluster["server"], verify=context, timeout=3)


def decoded(text: str) -> str:
    """Return what a kubeconfig has in base64."""
    return base64.b64decode(text).decode()


CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


def write(api: httpx.Client, name: str) -> bool:
    """Create a ConfigMap; tell whether that was acknowledged."""
    with suppress(httpx.HTTPError):
        body = {"metadata": {"name": name, "labels": {"e2e": name.partition("-")[0]}}}
        return api.post(CONFIG_MAPS, json=body).status_code == 201
    return False


@contextmanager
def writer(api: httpx.Client, mark: str) -> Iterator[dict[str, float]]:
    """Keep creating ConfigMaps while the block runs; yield the moment of each that was acknowledged."""
    acknowledged, numbers = dict[str, float](), count(1)

    def one() -> None:
        name = f"{mark}-{next(numbers)}"
        if write(api, name):
            acknowledged[name] = time.monotonic()

    with repeated(one, 0.1):
        yield acknowledged


def stored(api: httpx.Client, mark: str) -> set[str]:
    """Return the names of a writer's ConfigMaps."""
    found = api.get(CONFIG_MAPS, params={"labelSelector": f"e2e={mark}"}).raise_for_status().json()
    return {item["metadata"]["name"] for item in found["items"]}


def renewed(api: httpx.Client) -> datetime:
    """Return when the worker was last heard of by the API server."""
    url = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NAME}-worker-1"
    spec: dict[str, Any] = api.get(url).raise_for_status().json()["spec"]
    return datetime.fromisoformat(spec["renewTime"])


def test_three_come_up_at_once(masters: Machines) -> None:
    masters.command(*LAB_UP, "--control-planes", "3")
    run = cluster(masters, "three control planes")
    (uploads,) = re.findall(
        r"^TASK \[control_plane : Upload the certificates.*?^TASK", run.output, re.M | re.S
    )
    assert len(re.findall(r"^changed: ", uploads, re.M)) == 1
    assert sorted(members(masters, "master-1")[0]) == NAMES
    assert set(cluster(masters, "three control planes again").changed.values()) == {0}


def test_the_leader_with_the_address_dies_under_writes(
    masters: Machines, eventually: Eventually, tmp_path: Path
) -> None:
    api, mark, victim = client(tmp_path), f"w{uuid.uuid4().hex[:6]}", holder(masters)
    numbers, leads = members(masters, victim)
    if leads != victim:
        masters.ssh(leads, f"{ETCDCTL} move-leader {numbers[victim]}")
    assert members(masters, victim)[1] == victim
    with writer(api, mark) as acknowledged:
        eventually(lambda: len(acknowledged) > 20, 60, "nothing is written")
        before = len(acknowledged)
        off = datetime.now(UTC)
        masters.off(victim)
        eventually(lambda: len(acknowledged) > before + 50, 120, "nothing is written any more")
    gap = max(later - sooner for sooner, later in pairwise(sorted(acknowledged.values())))
    masters.steps.append(("without a write, while leader and address went over", gap))
    print(f"\n{len(acknowledged)} writes, {gap:.1f} s without any", flush=True)
    assert set(acknowledged) <= stored(api, mark)
    assert gap < SECONDS_WITHOUT_API
    assert holder(masters) != victim
    # The worker never asks for a machine.
    eventually(lambda: renewed(api) > off, 60, "the worker is not heard of")
    survivor = next(name for name in NAMES if name != victim)
    assert f"{NAME}-worker-1 Ready " in re.sub(
        " +", " ", masters.kubectl("get nodes --no-headers", node=survivor)
    )
    moved = holder(masters)
    masters.on(victim)
    eventually(lambda: whole(masters, victim), 180, lambda: f"{victim} does not come back")
    assert holder(masters) == moved, "who comes back does not take the address"


def test_what_runs_goes_on_without_a_majority(
    masters: Machines, eventually: Eventually, tmp_path: Path
) -> None:
    api, mark = client(tmp_path), f"m{uuid.uuid4().hex[:6]}"
    masters.kubectl(f"create -f - <<'EOF'\n{json.dumps(SERVER)}\nEOF")
    masters.kubectl("wait --for=condition=Ready pod/server --timeout=120s")
    address = masters.kubectl("get pod server -o jsonpath={.status.podIP}").strip()

    def served() -> bool:
        return masters.ssh("worker-1", f"curl -sf -m 5 http://{address}:8080/", check=False).strip() == "here"

    assert served()
    for name in NAMES[1:]:
        masters.off(name)
    assert not write(api, f"{mark}-without")
    time.sleep(30)
    assert not write(api, f"{mark}-without")
    assert served()
    masters.on(NAMES[1])
    numbers = count()
    eventually(lambda: write(api, f"{mark}-{next(numbers)}"), 120, "two of three do not suffice")
    assert served()
    masters.on(NAMES[2])
    eventually(lambda: whole(masters, "master-1"), 180, "the third does not come back")
    restarts = masters.kubectl("get pod server -o jsonpath={.status.containerStatuses[0].restartCount}")
    assert restarts.strip() == "0"


def test_the_first_is_destroyed_and_replaced(
    masters: Machines, eventually: Eventually, tmp_path: Path
) -> None:
    before, _ = members(masters, "master-2")
    masters.command("quote-platform", "lab", "destroy", "--name", NAME, "master-1")
    masters.command(*LAB_UP, "--control-planes", "3")
    cluster(masters, "the first control plane is replaced")
    after, _ = members(masters, "master-2")
    assert sorted(after) == NAMES
    assert after["master-1"] != before["master-1"]
    eventually(lambda: whole(masters, "master-1"), 120, "not all are well")
    assert write(client(tmp_path), f"r{uuid.uuid4().hex[:6]}-replaced")
    assert set(cluster(masters, "replaced, again").changed.values()) == {0}


def test_one_grows_to_three(masters: Machines, eventually: Eventually, tmp_path: Path) -> None:
    masters.command("quote-platform", "lab", "down", "--name", NAME)
    masters.command(*LAB_UP, "--control-planes", "1")
    cluster(masters, "one control plane")
    before = KUBECONFIG.read_text()
    masters.command(*LAB_UP, "--control-planes", "3")
    cluster(masters, "one becomes three")
    assert sorted(members(masters, "master-1")[0]) == NAMES
    assert KUBECONFIG.read_text() == before
    assert set(cluster(masters, "three that were one, again").changed.values()) == {0}
    eventually(lambda: whole(masters, "master-1"), 120, "not all are well")
    api, numbers = client(tmp_path), count()
    with masters.stopped("master-1"):
        name = f"g{uuid.uuid4().hex[:6]}"
        eventually(lambda: write(api, f"{name}-{next(numbers)}"), 30, "all hangs on the first")


def test_one_is_cleared_and_joins_again(masters: Machines, eventually: Eventually, tmp_path: Path) -> None:
    api, victim = client(tmp_path), holder(masters)
    others = [name for name in NAMES if name != victim]
    run = masters.play(
        "one is cleared",
        "playbooks/reset.yml",
        "--limit",
        f"{NAME}-{victim}",
        "-e",
        f"reset_confirm={NAME}-{victim}",
    )
    assert run.status == 0, run.output[-6000:]
    assert sorted(members(masters, others[0])[0]) == others
    assert holder(masters) in others
    assert f"{NAME}-{victim}" not in masters.kubectl("get nodes", node=others[0])
    assert write(api, f"c{uuid.uuid4().hex[:6]}-cleared")
    cluster(masters, "the cleared one joins again")
    assert sorted(members(masters, others[0])[0]) == NAMES
    eventually(lambda: whole(masters, others[0]), 120, "not all are well")
    assert set(cluster(masters, "cleared and joined, again").changed.values()) == {0}


def test_the_first_is_lost_and_replaced_under_another_name(
    masters: Machines, eventually: Eventually, tmp_path: Path
) -> None:
    hosts = ROOT / "inventories" / NAME / "hosts.yml"
    masters.command("quote-platform", "lab", "destroy", "--name", NAME, "master-1")
    before = hosts.read_text()
    remove = ("playbooks/remove-node.yml", "-e", f"remove_node={NAME}-master-1")
    refused = masters.play("one that is in the inventory", *remove)
    assert refused.status != 0
    assert f"{NAME}-master-1 is in the inventory" in refused.output
    (line,) = [line for line in before.splitlines(keepends=True) if line.strip() == f"{NAME}-master-1:"]
    address = before.split(line)[1].splitlines(keepends=True)[0]
    hosts.write_text(before.replace(line + address, ""))
    eventually(
        lambda: " NotReady " in masters.kubectl(f"get node {NAME}-master-1 --no-headers", node="master-2"),
        120,
        "the lost one still counts as Ready",
    )
    run = masters.play("the first is taken out", *remove)
    assert run.status == 0, run.output[-6000:]
    assert sorted(members(masters, "master-2")[0]) == NAMES[1:]
    assert set(masters.play("it is taken out again", *remove).changed.values()) == {0}

    # The machine in its place has another name in the inventory, as it would have its own.
    masters.command(*LAB_UP, "--control-planes", "3")
    hosts.write_text(hosts.read_text().replace(f"{NAME}-master-1:", f"{NAME}-master-4:"))
    cluster(masters, "another takes its place")
    assert sorted(members(masters, "master-2")[0]) == ["master-2", "master-3", "master-4"]
    eventually(lambda: whole(masters, "master-2"), 120, "not all are well")
    assert write(client(tmp_path), f"n{uuid.uuid4().hex[:6]}-new")
    assert set(cluster(masters, "another has its place, again").changed.values()) == {0}
