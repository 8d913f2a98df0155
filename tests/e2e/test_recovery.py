"""What is lost comes back, to the second, from the object store."""

import os
import time
import uuid
from datetime import UTC, datetime

import pytest

from .conftest import NAME, primary_of, sql, stored, writer
from .test_platform import succeeded

# A segment of the log is closed after two seconds, or a little more, and archived in about one.
SECONDS_LOST = 5
# Beyond those that a backup takes to fail.
SECONDS_WITHOUT_A_STORE = float(os.environ.get("E2E_SECONDS_WITHOUT_A_STORE", "0"))


@pytest.fixture(scope="module")
def backed_up(lab):
    """Back up a quote and an object, as an administrator does; return the word in both."""
    word = uuid.uuid4().hex
    with lab.http(lab.workers[0]) as http:
        body = {"text": f"{word} 1", "author": "e2e"}
        assert lab.ask(http, "POST", "/api/quotes", json=body).status_code == 201
    lab.kubectl(f"create configmap marker -n default --from-literal=word={word}")
    succeeded(lab.play("backup", "playbooks/backup.yml"))
    return word


def metrics(lab) -> dict[str, float]:
    """Return what the primary tells whoever watches it."""
    ask = r"exec 3<>/dev/tcp/localhost/9187; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; "
    ask += "grep -E '^(cnpg|barman)' <&3"
    lines = lab.kubectl(f'exec -n quote-lab {primary_of(lab)} -c postgres -- bash -c "{ask}"').splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if " " in line)}


def test_a_backup_is_made_on_demand(lab, backed_up):
    phases = lab.kubectl("get backup.postgresql.cnpg.io -n quote-lab -o jsonpath={.items[*].status.phase}")
    assert "completed" in phases.split()
    assert "Completed" in lab.kubectl("get backup.velero.io -n velero -o jsonpath={.items[*].status.phase}")


def test_etcd_is_lost_and_restored(lab, eventually, backed_up):
    """The application serves without an API server; afterwards the cluster is as it was."""
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
    assert lab.kubectl("get configmap marker -n default -o jsonpath={.data.word}").strip() == backed_up
    lab.kubectl("rollout status -n quote-lab deployment/quote-app --timeout=180s")
    after = set(lab.kubectl("get pods -n quote-lab -l app.kubernetes.io/name=quote-app -o name").split())
    assert after == pods, "pods were made anew"
    lab.kubectl("delete configmap marker -n default")


def test_rows_come_back_from_a_dump(lab, backed_up):
    """The rows are those of the dump; until all of them are back, the database is the one that was there."""
    sql(lab, f"delete from quotes where text like '{backed_up} %'; create table later (word text)")  # noqa: S608
    arguments = ("playbooks/restore-postgres.yml", "-e", f"restore_confirm={NAME}", "-e")
    unknown = lab.play("restore from an unknown dump", *arguments, "restore_dump=2020-01-01T000000Z.dump")
    assert "has no whole dump 2020-01-01T000000Z.dump. Nothing was touched. There are: 20" in " ".join(
        unknown.output.split()
    )
    planned = lab.play("dry restore from a dump", *arguments, "restore_dump=latest", "--check")
    succeeded(planned)
    assert "Would restore the database quotes from the dump 20" in " ".join(planned.output.split())
    assert stored(lab, backed_up) == set()
    succeeded(lab.play("restore from a dump", *arguments, "restore_dump=latest"))
    assert stored(lab, backed_up) == {1}
    assert sql(lab, "select to_regclass('later') is null") == "t"
    with writer(lab, backed_up) as acknowledged:
        time.sleep(2)
    assert len(acknowledged) > 5


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
            failed = lab.play("backup without a store", "playbooks/backup.yml", seconds=400)
            time.sleep(SECONDS_WITHOUT_A_STORE)
        assert failed.status != 0
        assert answers["200"] > 0.99 * answers.total(), dict(answers)
        assert len(acknowledged) > 100
        waiting = sql(lab, "select pg_walfile_name(pg_current_wal_lsn())")
        assert sql(lab, "select last_archived_wal from pg_stat_archiver") < waiting
        for name in (
            "cnpg_pg_stat_archiver_failed_count",
            'cnpg_collector_pg_wal_archive_status{value="ready"}',
        ):
            eventually(lambda name=name: metrics(lab).get(name, 0) > 0, 60, f"{name} tells nothing")
    finally:
        lab.command("quote-platform", "lab", "start", "--name", NAME, "store-1")
    sql(lab, "select pg_switch_wal()")
    eventually(
        lambda: sql(lab, "select last_archived_wal from pg_stat_archiver") >= waiting, 240, "not archived"
    )
    assert stored(lab, mark) == set(acknowledged)
