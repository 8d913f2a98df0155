"""The verification itself: how it judges, what it reports, when a check passes, fails or is not run."""

import base64
import hashlib
import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from types import SimpleNamespace as Fake
from typing import Any

import httpx
import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from kubernetes import client
from kubernetes.client import ApiException
from rich.console import Console
from typer.testing import CliRunner

from quote_platform import components
from quote_platform.verify import backups, checks, cli, logs, metrics
from quote_platform.verify.report import BACKUPS, CERTIFICATES, Check, Report
from quote_platform.verify.target import Failed, NotRun, Target, wait

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SWITCHES = {"backups": "backups_enabled", "logging": "logging_enabled", "monitoring": "monitoring_enabled"}
SWITCHES |= {"secrets": "secrets_backend", "cert-manager": "certificate_issuer", "flux": "delivery"}
OFF = {name: f"switched off ({switch})" for name, switch in SWITCHES.items()}


class FakeTarget(Target):
    """A platform whose API server is whatever a test puts in its place."""

    def __post_init__(self) -> None:
        self.scratch = "scratch"
        self.opened = self.closed = False
        self.api: Any = None
        self.core: Any = Fake()
        self.apps: Any = Fake()

    def open(self) -> None:
        self.opened = True

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> FakeTarget:
    monkeypatch.setattr(backups, "now", lambda: NOW)
    parts = ("application", "logging", "monitoring", "snapshots", "velero")
    return FakeTarget(
        "kubeconfig",
        "1.36.3",
        "shop.example.com",
        ["10.0.0.1", "10.0.0.2"],
        "agnhost",
        namespaces={part: f"of-{part}" for part in parts},
        domain="cluster.example",
        postgres="orders",
        database="shop",
        secret="shop-database",  # noqa: S106 (a name)
        intrusive=True,
    )


# --- what it is told ----------------------------------------------------------------------------------------


def told(*words: str) -> dict[str, set[str]]:
    """Return the options that the playbook runs the verification with; it contacts nobody."""
    playbook = ["ansible-playbook", "-i", "inventories/production", "playbooks/verify.yml"]
    environment = os.environ | {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}
    done = subprocess.run(
        [*playbook, "--extra-vars", "cluster_secrets_dir=/nonexistent", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    # Times of tasks stand before it and after it.
    output, _ = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{") :])
    (result,) = output["plays"][-1]["tasks"][0]["hosts"].values()
    found: dict[str, set[str]] = {}
    command = result["cmd"]
    for word, following in zip(command, [*command[1:], "--"], strict=True):
        if word.startswith("--"):
            found.setdefault(word, set()).add("" if following.startswith("--") else following)
    return found


def test_the_playbook_tells_what_the_inventory_says() -> None:
    given = {
        "application_host": "shop.example.com",
        "application_namespace": "shop",
        "cluster_dns_domain": "cluster.example",
        "cluster_monitoring_namespace": "observability",
        "velero_namespace": "backups",
        "postgres_name": "orders",
        "postgres_database": "shop",
    }
    found = told("--extra-vars", json.dumps(given))
    assert found["--host"] == {"shop.example.com"}
    assert found["--domain"] == {"cluster.example"}
    assert found["--postgres"] == {"orders"}
    assert found["--node"] >= {"master-1=192.0.2.11", "worker-3=192.0.2.23"}
    assert found["--database"] == {"shop"}
    assert found["--namespace"] == {
        "application=shop",
        "logging=logging",
        "monitoring=observability",
        "snapshots=etcd-snapshots",
        "velero=backups",
    }
    assert "--intrusive" not in found
    # The names that a role has for it win over the common ones.
    given |= {"quote_app_host": "quotes.example.org", "quote_app_namespace": "quotes"}
    found = told("--extra-vars", json.dumps(given), "--extra-vars", "verify_intrusive=true")
    assert found["--host"] == {"quotes.example.org"}
    assert "application=quotes" in found["--namespace"]
    assert "--intrusive" in found


def test_the_playbook_knows_the_defaults_of_the_roles() -> None:
    *_, play = yaml.safe_load((ROOT / "playbooks/verify.yml").read_text())
    defaults: dict[str, Any] = {}
    for role in ("logging", "snapshots", "velero", "postgres", "secrets_delivery"):
        defaults |= yaml.safe_load((ROOT / f"roles/{role}/defaults/main.yml").read_text())
    spaces = play["vars"]["verify_namespaces"]
    for text, name in (
        (spaces["logging"], "logging_namespace"),
        (spaces["snapshots"], "snapshots_namespace"),
        (spaces["velero"], "velero_namespace"),
        (play["vars"]["verify_postgres"], "postgres_name"),
        (play["vars"]["verify_secret"], "secrets_delivery_secret"),
    ):
        assert text == f"{{{{ {name} | default('{defaults[name]}') }}}}"


def test_what_several_parts_need_is_said_once() -> None:
    files = [
        path
        for pattern in ("roles/*/defaults/*.yml", "roles/*/meta/*.yml", "playbooks/*.yml", "src/**/*.py")
        for path in ROOT.glob(pattern)
    ]
    assert len(files) > 80
    choices = yaml.safe_load((ROOT / "group_vars/all/main.yml").read_text())
    for name in ("application_namespace", "application_host"):
        assert [path for path in files if choices[name] in path.read_text()] == []


@pytest.mark.parametrize("check", [checks.row_on_replicas, checks.rolling_update, checks.rate_limit])
def test_what_users_may_notice_is_run_only_where_that_is_allowed(target: FakeTarget, check: Any) -> None:
    target.intrusive = False
    result = cli.run_check("one", check, target)
    assert result.status == "not run"
    assert result.detail.endswith("the application: only with -e verify_intrusive=true") or (
        "deletes it again: only with -e verify_intrusive=true" in result.detail
    )


def test_names_are_of_the_domain(target: FakeTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    target.core.list_namespaced_pod = lambda *_, **__: Fake(items=[pod("net-0")])
    monkeypatch.setattr(target, "connects", lambda *_: {})
    assert "kubernetes.default.svc.cluster.example:443" in checks.names_resolve(target)


# --- judging and reporting ----------------------------------------------------------------------------------


def passes(_: Target) -> str:
    return "all is well"


def fails(_: Target) -> str:
    raise Failed("it does not work", "kubectl get pods")


def has_nothing(_: Target) -> str:
    raise NotRun("there is none")


def breaks(_: Target) -> str:
    raise KeyError("unforeseen")


def is_refused(_: Target) -> str:
    raise ApiException(status=403, reason="Forbidden")


@pytest.mark.parametrize(
    ("function", "status", "detail", "following"),
    [
        (passes, "passed", "all is well", ""),
        (fails, "failed", "it does not work", "kubectl get pods"),
        (has_nothing, "not run", "there is none", ""),
        (breaks, "failed", "KeyError: 'unforeseen' (breaks:", ""),
        (is_refused, "failed", "ApiException: Forbidden (is_refused:", ""),
    ],
)
def test_a_check_is_judged(
    target: FakeTarget, function: Any, status: str, detail: str, following: str
) -> None:
    check = cli.run_check("one", function, target)
    assert check.status == status
    assert check.detail.startswith(detail)
    assert check.next_command == following


@pytest.mark.parametrize(
    ("functions", "words", "counts"),
    [
        ([passes, has_nothing], [], (1, 0, 1)),
        ([passes, fails, breaks], [], (1, 2, 0)),
        ([has_nothing], [], (0, 0, 1)),
        ([passes, fails], ["--only", "passes"], (1, 0, 0)),
        ([passes], ["--left-out", '[{"name": "ingress-nginx", "reason": "no image"}]'], (1, 0, 1)),
    ],
    ids=["not run", "failed", "nothing passed", "only one", "left out"],
)
def test_the_report_and_the_exit_status(  # noqa: PLR0917 (fixtures)
    monkeypatch: pytest.MonkeyPatch,
    target: FakeTarget,
    tmp_path: Path,
    functions: list[Any],
    words: list[str],
    counts: tuple[int, int, int],
) -> None:
    # Each in a lane of its own.
    monkeypatch.setattr(cli, "LANES", [[(one.__name__, one)] for one in functions])
    monkeypatch.setattr(cli, "Target", lambda *_, **__: target)
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.touch()
    command = ["run", "--kubeconfig", str(kubeconfig), "--version", "1.36.3", "--address", "10.0.0.1"]
    command += [
        "--host",
        "shop.example.com",
        "--namespace",
        "application=shop",
        "--domain",
        "cluster.example",
    ]
    command += ["--postgres", "orders", "--database", "shop", "--secret", "shop-database"]
    command += ["--image", "agnhost", "--report", str(tmp_path / "new" / "report.json"), *words]
    result = CliRunner().invoke(cli.app, command)
    passed, failed, _ = counts
    assert result.exit_code == int(failed > 0 or passed == 0), result.output
    assert "{} passed, {} failed, {} not run".format(*counts) in result.output
    checks_of = json.loads((tmp_path / "new" / "report.json").read_text())["checks"]
    found = [one["status"] for one in checks_of]
    assert tuple(found.count(which) for which in ("passed", "failed", "not run")) == counts
    assert target.opened
    assert target.closed


def test_the_playbook_names_what_is_switched_off() -> None:
    loader = DataLoader()
    play = loader.load_from_file(str(ROOT / "playbooks" / "verify.yml"), trusted_as_template=True)[-1]
    listed = components.load(ROOT)
    assert {part["reported"]: part["switch"] for part in listed["platform_parts"].values()} == SWITCHES

    def left_out(**choices: Any) -> Any:
        context = play["vars"] | listed | dict.fromkeys(SWITCHES.values(), "chosen") | choices
        return Templar(loader=loader, variables=context).template(context["verify_switched_off"])

    assert left_out() == []
    for name, switch in SWITCHES.items():
        off = False if switch.endswith("_enabled") else ""
        assert left_out(**{switch: off}) == [{"name": name, "reason": OFF[name]}]


def test_what_looks_like_markup_is_shown_as_it_is() -> None:
    written = StringIO()
    check = Check(name="one", status="failed", detail="[bold] in a message", next_command="kubectl get pods")
    Report(cluster="quote", checks=[check]).show(Console(width=150, file=written))
    text = written.getvalue()
    assert "[bold] in a message" in text
    assert "next: kubectl get pods" in text


def test_waiting_ends_and_says_what_did_not_come() -> None:
    answers = iter([False, True])
    wait(lambda: next(answers), 5, lambda: "never")
    with pytest.raises(Failed, match="no answer after 0 s"):
        wait(lambda: False, 0, lambda: "no answer", "look there")


def test_what_a_run_that_was_killed_has_left_goes_away(target: FakeTarget) -> None:
    deleted: list[tuple[str, ...]] = []

    def made(name: str, hours: int, namespace: str = "") -> Fake:
        moment = datetime.now(UTC) - hours * HOUR
        return Fake(metadata=Fake(name=name, namespace=namespace, creation_timestamp=moment))

    def found(*items: Fake) -> Any:
        def listed(label_selector: str) -> Fake:
            assert label_selector == "quote-platform.verify=true"
            return Fake(items=list(items))

        return listed

    target.core.list_namespace = found(made("scratch", 0), made("another run's", 0), made("killed", 2))
    target.core.list_pod_for_all_namespaces = found(made("new", 0, "shop"), made("old", 2, "shop"))
    target.core.delete_namespace = lambda name: deleted.append((name,))
    target.core.delete_namespaced_pod = lambda name, namespace: deleted.append((namespace, name))
    Target.close(target)
    assert deleted == [("scratch",), ("killed",), ("shop", "old")]


# --- checks -------------------------------------------------------------------------------------------------


def node(name: str, ready: str = "True", version: str = "v1.36.3") -> Fake:
    conditions = [Fake(type="MemoryPressure", status="False"), Fake(type="Ready", status=ready)]
    status = Fake(conditions=conditions, node_info=Fake(kubelet_version=version))
    return Fake(metadata=Fake(name=name), status=status)


@pytest.mark.parametrize(
    ("nodes", "complaint"),
    [
        ([node("a"), node("b")], ""),
        ([node("a"), node("b", ready="Unknown")], "b is not Ready"),
        ([node("a", version="v1.35.0")], "a runs v1.35.0, wanted v1.36.3"),
        ([], "the cluster has no nodes"),
    ],
)
def test_nodes(target: FakeTarget, nodes: list[Fake], complaint: str) -> None:
    target.core.list_node = lambda: Fake(items=nodes)
    if complaint:
        with pytest.raises(Failed, match=complaint):
            checks.nodes_ready(target)
    else:
        assert checks.nodes_ready(target) == "2 nodes at v1.36.3"


def test_what_a_pod_cannot_reach_is_named(target: FakeTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "execute", lambda *_: "10.0.0.1:80 ok\n10.0.0.2:80 REFUSED\n")
    assert target.connects("probe", "10.0.0.1:80", "10.0.0.2:80") == {"10.0.0.2:80": "REFUSED"}
    assert target.connects("probe", "10.0.0.3:80")["10.0.0.3:80"].startswith("no answer")


def served(monkeypatch: pytest.MonkeyPatch, target: FakeTarget, answer: Any) -> None:
    transport = httpx.MockTransport(answer)
    monkeypatch.setattr(target, "http", lambda _: httpx.Client(base_url="https://app", transport=transport))


@pytest.mark.parametrize("code", [429, 503])
def test_a_burst_is_limited(target: FakeTarget, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    answers = iter([200] * 50)
    served(monkeypatch, target, lambda _: httpx.Response(next(answers, code)))
    assert str(checks.rate_limit(target)).startswith(f"{code} after ")


def test_a_burst_that_nothing_limits_fails(target: FakeTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, target, lambda _: httpx.Response(200))
    with pytest.raises((Failed, NotRun), match=r"900 requests|only"):
        checks.rate_limit(target)


def instances(target: FakeTarget, *roles: str) -> None:
    pods = [
        Fake(metadata=Fake(name=f"postgres-{number}", labels={"cnpg.io/instanceRole": role}))
        for number, role in enumerate(roles, 1)
    ]
    target.core.list_namespaced_pod = lambda *_, **__: Fake(items=pods)


@pytest.mark.parametrize(
    "check", [checks.archive, checks.replication, checks.row_on_replicas, backups.base_backup]
)
def test_what_is_up_to_the_owner_of_a_database_outside_is_not_run(
    target: FakeTarget, check: checks.CheckFunction
) -> None:
    """Nobody is asked: there is no API of the operator, and an error would be a failure."""
    target.outside = True
    result = cli.run_check("it", check, target)
    assert result.status == "not run"
    assert result.detail.startswith("PostgreSQL is outside of the cluster (database: external): its owner ")
    target.outside = False
    assert cli.run_check("it", check, target).status == "failed"


def test_the_playbook_tells_where_the_database_is() -> None:
    assert "--outside" in told("--extra-vars", "database=external")


def test_a_row_is_looked_for_on_every_replica(target: FakeTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def add(request: httpx.Request) -> httpx.Response:
        said.append(json.loads(request.content)["text"])
        return httpx.Response(201, json={"id": 7})

    asked: list[tuple[str, str]] = []

    def execute(pod: str, *command: str, **_: str) -> str:
        asked.append((pod, command[-1]))
        return said[-1] + "\n"

    served(monkeypatch, target, add)
    instances(target, "replica", "primary", "replica")
    monkeypatch.setattr(target, "execute", execute)
    assert checks.row_on_replicas(target) == "row 7 on postgres-1, postgres-3"
    assert [pod for pod, _ in asked] == ["postgres-1", "postgres-3", "postgres-2"]
    assert asked[-1][1] == "delete from quotes where id = 7"
    instances(target, "primary")
    with pytest.raises(Failed, match="there is no replica"):
        checks.row_on_replicas(target)
    instances(target, "primary", "primary")
    with pytest.raises(Failed, match="2 primaries"):
        checks.row_on_replicas(target)
    served(monkeypatch, target, lambda _: httpx.Response(500, text="no database"))
    with pytest.raises(Failed, match="adding a quote answers 500: no database"):
        checks.row_on_replicas(target)


def test_replicas_have_applied_what_is_written(target: FakeTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    late: set[str] = set()

    def execute(pod: str, *command: str, **_: str) -> str:
        assert "--dbname=shop" in command
        asked.append(command[-1])
        if command[-1] == "select pg_current_wal_lsn()":
            assert pod == "postgres-2"
            return "0/3000060\n"
        assert command[-1] == "select pg_last_wal_replay_lsn() >= '0/3000060'"
        return "f\n" if pod in late else "t\n"

    monkeypatch.setattr(target, "execute", execute)
    instances(target, "replica", "primary", "replica")
    assert checks.replication(target) == "postgres-1, postgres-3 at 0/3000060 or later"
    late.add("postgres-3")
    monkeypatch.setattr(checks, "wait", lambda done, _, text, hint: wait(done, 0, text, hint))
    with pytest.raises(Failed, match="postgres-3 has not applied 0/3000060"):
        checks.replication(target)
    instances(target, "primary")
    with pytest.raises(Failed, match="there is no replica"):
        checks.replication(target)


def test_the_archive_is_looked_at_and_nothing_is_written(
    target: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    archived = "000000010000000000000007"

    def execute(_: str, *command: str, **__: str) -> str:
        statement = command[-1]
        assert statement.startswith("select ")
        assert not any(word in statement for word in ("switch_wal", "restore_point", "checkpoint"))
        return archived if "pg_stat_archiver" in statement else "000000010000000000000007"

    monkeypatch.setattr(target, "execute", execute)
    monkeypatch.setattr(checks, "wait", lambda done, _, text, hint: wait(done, 0, text, hint))
    instances(target, "primary")
    custom_objects(monkeypatch, {"clusters": {"spec": {"plugins": [{}]}}})
    assert checks.archive(target) == "segment 000000010000000000000007 lies in the object store"
    archived = "000000010000000000000006"
    with pytest.raises(Failed, match="segment 000000010000000000000007 does not reach the object store"):
        checks.archive(target)
    custom_objects(monkeypatch, {"clusters": {"spec": {}}})
    target.left_out = OFF
    with pytest.raises(NotRun, match=r"switched off \(backups_enabled\)"):
        checks.archive(target)


# --- age of backups -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("newest", "since", "schedule", "result"),
    [
        (NOW - HOUR, NOW - 90 * HOUR, "0 * * * *", "the newest is of"),
        (NOW - 10 * HOUR, NOW - 90 * HOUR, "0 0 1 * * *", "the newest is of"),
        (NOW - 3 * HOUR, NOW - 90 * HOUR, "0 * * * *", "one was due at"),
        (NOW - 50 * HOUR, NOW - 90 * HOUR, "0 0 1 * * *", "one was due at"),
        (None, NOW, "0 * * * *", "the first one is due"),
        (None, NOW - 90 * HOUR, "0 1 * * *", "there is none, one was due"),
    ],
    ids=["young", "daily, in six fields", "one missed", "daily missed", "a new cluster", "never one"],
)
def test_the_age_of_a_backup(
    target: Target, newest: datetime | None, since: datetime, schedule: str, result: str
) -> None:
    check = cli.run_check("base backup", lambda _: backups.judge(newest, schedule, since, ""), target)
    assert result in check.detail
    wanted = "not run" if "first" in result else "passed" if result == "the newest is of" else "failed"
    assert (check.status, check.moment) == (wanted, newest)


def test_others_ask_for_checks_that_there_are() -> None:
    assert {*BACKUPS, CERTIFICATES} <= {name for lane in checks.LANES for name, _ in lane}


def custom_objects(monkeypatch: pytest.MonkeyPatch, found: dict[str, Any]) -> None:
    api = Fake(get_namespaced_custom_object=lambda group, version, namespace, plural, name: found[plural])
    monkeypatch.setattr(client, "CustomObjectsApi", lambda _: api)


def test_the_base_backup_is_that_of_the_archive_in_use(
    target: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = {name: {"lastSuccessfulBackupTime": (NOW - age).isoformat()} for name, age in
              {"postgres": 90 * HOUR, "postgres-2": HOUR}.items()}  # fmt: skip
    found: dict[str, Any] = {
        "clusters": {"spec": {"plugins": [{"parameters": {"serverName": "postgres-2"}}]}},
        "objectstores": {"status": {"serverRecoveryWindow": window}},
        "scheduledbackups": {
            "spec": {"schedule": "0 0 1 * * *"},
            "metadata": {"creationTimestamp": f"{NOW - 99 * HOUR:%Y-%m-%dT%H:%M:%SZ}"},
        },
    }
    custom_objects(monkeypatch, found)
    assert f"the newest is of {NOW - HOUR:%Y-%m-%d %H:%M}" in backups.base_backup(target).detail
    found["clusters"]["spec"]["plugins"][0]["parameters"]["serverName"] = "postgres"
    with pytest.raises(Failed, match="one was due"):
        backups.base_backup(target)
    found["objectstores"] = {}
    with pytest.raises(Failed, match="there is none"):
        backups.base_backup(target)
    found["clusters"] = {"spec": {}}
    with pytest.raises(Failed, match="backups should be installed and is not"):
        backups.base_backup(target)
    target.left_out = OFF
    with pytest.raises(NotRun, match=r"switched off \(backups_enabled\)"):
        backups.base_backup(target)


def test_a_backup_of_namespaces_counts_when_it_is_whole(
    target: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backup(phase: str, age: timedelta) -> dict[str, Any]:
        return {"status": {"phase": phase, "completionTimestamp": f"{NOW - age:%Y-%m-%dT%H:%M:%SZ}"}}

    found: dict[str, Any] = {
        "schedules": {
            "spec": {"schedule": "0 2 * * *"},
            "metadata": {"creationTimestamp": f"{NOW - 99 * HOUR:%Y-%m-%dT%H:%M:%SZ}"},
        },
        "backupstoragelocations": {"status": {"phase": "Available"}},
    }
    stored = [
        backup("PartiallyFailed", HOUR),
        backup("Completed", 2 * HOUR),
        backup("Completed", 30 * HOUR),
        {},
    ]
    api = Fake(
        get_namespaced_custom_object=lambda group, version, namespace, plural, name: found[plural],
        list_namespaced_custom_object=lambda *_: {"items": stored},
    )
    monkeypatch.setattr(client, "CustomObjectsApi", lambda _: api)
    assert f"the newest is of {NOW - 2 * HOUR:%Y-%m-%d %H:%M}" in backups.namespaces(target).detail
    del stored[1]
    with pytest.raises(Failed, match="one was due"):
        backups.namespaces(target)
    found["backupstoragelocations"] = {"status": {"phase": "Unavailable", "message": "no such key"}}
    with pytest.raises(Failed, match="its bucket cannot be used: no such key"):
        backups.namespaces(target)


class FakeJobs:
    """A namespace with one CronJob, whose pods say what a test wants."""

    def __init__(self, target: FakeTarget, monkeypatch: pytest.MonkeyPatch, said: str, phase: str) -> None:
        self.pods: list[Any] = []
        self.deleted: list[str] = []
        containers = [client.V1Container(name="dump", args=["dump", "postgres-dumps"])]
        spec = client.V1PodSpec(init_containers=containers, containers=[client.V1Container(name="prune")])
        template = Fake(metadata=Fake(labels={"app": "postgres-dump"}), spec=spec)
        cron_job = Fake(
            metadata=Fake(creation_timestamp=NOW - 99 * HOUR),
            spec=Fake(schedule="0 2 * * *", job_template=Fake(spec=Fake(template=template))),
        )
        monkeypatch.setattr(
            client, "BatchV1Api", lambda _: Fake(read_namespaced_cron_job=lambda *_: cron_job)
        )
        pod = Fake(metadata=Fake(name="verify-1"), status=Fake(phase=phase))

        def create(_: str, body: Any) -> Fake:
            self.pods.append(body)
            return pod

        target.core.create_namespaced_pod = create
        target.core.read_namespaced_pod = lambda *_: pod
        target.core.read_namespaced_pod_log = lambda *_, **__: Fake(data=said.encode())
        target.core.delete_namespaced_pod = lambda name, _: self.deleted.append(name)


def row(age: timedelta, whole: bool = True) -> dict[str, Any]:
    return {"name": "one", "time": (NOW - age).isoformat(), "bytes": 1, "whole": whole}


def test_a_dump_counts_when_it_is_whole(target: FakeTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = FakeJobs(target, monkeypatch, json.dumps([row(HOUR, whole=False), row(2 * HOUR)]), "Succeeded")
    assert f"the newest is of {NOW - 2 * HOUR:%Y-%m-%d %H:%M}" in backups.dump(target).detail
    assert jobs.pods[0].spec.containers[0].args == ["list", "postgres-dumps", "--json"]
    assert jobs.pods[0].spec.init_containers is None
    assert jobs.pods[0].metadata.labels == {"app": "postgres-dump", "quote-platform.verify": "true"}
    assert jobs.deleted == ["verify-1"]
    FakeJobs(target, monkeypatch, json.dumps([row(HOUR, whole=False), row(50 * HOUR)]), "Succeeded")
    with pytest.raises(Failed, match="one was due"):
        backups.dump(target)


def test_a_store_that_does_not_answer_is_told(target: FakeTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = FakeJobs(target, monkeypatch, "list: bucket quote-postgres: no route", "Failed")
    with pytest.raises(Failed, match="cannot be asked: list: bucket quote-postgres: no route"):
        backups.dump(target)
    assert jobs.deleted == ["verify-1"]


def test_backups_that_are_switched_off_are_not_run(
    target: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: str) -> None:
        raise ApiException(status=404)

    monkeypatch.setattr(client, "BatchV1Api", lambda _: Fake(read_namespaced_cron_job=missing))
    with pytest.raises(Failed, match="backups should be installed and is not"):
        backups.snapshot(target)
    target.left_out = OFF
    with pytest.raises(NotRun, match=r"switched off \(backups_enabled\)"):
        backups.snapshot(target)


# --- Vault ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "told"),
    [
        ([200], "1 open, https://vault-0:8200 is active"),
        ([200, 200, 200], "3 open, https://vault-0:8200 is active"),
        ([503], "https://vault-0:8200 is sealed"),
        ([200, 503, 200], "https://vault-1:8200 is sealed"),
        ([501], "https://vault-0:8200 is not initialised"),
        ([0], "https://vault-0:8200 does not answer"),
        ([], r"switched off \(secrets_backend\)"),
    ],
)
def test_vault_is_judged(monkeypatch: pytest.MonkeyPatch, statuses: list[int], told: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        number = int(request.url.host.removeprefix("vault-"))
        if not statuses[number]:
            raise httpx.ConnectError("refused")
        if request.url.path == "/v1/sys/leader":
            return httpx.Response(200, json={"is_self": number == 0})
        return httpx.Response(statuses[number])

    asking = httpx.Client(transport=httpx.MockTransport(answer))
    monkeypatch.setattr(httpx, "Client", lambda **_: asking)
    known: Any = Fake(
        vaults=[f"https://vault-{number}:8200" for number in range(len(statuses))], vault_ca="", left_out=OFF
    )
    if set(statuses) == {200}:
        assert checks.vault(known) == told
    else:
        with pytest.raises(Failed if statuses else NotRun, match=told):
            checks.vault(known)


AUTHORITY = b"-----BEGIN CERTIFICATE-----"


@pytest.mark.parametrize(
    ("external", "authority", "told"),
    [
        ({"Ready": "True", "hours": 1}, AUTHORITY, "shop-database of "),
        ({"Ready": "False", "hours": 1}, AUTHORITY, "shop-database: it said so; last of "),
        ({"Ready": "True", "hours": 26}, AUTHORITY, "every 24 h one is due"),
        ({"Ready": "True", "hours": 1}, b"another", "PostgreSQL has another authority than Vault knows"),
        (None, AUTHORITY, "not delivered by External Secrets Operator"),
    ],
)
def test_a_delivered_secret_is_judged(
    monkeypatch: pytest.MonkeyPatch, target: FakeTarget, external: Any, authority: bytes, told: str
) -> None:
    def get(_group: str, _version: str, _namespace: str, kind: str, _name: str) -> Any:
        if kind == "vaultdynamicsecrets":
            known = hashlib.sha256(AUTHORITY).hexdigest()
            return {"metadata": {"annotations": {"quote-platform/database-authority": known}}}
        if external is None:
            raise ApiException(status=404)
        since = datetime.now(UTC) - external["hours"] * HOUR
        return {
            "spec": {"refreshInterval": "24h0m0s"},
            "status": {
                "refreshTime": since.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "conditions": [{"type": "Ready", "status": external["Ready"], "message": "it said so"}],
            },
        }

    monkeypatch.setattr(client, "CustomObjectsApi", lambda _: Fake(get_namespaced_custom_object=get))
    data = {"ca.crt": base64.b64encode(authority + b"\n").decode()}
    target.core.read_namespaced_secret = lambda *_: Fake(data=data)
    try:
        said = checks.delivered_secret(target)
    except (Failed, NotRun) as reason:
        said = str(reason)
    assert told in said


# --- metrics and alerts ---------------------------------------------------------------------------------


def pod(name: str, ready: str = "True") -> Fake:
    metadata = Fake(name=name, deletion_timestamp=None)
    return Fake(metadata=metadata, status=Fake(conditions=[Fake(type="Ready", status=ready)]))


@pytest.fixture
def prometheus(target: FakeTarget, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, str]]]:
    """Return what Prometheus answers to each query, all of a platform of two nodes that is well."""
    answers: dict[str, list[dict[str, str]]] = {
        "up": [
            *({"job": job, "node": name} for job in metrics.NODES for name in ("master", "worker")),
            *({"job": job, "node": "master"} for job in metrics.CONTROL_PLANES),
            {"job": "postgres", "pod": "postgres-1"},
        ],
        "probe_success == 0": [],
        'ALERTS{alertstate="firing"}': [{"alertname": "Watchdog"}],
    }

    def execute(name: str, *command: str, **_: str) -> str:
        assert name == "prometheus-main-0"
        found = [{"metric": one, "value": [0, one.get("value", "1")]} for one in answers[command[-1]]]
        return json.dumps(found)

    labels = {"master": {"node-role.kubernetes.io/control-plane": ""}, "worker": {}}
    nodes = [Fake(metadata=Fake(name=name, labels=of)) for name, of in labels.items()]
    # One that is ready, one that has not come up yet.
    pods = {"cnpg.io/podRole=instance": [pod("postgres-1"), pod("postgres-2", ready="False")]}
    target.core.list_node = lambda: Fake(items=nodes)
    target.core.list_namespaced_pod = lambda *_, **__: Fake(items=[pod("prometheus-main-0")])
    target.core.list_pod_for_all_namespaces = lambda label_selector: Fake(items=pods.get(label_selector, []))
    monkeypatch.setattr(target, "execute", execute)
    monkeypatch.setattr(metrics, "SECONDS", 0)
    return answers


def test_every_part_is_asked_for_its_figures(
    target: FakeTarget, prometheus: dict[str, list[dict[str, str]]]
) -> None:
    assert metrics.metrics(target) == "8 targets of 6 jobs, all up"
    prometheus["up"][-1]["value"] = "0"
    with pytest.raises(Failed, match=r"^postgres of postgres-1 is down after"):
        metrics.metrics(target)
    del prometheus["up"][-1]
    with pytest.raises(Failed, match=r"^postgres of postgres-1 is not asked after"):
        metrics.metrics(target)
    prometheus["up"] = [one for one in prometheus["up"] if one != {"job": "kubelet", "node": "worker"}]
    with pytest.raises(Failed, match="kubelet of worker is not asked; postgres"):
        metrics.metrics(target)
    prometheus["up"] = []
    with pytest.raises(Failed, match="etcd of master is not asked"):
        metrics.metrics(target)


def test_a_user_who_is_not_served_is_told(
    target: FakeTarget, prometheus: dict[str, list[dict[str, str]]]
) -> None:
    prometheus["probe_success == 0"] = [{"instance": "https://10.0.0.1/"}]
    with pytest.raises(Failed, match=r"^https://10.0.0.1/ does not answer as users ask"):
        metrics.metrics(target)


@pytest.mark.parametrize(
    ("firing", "told"),
    [
        (
            [{"alertname": "Watchdog"}, {"alertname": "NodeDown", "severity": "critical"}],
            "^NodeDown fires after",
        ),
        (
            [{"alertname": "Watchdog"}]
            + [
                {"alertname": "NodePressure", "node": node, "condition": "PIDPressure"} for node in ("b", "a")
            ],
            r"^NodePressure\{condition=PIDPressure, node=a\} fires; .*node=b\} fires after",
        ),
        ([], "^Watchdog does not fire after"),
    ],
)
def test_an_alert_that_fires_is_told(
    target: FakeTarget, prometheus: dict[str, list[dict[str, str]]], firing: list[dict[str, str]], told: str
) -> None:
    assert metrics.alerts(target) == "only Watchdog fires"
    prometheus['ALERTS{alertstate="firing"}'] = firing
    target.known_alerts = ["NodeCpuHigh"]
    with pytest.raises(Failed, match=told):
        metrics.alerts(target)


def test_an_alert_that_is_known_may_fire(
    target: FakeTarget, prometheus: dict[str, list[dict[str, str]]]
) -> None:
    prometheus['ALERTS{alertstate="firing"}'].append({"alertname": "NodeCpuHigh"})
    with pytest.raises(Failed, match="NodeCpuHigh fires after"):
        metrics.alerts(target)
    target.known_alerts = ["NodeCpuHigh"]
    assert metrics.alerts(target) == "only Watchdog fires, and what is known: NodeCpuHigh"


def test_alerts_about_jobs_are_not_the_clusters(
    target: FakeTarget, prometheus: dict[str, list[dict[str, str]]]
) -> None:
    """A job `verify` that failed once would fail for its own alert, again and again."""
    prometheus['ALERTS{alertstate="firing"}'] += [{"alertname": "JobFailed", "name": "verify"}]
    assert metrics.alerts(target) == "only Watchdog fires, and what is known: JobFailed"


def test_without_a_prometheus_nothing_is_asked(
    target: FakeTarget, monkeypatch: pytest.MonkeyPatch, prometheus: dict[str, list[dict[str, str]]]
) -> None:
    assert prometheus
    monkeypatch.setattr(target, "execute", lambda *_, **__: "error: server returned 503")
    with pytest.raises(Failed, match="Prometheus does not answer: error: server returned 503"):
        metrics.metrics(target)
    target.core.list_namespaced_pod = lambda *_, **__: Fake(items=[])
    for check in (metrics.metrics, metrics.alerts):
        target.left_out = {}
        with pytest.raises(Failed, match="monitoring should be installed and is not"):
            check(target)
        target.left_out = OFF
        with pytest.raises(NotRun, match="monitoring_enabled"):
            check(target)


# --- logs -----------------------------------------------------------------------------------------------


def log_setup() -> Any:
    """Return the CronJob that sets the store of logs up."""
    secret = client.V1EnvVarSource(secret_key_ref=client.V1SecretKeySelector(name="setup", key="password"))
    variables = [client.V1EnvVar(name="URL", value="x"), client.V1EnvVar(name="PASSWORD", value_from=secret)]
    spec = client.V1PodSpec(containers=[client.V1Container(name="setup", args=["setup"], env=variables)])
    template = Fake(metadata=Fake(labels={}), spec=spec)
    return Fake(spec=Fake(job_template=Fake(spec=Fake(template=template))))


@pytest.mark.parametrize(
    ("found", "result"),
    [
        ({"namespace": "scratch", "pod": {"name": "speaker"}}, "found within"),
        ({"namespace": "other", "pod": {"name": "speaker"}}, "does not say whose it is"),
        (None, "a line is not found 30 s after it was printed"),
    ],
)
def test_a_line_is_found(
    target: FakeTarget, monkeypatch: pytest.MonkeyPatch, found: dict[str, Any] | None, result: str
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(client, "BatchV1Api", lambda _: Fake(read_namespaced_cron_job=lambda *_: log_setup()))
    spoken: list[Any] = []
    monkeypatch.setattr(target, "create_pod", lambda *_, **spec: spoken.append(spec))
    monkeypatch.setattr(target, "wait_ready", lambda _: {})

    def run_once(namespace: str, template: Any) -> str:
        asked.append((namespace, template.spec.containers[0]))
        return json.dumps({"kubernetes": found}) + "\n" if found else ""

    monkeypatch.setattr(target, "run_once", run_once)
    if result == "found within":
        assert logs.logs(target).startswith(result)
    else:
        with pytest.raises(Failed, match=result):
            logs.logs(target)
    namespace, container = asked[0]
    assert namespace == "of-logging"
    word = spoken[0]["container"]["command"][2].split()[2].rstrip(";")
    assert container.args == ["search", f'"{word}" AND data_stream.dataset:app', "1", "30"]
    # As one that may only read.
    assert container.env[1].value_from.secret_key_ref.name == "reader"


def test_logs_are_not_asked_for_where_nobody_collects(
    target: FakeTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: str) -> None:
        raise ApiException(status=404)

    monkeypatch.setattr(client, "BatchV1Api", lambda _: Fake(read_namespaced_cron_job=missing))
    with pytest.raises(Failed, match="logging should be installed and is not"):
        logs.logs(target)
    target.left_out = OFF
    with pytest.raises(NotRun, match="logging_enabled"):
        logs.logs(target)
