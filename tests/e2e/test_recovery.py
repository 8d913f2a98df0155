"""What is lost comes back, to the second, from the object store."""

import json
import os
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from quote_platform import paths, vault
from quote_platform.mirror import catalogue

from .conftest import LAB_UP, NAME, ROOT, Eventually, Lab, primary_of, sql, stored, writer
from .test_platform import succeeded

VAULT = "https://10.89.43.121:8200"

# A segment of the log is closed after two seconds, or a little more, and archived in about one.
SECONDS_LOST = 5
# Beyond those that a backup takes to fail.
SECONDS_WITHOUT_A_STORE = float(os.environ.get("E2E_SECONDS_WITHOUT_A_STORE", "0"))


def keeper(word: str) -> dict[str, Any]:
    """Return a pod with a volume that keeps a word, as a List of objects."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "keeper"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}},
    }
    container = {
        "name": "main",
        # One of the images that the policies of admission let into the application's namespace.
        "image": catalogue.versions()["snapshots_image"],
        # Only its first pod writes; one that is made anew has what was restored.
        "command": [
            "python3",
            "-c",
            "import pathlib, sys, time; made = pathlib.Path('/data/made'); "
            "made.exists() or pathlib.Path('/data/word').write_text(sys.argv[1]); made.touch(); "
            "time.sleep(86400)",
            word,
        ],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "terminationGracePeriodSeconds": 0,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "keeper"}}],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "keeper"}, "spec": spec}
    return {"apiVersion": "v1", "kind": "List", "items": [claim, pod]}


def as_root(work: Callable[[vault.Api], Any]) -> Any:
    """Do something with Vault, opened by the keys that are kept."""
    secrets = ROOT / "secrets" / NAME
    api = vault.Api.open(VAULT, (secrets / "certificates/authority.crt").read_text(), 90)
    keys = vault.Keys(secrets / "vault-keys.yml", paths.vault_password(NAME))
    with vault.root(api, keys.load()):
        return work(api)


@pytest.fixture(scope="module")
def backed_up(lab: Lab) -> str:
    """Back up a quote, an object, a volume and a secret of Vault; return the word in all of them."""
    word = uuid.uuid4().hex
    lab.kubectl(f"apply -n quote-lab -f - <<'EOF'\n{json.dumps(keeper(word))}\nEOF")
    as_root(lambda api: api.call("POST", "kv/data/marker", {"data": {"word": word}}))
    lab.kubectl("wait -n quote-lab --for=condition=Ready pod/keeper --timeout=120s")
    with lab.http(lab.workers[0]) as http:
        body = {"text": f"{word} 1", "author": "e2e"}
        assert lab.ask(http, "POST", "/api/quotes", json=body).status_code == 201
    lab.kubectl(f"create configmap marker -n default --from-literal=word={word}")
    succeeded(lab.play("backup", "playbooks/backup.yml"))
    return word


def metrics(lab: Lab) -> dict[str, float]:
    """Return what the primary tells whoever watches it."""
    ask = r"exec 3<>/dev/tcp/localhost/9187; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; "
    ask += "grep -E '^(cnpg|barman)' <&3"
    lines = lab.kubectl(f'exec -n quote-lab {primary_of(lab)} -c postgres -- bash -c "{ask}"').splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if " " in line)}


def test_a_backup_is_made_on_demand(lab: Lab, backed_up: str) -> None:
    phases = lab.kubectl("get backup.postgresql.cnpg.io -n quote-lab -o jsonpath={.items[*].status.phase}")
    assert "completed" in phases.split()
    assert "Completed" in lab.kubectl("get backup.velero.io -n velero -o jsonpath={.items[*].status.phase}")


def test_backups_are_as_young_as_their_schedules_say(lab: Lab, backed_up: str) -> None:
    found = lab.verify("base backup", "dump", "etcd snapshot", "namespace backup")
    assert {check["status"] for check in found.values()} == {"passed"}, found


@pytest.mark.proof(minutes=10)
def test_a_drill_restores_compares_and_leaves_nothing(lab: Lab, backed_up: str) -> None:
    """Beside the database that runs, which does not change; what a killed drill has left is cleared away."""
    space, drill = "quote-lab-drill", "playbooks/restore-drill.yml"
    lab.kubectl(f"create namespace {space}")
    refused = lab.play("drill in a namespace that is there", drill)
    assert refused.status != 0
    assert f"postgres_drill_namespace: {space} is there and was made by no drill" in " ".join(
        refused.output.split()
    )
    lab.kubectl(f"delete namespace {space}")
    too_large = json.dumps({"postgres_resources": {"requests": {"cpu": "900", "memory": "1Gi"}}})
    full = lab.play("drill without room", drill, "-e", too_large)
    assert full.status != 0
    assert "and no node has as much left for it (" in " ".join(full.output.split())
    planned = lab.play("dry drill", drill, "--check")
    succeeded(planned)
    assert "Would restore the base backup 20" in " ".join(planned.output.split())
    assert space not in lab.kubectl("get namespaces -o name")

    with writer(lab, backed_up) as acknowledged:
        time.sleep(20)
    assert len(acknowledged) > 50
    lab.play_until("drill that is killed", "component : Wait for postgres-drill", drill)
    assert f"namespace/{space}" in lab.kubectl("get namespaces -o name").split()
    before = sql(lab, "select count(*), max(id) from quotes")
    words = ("quote-platform", "job", "run", "restore-drill", "-i", f"inventories/{lab.name}", "--json")
    started = time.monotonic()
    record = json.loads(lab.command(*words, check=False, seconds=1200))
    lab.steps.append(("restore drill", time.monotonic() - started))
    assert record["state"] == "done", record["message"]
    (said,) = record["summary"]["said"]
    print(f"\n{said}")
    assert "public.quotes: " in said
    assert sql(lab, "select count(*), max(id) from quotes") == before
    assert "drill" not in lab.kubectl("get namespaces -o name")
    claims = "get persistentvolumes -o jsonpath={.items[*].spec.claimRef.namespace}"
    assert space not in lab.kubectl(claims).split()
    record_of = "get configmap -n kube-system component-postgres-drill --ignore-not-found -o name"
    assert lab.kubectl(record_of).strip() == ""


def test_etcd_is_lost_and_restored(lab: Lab, eventually: Eventually, backed_up: str) -> None:
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


@pytest.mark.proof
def test_rows_come_back_from_a_dump(lab: Lab, backed_up: str) -> None:
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


@pytest.mark.proof
def test_a_dropped_table_is_restored_to_the_second_before(lab: Lab) -> None:
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
    assert f"To confirm, add -e restore_confirm={NAME}" in " ".join(refused.output.split())
    early = lab.play(
        "restore to before the first backup", *arguments[:2], "restore_time=2020-01-01T00:00:00Z"
    )
    assert "no base backup before 2020-01-01T00:00:00Z" in " ".join(early.output.split())
    confirmed = (*arguments, "-e", f"restore_confirm={NAME}")
    # One that does not come to its end takes nothing away.
    sql(lab, "create table still_there (word text)")
    late = lab.play("restore that takes too long", *confirmed, "-e", '{"postgres_restore_timeout": 1}')
    assert late.status != 0
    assert "postgres is as it was" in " ".join(late.output.split())
    assert sql(lab, "select to_regclass('still_there') is not null") == "t"
    succeeded(lab.play("restore to the second before", *confirmed))
    assert sql(lab, "select to_regclass('still_there') is null") == "t"
    assert stored(lab, mark) == before
    left = lab.kubectl("get clusters.postgresql.cnpg.io,pvc -n quote-lab -o name").split()
    assert not [name for name in left if "restored" in name]


def test_the_namespace_is_lost_with_the_whole_database(lab: Lab, backed_up: str) -> None:
    """Velero brings the application and its volume back, the archive the database."""
    mark = uuid.uuid4().hex
    with writer(lab, mark) as acknowledged:
        time.sleep(30)
        # Killed, so that no instance closes and archives what it has.
        lab.kubectl("delete pod -n quote-lab -l cnpg.io/cluster=postgres --grace-period=0 --force")
        lab.kubectl("delete namespace quote-lab --wait=false")
    started, confirmed = time.monotonic(), ("-e", f"restore_confirm={NAME}")
    space = ("playbooks/restore-namespace.yml", *confirmed, "-e", "restore_namespace=quote-lab")
    succeeded(lab.play("restore of the namespace", *space))
    lab.kubectl("wait -n quote-lab --for=condition=Ready pod/keeper --timeout=60s")
    read = "python3 -c 'print(open(\"/data/word\").read())'"
    assert lab.kubectl(f"exec -n quote-lab keeper -c main -- {read}").strip() == backed_up
    succeeded(lab.play("restore of the whole database", "playbooks/restore-postgres.yml", *confirmed))
    with lab.http(lab.workers[0]) as http:
        assert lab.ask(http, "GET", "/api/quotes/random").status_code == 200
    lab.steps.append(("from nothing to an application that answers", time.monotonic() - started))
    assert 1 in stored(lab, backed_up)
    lab.kubectl("delete pod,pvc -n quote-lab keeper --wait=false")
    lost = set(acknowledged) - stored(lab, mark)
    assert len(acknowledged) > 100
    last = max(acknowledged.values())
    age = last - min((acknowledged[number] for number in lost), default=last)
    lab.steps.append((f"of acknowledged writes lost with the whole database ({len(lost)} rows)", age))
    assert age <= SECONDS_LOST


@pytest.mark.proof
def test_vaults_machine_is_lost(lab: Lab, backed_up: str) -> None:
    """A new machine of the same name has what was in the snapshot; users notice nothing."""
    with lab.requests(lab.workers) as answers:
        lab.command("quote-platform", "lab", "destroy", "--name", NAME, "vault-1")
        lab.command(*LAB_UP)
        arguments = ("playbooks/restore-vault.yml", "-e", f"restore_confirm={NAME}")
        succeeded(lab.play("restore of Vault", *arguments))
    assert set(answers) == {"200"}, dict(answers)
    assert as_root(lambda api: vault.read(api, "kv/data/marker"))["data"] == {"word": backed_up}


@pytest.mark.proof(minutes=12)
def test_the_object_store_is_away(lab: Lab, eventually: Eventually) -> None:
    """The application serves and writes; the archive catches up when the store is back."""

    def counted(name: str) -> bool:
        return metrics(lab).get(name, 0) > 0

    with lab.stopped("store-1"):
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
            eventually(partial(counted, name), 60, f"{name} tells nothing")
    sql(lab, "select pg_switch_wal()")
    back = time.monotonic()
    # A file of the log is closed every two seconds, and takes half of that or more on its way.
    eventually(
        lambda: sql(lab, "select last_archived_wal from pg_stat_archiver") >= waiting,
        240 + SECONDS_WITHOUT_A_STORE,
        "not archived",
    )
    lab.steps.append(("until the archive had caught up", time.monotonic() - back))
    assert stored(lab, mark) == set(acknowledged)
