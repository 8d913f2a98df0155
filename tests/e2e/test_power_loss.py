"""All machines lose power in the same second and start in any order: everything comes back by itself.

What containers had written, the kernel keeps when they are killed: losses of a disk are not part of it.
"""

import random
import time
import uuid

import httpx
import pytest

from quote_platform.upgrade.cluster import Cluster

from .conftest import NAME, ROOT, Eventually, Lab, load, stored, writer
from .test_platform import succeeded

ROUNDS = 5
SECONDS_TO_COME_BACK = 180
NODES = ["master-1", "worker-1", "worker-2", "worker-3"]
MACHINES = [*NODES, "store-1", "vault-1"]


def answering(lab: Lab) -> bool:
    """Tell whether a quote can be added and read at every worker."""
    body = {"text": "power is back", "author": "e2e"}
    try:
        for address in lab.workers:
            with lab.http(address) as http:
                if lab.ask(http, "POST", "/api/quotes", json=body).status_code != 201:
                    return False
    except httpx.HTTPError:
        return False
    return True


@pytest.mark.proof(minutes=25)
def test_all_machines_lose_power_in_the_same_second(lab: Lab, eventually: Eventually) -> None:
    cluster = Cluster(str(ROOT / "secrets" / NAME / "kubeconfig"))
    took = list[float]()
    for number in range(1, ROUNDS + 1):
        mark = uuid.uuid4().hex
        with writer(lab, mark) as acknowledged:
            time.sleep(10)
            lost = time.time()
            lab.off(*MACHINES)
        assert len(acknowledged) > 20
        order, started = random.sample(MACHINES, len(MACHINES)), time.monotonic()
        for machine in order:
            lab.on(machine)
        left = SECONDS_TO_COME_BACK - (time.monotonic() - started)
        cluster.wait(left, [], {f"{NAME}-{node}": lost for node in NODES})
        left = SECONDS_TO_COME_BACK - (time.monotonic() - started)
        eventually(lambda: answering(lab), left, "a worker does not take a quote")
        took.append(time.monotonic() - started)
        lab.steps.append((f"power is back, {number}: {', '.join(order)}", took[-1]))
        assert set(acknowledged) <= stored(lab, mark)

        # Only Vault needs a person, or the playbook; until then it says so.
        sealed = lab.ssh("vault-1", "curl --silent --insecure https://127.0.0.1:8200/v1/sys/seal-status")
        assert '"sealed":true' in sealed
        succeeded(lab.play("open Vault", "playbooks/vault.yml"))
    with load(lab, uuid.uuid4().hex) as answers:
        time.sleep(20)
    answers.none_failed()
    print(f"\nback after {', '.join(f'{seconds:.0f}' for seconds in took)} s")
    assert max(took) <= SECONDS_TO_COME_BACK
