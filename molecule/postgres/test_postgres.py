"""What is written on the primary is read on a replica, which refuses to write, and reaches the archive."""

import pytest

from scenario import Cluster, Eventually, Object

Instances = dict[str, list[Object]]  # by their role

NAMESPACE = "quote-lab"


@pytest.fixture(scope="module")
def instances(cluster: Cluster) -> Instances:
    cluster.wait(f"--namespace={NAMESPACE} --for=condition=Ready cluster.postgresql.cnpg.io/postgres", 300)
    pods = cluster.get(f"pods --namespace={NAMESPACE} --selector=cnpg.io/cluster=postgres")["items"]
    by_role: Instances = {}
    for item in pods:
        role = item["metadata"]["labels"].get("cnpg.io/instanceRole")
        if role:
            by_role.setdefault(role, []).append(item)
    return by_role


def sql(cluster: Cluster, item: Object, statement: str) -> str:
    name = item["metadata"]["name"]
    return cluster.run(
        f"--namespace={NAMESPACE} exec {name} --container=postgres -- psql --no-align --tuples-only --quiet "
        f'--set=ON_ERROR_STOP=1 --dbname=quotes --command="{statement}"'
    ).strip()


def test_primary_and_replica_live_on_different_nodes(instances: Instances) -> None:
    nodes = [item["spec"]["nodeName"] for role in instances.values() for item in role]
    assert len(instances["primary"]) == 1
    assert len(instances["replica"]) == 1
    assert len(set(nodes)) == len(nodes)


def test_a_row_written_on_the_primary_is_read_on_the_replica(
    cluster: Cluster, instances: Instances, eventually: Eventually
) -> None:
    primary, replica = instances["primary"][0], instances["replica"][0]
    sql(
        cluster,
        primary,
        "create table if not exists molecule (word text); insert into molecule values ('replicated')",
    )

    def read() -> None:
        assert "replicated" in sql(cluster, replica, "select word from molecule")

    eventually(read, 30)
    with pytest.raises(AssertionError, match="read-only transaction"):
        sql(cluster, replica, "insert into molecule values ('never')")
    sql(cluster, primary, "drop table molecule")


def test_a_commit_waits_for_the_replica(cluster: Cluster, instances: Instances) -> None:
    assert sql(cluster, instances["primary"][0], "select sync_state from pg_stat_replication") in (
        "quorum",
        "sync",
    )


def test_the_application_has_its_own_account(cluster: Cluster, instances: Instances) -> None:
    assert (
        sql(cluster, instances["primary"][0], "select rolsuper from pg_roles where rolname = 'quotes'") == "f"
    )


def test_what_is_written_reaches_the_archive(
    cluster: Cluster, instances: Instances, eventually: Eventually
) -> None:
    primary = instances["primary"][0]
    segment = sql(
        cluster,
        primary,
        "select pg_walfile_name(pg_switch_wal()) from pg_create_restore_point('molecule')",
    )

    def archived() -> None:
        assert sql(cluster, primary, "select last_archived_wal from pg_stat_archiver") >= segment

    eventually(archived, 60)


def test_a_base_backup_comes_to_an_end(cluster: Cluster, eventually: Eventually) -> None:
    def completed() -> None:
        backups = cluster.get(f"backups.postgresql.cnpg.io --namespace={NAMESPACE}")["items"]
        phases = [item.get("status", {}).get("phase") for item in backups]
        assert "completed" in phases, phases

    eventually(completed, 120)
