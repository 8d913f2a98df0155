"""What is lost comes back, to the second, from the object store."""

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event

import httpx

from .conftest import NAME, Lab
from .test_platform import primary_of, site, succeeded

# 5 s, doubled as the other bounds: a busy machine archives more slowly. The figure is in the run's steps.
SECONDS_LOST = 10


@contextmanager
def writer(lab: Lab, mark: str) -> Iterator[dict[int, float]]:
    """Keep adding quotes while the block runs; yield the number and moment of each that was acknowledged."""
    stop, acknowledged = Event(), dict[int, float]()

    def write() -> None:
        with lab.http(lab.workers[0]) as http:
            number = 0
            while not stop.wait(0.1):
                number += 1
                try:
                    body = {"text": f"{mark} {number}", "author": "e2e"}
                    if lab.ask(http, "POST", "/api/quotes", json=body).status_code == 201:
                        acknowledged[number] = time.monotonic()
                except httpx.HTTPError:
                    pass

    with ThreadPoolExecutor() as pool:
        pool.submit(write)
        try:
            yield acknowledged
        finally:
            stop.set()


def sql(lab: Lab, statement: str) -> str:
    return lab.kubectl(
        f'exec -n quote-lab {primary_of(lab)} -c postgres -- psql -d quotes -Atc "{statement}"'
    ).strip()


def stored(lab: Lab, mark: str) -> set[int]:
    """Return the numbers of a writer's rows."""
    lines = sql(lab, f"select split_part(text, ' ', 2) from quotes where text like '{mark} %'")  # noqa: S608
    return {int(line) for line in lines.split() if line.isdigit()}


def test_a_backup_is_made_on_demand(lab):
    succeeded(lab.play("backup", "playbooks/backup.yml"))
    phases = lab.kubectl("get backup.postgresql.cnpg.io -n quote-lab -o jsonpath={.items[*].status.phase}")
    assert "completed" in phases.split()


def test_a_dropped_table_is_restored_to_the_second_before(lab):
    mark = uuid.uuid4().hex
    with writer(lab, mark) as acknowledged:
        time.sleep(5)
    before = set(acknowledged)
    assert len(before) > 10
    time.sleep(2)
    moment = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    time.sleep(2)
    sql(lab, "drop table quotes")
    arguments = ("playbooks/restore-postgres.yml", "-e", f"restore_time={moment}")
    refused = lab.play("restore without confirmation", *arguments)
    assert refused.status != 0
    assert f"Say so: -e restore_confirm={NAME}" in " ".join(refused.output.split())
    early = lab.play(
        "restore to before the first backup", *arguments[:2], "restore_time=2020-01-01T00:00:00Z"
    )
    assert "no base backup before 2020-01-01T00:00:00Z" in " ".join(early.output.split())
    succeeded(lab.play("restore to the second before", *arguments, "-e", f"restore_confirm={NAME}"))
    assert stored(lab, mark) == before
    again = site(lab, "dry run after the restore", "--check", "--diff")
    assert set(again.changed.values()) == {0}, again.differences


def test_the_whole_database_is_lost(lab):
    mark = uuid.uuid4().hex
    with writer(lab, mark) as acknowledged:
        time.sleep(30)
        # Killed, so that no instance closes and archives what it has.
        lab.kubectl("delete pod -n quote-lab -l cnpg.io/cluster=postgres --grace-period=0 --force")
        lab.kubectl("delete cluster.postgresql.cnpg.io -n quote-lab postgres --wait=false")
        lab.kubectl("delete pvc -n quote-lab -l cnpg.io/cluster=postgres --wait=false")
    arguments = ("playbooks/restore-postgres.yml", "-e", f"restore_confirm={NAME}")
    succeeded(lab.play("restore of the whole database", *arguments))
    lost = set(acknowledged) - stored(lab, mark)
    assert len(acknowledged) > 100
    last = max(acknowledged.values())
    age = last - min((acknowledged[number] for number in lost), default=last)
    lab.steps.append((f"of acknowledged writes lost with the whole database ({len(lost)} rows)", age))
    assert age <= SECONDS_LOST


def test_the_object_store_is_away(lab, eventually):
    """The application serves and writes; the archive catches up when the store is back."""
    lab.command("quote-platform", "lab", "stop", "--name", NAME, "store-1")
    try:
        mark = uuid.uuid4().hex
        with lab.requests(lab.workers) as answers, writer(lab, mark) as acknowledged:
            time.sleep(60)
        assert answers["200"] > 0.99 * answers.total(), dict(answers)
        assert len(acknowledged) > 300
        waiting = sql(lab, "select pg_walfile_name(pg_current_wal_lsn())")
        assert sql(lab, "select last_archived_wal from pg_stat_archiver") < waiting
        failed = lab.play("backup without a store", "playbooks/backup.yml", seconds=400)
        assert failed.status != 0
    finally:
        lab.command("quote-platform", "lab", "start", "--name", NAME, "store-1")
    sql(lab, "select pg_switch_wal()")
    eventually(
        lambda: sql(lab, "select last_archived_wal from pg_stat_archiver") >= waiting, 240, "not archived"
    )
    assert stored(lab, mark) == set(acknowledged)


def test_etcd_is_lost_and_restored(lab, eventually):
    """The application serves without an API server; afterwards the cluster is as it was."""
    lab.kubectl("create configmap marker -n default --from-literal=word=kept")
    succeeded(lab.play("backup before etcd is lost", "playbooks/backup.yml"))
    pods = set(lab.kubectl("get pods -n quote-lab -l app.kubernetes.io/name=quote-app -o name").split())
    lab.ssh(
        "master-1",
        "cd /var/lib/etcd/member; for file in snap/db wal/*.wal; do echo lost > $file; done; "
        "crictl ps --name '^etcd$' --quiet | xargs crictl stop --timeout 0",
    )
    gone = "get --raw /readyz --request-timeout=5s"
    eventually(lambda: "ok" not in lab.kubectl(gone, check=False).splitlines(), 60, "the API still answers")
    with lab.requests(lab.workers) as answers:
        arguments = ("playbooks/restore-etcd.yml", "-e", f"restore_confirm={NAME}")
        succeeded(lab.play("restore of etcd", *arguments))
    assert answers["200"] > 0.99 * answers.total(), dict(answers)
    assert lab.kubectl("get configmap marker -n default -o jsonpath={.data.word}").strip() == "kept"
    lab.kubectl("rollout status -n quote-lab deployment/quote-app --timeout=180s")
    after = set(lab.kubectl("get pods -n quote-lab -l app.kubernetes.io/name=quote-app -o name").split())
    assert after == pods, "pods were made anew"
    lab.kubectl("delete configmap marker -n default")
    run = site(lab, "dry run after the restore of etcd", "--check", "--diff")
    assert set(run.changed.values()) == {0}, run.differences
