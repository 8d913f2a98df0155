"""What Prometheus is told of jobs: figures, the ConfigMap of the cluster, the folder of the controller."""

import json
import os
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_double import ApiHandler
from typer.testing import CliRunner

from quote_platform.cli import app
from quote_platform.jobs import definition, metrics, process
from quote_platform.jobs.definition import Schedule
from quote_platform.jobs.events import Summary
from quote_platform.jobs.record import Record, State, Store, now

ROOT = Path(__file__).resolve().parents[2]
PATH = "/api/v1/namespaces/watched/configmaps"
DAY = 86400


class Server(ThreadingHTTPServer):
    """Holds at most one ConfigMap."""

    found: dict[str, Any] | None = None
    answers: list[int]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = []  # what it answers instead of doing what it is asked for


class Handler(ApiHandler):
    server: Server

    def handle_one(self) -> None:
        body = self.given()
        server = self.server
        if server.answers:
            self.answer(server.answers.pop(0), {})
        elif self.command == "POST":
            assert self.path == PATH
            server.found = body
            self.answer(201, body)
        else:
            assert self.path == f"{PATH}/quote-platform-jobs"
            if server.found is None:
                self.answer(404, {})
                return
            if self.command == "PATCH":
                assert "merge-patch" in self.headers["Content-Type"]
                server.found["data"] |= body["data"]
            self.answer(200, server.found)

    do_GET = do_POST = do_PATCH = handle_one


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def inventory(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The inventory of a cluster with Prometheus, and a folder for the metrics of its jobs."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "inventory"
    folder.mkdir()
    (tmp_path / "metrics").mkdir()
    (folder / "kubeconfig").write_text(
        yaml.safe_dump(
            {
                "clusters": [{"name": "a", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                "contexts": [{"name": "a", "context": {"cluster": "a", "user": ""}}],
                "current-context": "a",
            }
        )
    )
    variables = {
        "cluster_name": "little",
        "cluster_kubeconfig": f"{folder}/kubeconfig",
        "cluster_monitoring_namespace": "watched",
    }
    hosts = {"all": {"hosts": {"here": {"ansible_connection": "local"}}, "vars": variables}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
    (folder / "jobs.yml").write_text(
        f"metrics_directory: {tmp_path}/metrics\njobs: {{backup: {{expected_every: 1d}}}}\n"
    )
    return folder


def ended(store: Store, inventory: Path, name: str, state: State, **found: Any) -> Record:
    """Return the record of a job that has ended, before its metrics are written."""
    plan, variables = definition.plan(name, ROOT, inventory, [])
    record = store.create(plan, variables)
    record.state, record.started, record.ended, record.duration = state, now(), now(), 12.5
    record.summary = Summary(**found)
    return record


def series(text: str) -> dict[str, float]:
    return {line.rpartition(" ")[0]: float(line.split()[-1]) for line in text.splitlines() if line[0] != "#"}


# --- figures -------------------------------------------------------------------------------------------


def run(state: State, at: float, check: bool = False, changes: int = 0) -> Record:
    plan = definition.Plan.model_construct(check=check)
    moment = datetime.fromtimestamp(at, UTC)
    return Record.model_construct(
        id="", plan=plan, state=state, ended=moment, duration=3, summary=Summary(changes=changes, failures=1)
    )


def test_a_run_changes_what_it_has_something_to_say_about() -> None:
    figures = metrics.update({}, DAY, 50.0)
    assert figures == {"expected_since_timestamp_seconds": 50, "expected_interval_seconds": DAY}
    assert metrics.update(figures, DAY, 60.0, run("refused", 60)) == figures
    figures = metrics.update(figures, DAY, 70.0, run("failed", 70, changes=4))
    assert figures["expected_since_timestamp_seconds"] == 50  # it is still waited for
    assert "last_success_timestamp_seconds" not in figures
    assert (figures["failed"], figures["done"]) == (1, 0)
    assert (figures["last_changed"], figures["last_failed"], figures["last_duration_seconds"]) == (4, 1, 3)
    figures = metrics.update(figures, 0, 80.0, run("done", 80))
    assert "expected_interval_seconds" not in figures  # its schedule is gone
    times = ("last_failure", "last_success", "expected_since", "last_end")
    assert [figures[f"{one}_timestamp_seconds"] for one in times] == [70, 80, 80, 80]
    figures = metrics.update(figures, 0, 90.0, run("cancelled", 90))
    assert [figures[f"{one}_timestamp_seconds"] for one in times] == [70, 80, 80, 90]
    assert (figures["cancelled"], figures["done"]) == (1, 0)
    for number, state in enumerate(("interrupted", "out of time"), start=100):
        figures = metrics.update(figures, 0, number, run(state, number))  # type: ignore[arg-type]
        assert figures["last_failure_timestamp_seconds"] == number


def test_drift_stays_until_a_check_does_not_find_it() -> None:
    figures = metrics.update({}, 0, 1.0, run("drift", 1, check=True, changes=2))
    assert (figures["drift_found"], figures["last_success_timestamp_seconds"]) == (2, 1)
    assert metrics.update(figures, 0, 2.0, run("failed", 2, check=True))["drift_found"] == 2
    assert metrics.update(figures, 0, 2.0, run("done", 2, check=True))["drift_found"] == 0
    assert "drift_found" not in metrics.update({}, 0, 2.0, run("done", 2, changes=2))


def test_figures_are_read_as_they_were_written_and_taken_by_promtool() -> None:
    figures = metrics.update({}, DAY, 1795123456.25, run("drift", 1795123457, check=True, changes=2))
    text = metrics.write(figures, "drift", 'a "little" one')
    assert metrics.read(text) == figures
    assert metrics.read("drift 1 2 3 {\n") == {}
    assert 'quote_platform_job_state{cluster="a \\"little\\" one",name="drift",state="drift"} 1.0\n' in text
    done = subprocess.run(
        ["promtool", "check", "metrics"], check=False, input=text, text=True, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
@pytest.mark.parametrize(
    ("calendar", "zone", "delay", "seconds"),
    [
        ("hourly", "", "5m", 3900),
        ("*-*-* 03:00:00", "Asia/Tokyo", "1s", DAY + 1),
        # From Friday to Monday.
        ("Mon..Fri 03:00", "", "1s", 3 * DAY + 1),
        ("2030-01-01", "", "1s", 0),
    ],
)
def test_a_job_is_expected_after_the_longest_pause_of_its_schedule(
    calendar: str, zone: str, delay: str, seconds: int
) -> None:
    given = Schedule.model_validate({"calendar": calendar, "time_zone": zone, "random_delay": delay})
    assert given.interval() == seconds


# --- where they are written ----------------------------------------------------------------------------


def test_a_run_is_told_to_the_cluster_and_to_the_controllers_collector(
    inventory: Path, server: Server, tmp_path: Path
) -> None:
    store = Store()
    file = tmp_path / "metrics" / "quote-platform-little-backup.prom"
    record = ended(store, inventory, "backup", "failed", changes=3, failures=1)
    before = os.umask(0o077)
    metrics.of_run(store, record)
    os.umask(before)
    assert record.notes == []
    assert server.found
    assert server.found["metadata"]["name"] == "quote-platform-jobs"
    labels = '{cluster="little",name="backup"}'
    for text in (server.found["data"]["backup.prom"], file.read_text()):
        found = series(text)
        assert found[f"quote_platform_job_last_changed{labels}"] == 3
        assert found[f"quote_platform_job_expected_interval_seconds{labels}"] == DAY
        assert f"quote_platform_job_last_success_timestamp_seconds{labels}" not in found
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    # What another controller has written stays, and so does another job's.
    server.found["data"]["backup.prom"] = metrics.write(
        {"last_success_timestamp_seconds": 5.0}, "backup", "little"
    )
    for name in ("verify", "backup"):
        metrics.of_run(store, ended(store, inventory, name, "failed"))
    assert server.found["data"].keys() == {"backup.prom", "verify.prom"}
    assert "last_success_timestamp_seconds" in server.found["data"]["backup.prom"]
    assert "last_success_timestamp_seconds" not in file.read_text()
    assert [one.name for one in file.parent.iterdir() if one.suffix != ".prom"] == []
    # A playbook without a name is nobody's to watch.
    metrics.of_run(store, ended(store, inventory, "playbooks/verify.yml", "failed"))
    assert len(server.found["data"]) == 2


@pytest.mark.parametrize(
    ("answers", "note"),
    [
        ([404, 404, 404], ""),  # no namespace: there is no Prometheus yet
        ([404, 404, 409], ""),  # another makes it at the same moment
        ([403], "ConfigMap watched/quote-platform-jobs: the API server answers 403 Forbidden"),
        (
            [200, 500],
            "ConfigMap watched/quote-platform-jobs: the API server answers 500 Internal Server Error",
        ),
    ],
)
def test_a_cluster_that_does_not_take_metrics_fails_no_job(
    inventory: Path, server: Server, answers: list[int], note: str
) -> None:
    server.answers = [*answers]
    if answers[-1] == 409:
        server.found = {"data": {}}
    record = ended(Store(), inventory, "backup", "done")
    metrics.of_run(Store(), record)
    assert record.notes == ([f"its metrics were not written: {note}"] if note else [])
    assert bool(server.found and server.found["data"]) == (answers[-1] == 409)


def test_what_cannot_be_written_is_noted(inventory: Path, server: Server, tmp_path: Path) -> None:
    record = ended(Store(), inventory, "backup", "done")
    (tmp_path / "metrics").rmdir()
    server.shutdown()
    server.server_close()
    metrics.of_run(Store(), record)
    assert len(record.notes) == 2
    assert record.notes[0].startswith(f"its metrics were not written: {tmp_path}/metrics: [Errno 2] ")
    assert record.notes[1].startswith(
        "its metrics were not written: ConfigMap watched/quote-platform-jobs: "
        "the API server does not answer: "
    )
    assert record.notes[1].endswith("Connection refused")


def test_a_cluster_without_a_name_has_no_metrics(inventory: Path, server: Server, tmp_path: Path) -> None:
    """Under another name they would never be replaced."""
    record = ended(Store(), inventory, "backup", "failed")
    (inventory / "hosts.yml").write_text("all: {hosts: {here: {}}, vars: {cluster_name: ''}}\n")
    metrics.of_run(Store(), record)
    assert record.notes == [
        "its metrics were not written: cluster_name cannot be read: cluster_name is not set"
    ]
    assert server.found is None
    assert list((tmp_path / "metrics").iterdir()) == []


def test_a_job_whose_supervisor_died_is_told_by_the_next_command(inventory: Path, server: Server) -> None:
    store = Store()
    record = ended(store, inventory, "backup", "running")
    record.ended = record.duration = None
    record.supervisor = process.identity(os.getpid()).model_copy(update={"boot": "another"})
    store.save(record)
    found = CliRunner().invoke(app, ["job", "list", "--json"])
    assert json.loads(found.stdout)[0]["state"] == "interrupted"
    assert server.found
    told = series(server.found["data"]["backup.prom"])
    labels = 'cluster="little",name="backup"'
    assert told[f'quote_platform_job_state{{{labels},state="interrupted"}}'] == 1
    assert time.time() - told[f"quote_platform_job_last_failure_timestamp_seconds{{{labels}}}"] < 60
    assert json.loads((store.folder(record.id) / "job.json").read_text())["cluster"] == "little"


def test_a_timer_that_never_runs_is_waited_for(inventory: Path, server: Server, tmp_path: Path) -> None:
    def timers(text: str) -> dict[str, float]:
        (inventory / "jobs.yml").write_text(text)
        given = ["-i", str(inventory), "--unit-directory", str(tmp_path / "units")]
        found = CliRunner().invoke(app, ["job", "schedule", "apply", *given])
        assert found.exit_code == 0, found.output
        assert server.found
        assert server.found["data"].keys() == {"drift.prom"}
        return metrics.read(server.found["data"]["drift.prom"])

    first = timers("jobs: {drift: {schedule: {calendar: daily}}}\n")
    assert first["expected_interval_seconds"] == DAY
    assert time.time() - first["expected_since_timestamp_seconds"] < 60
    second = timers("jobs: {drift: {schedule: {calendar: hourly}}}\n")
    assert second == first | {"expected_interval_seconds": 3600}
    del first["expected_interval_seconds"]
    assert timers("jobs: {}\n") == first


def test_timers_stand_where_the_cluster_takes_no_metrics(
    inventory: Path, server: Server, tmp_path: Path
) -> None:
    server.answers = [403]
    (inventory / "jobs.yml").write_text("jobs: {drift: {schedule: {calendar: daily}}}\n")
    given = ["-i", str(inventory), "--unit-directory", str(tmp_path / "units")]
    found = CliRunner().invoke(app, ["job", "schedule", "apply", *given])
    assert found.exit_code == 0
    assert found.stderr == (
        "JobOverdue does not know of these timers: ConfigMap watched/quote-platform-jobs: "
        "the API server answers 403 Forbidden\n"
    )
    assert len(list((tmp_path / "units").iterdir())) == 2
