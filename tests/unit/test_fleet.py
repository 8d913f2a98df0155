"""Jobs on many clusters: wrong input is refused, waves go in order, and real jobs run and are found again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from receptor import Mesh
from test_jobs import HEAD, LONG, Jobs, inventory, project
from typer.testing import CliRunner

from quote_platform.cli import app
from quote_platform.fleet import version, view
from quote_platform.fleet.definition import Cluster, Fleet, Receptor
from quote_platform.fleet.local import Status
from quote_platform.fleet.mesh import Remote, Unheard, one_answer
from quote_platform.fleet.run import Driver, Entry, News, Place, Request, Run, Runs
from quote_platform.fleet.serve import Ask, serve
from quote_platform.jobs import process
from quote_platform.jobs.launch import NoSpace
from quote_platform.jobs.record import Store
from quote_platform.verify.report import Check, Report
from quote_platform.verify.report import Status as Outcome

__all__ = ["project"]  # a fixture
ROOT = Path(__file__).resolve().parents[2]
NAMES = "allowed are a-z, 0-9 and -, at most 40, a letter first, and not all"
# Waits for a file, so that a test says when a job goes on; fails where it says so.
PLAY = (
    HEAD
    + """
    - name: Wait
      ansible.builtin.wait_for:
        path: "{{ signs }}/{{ cluster_name }}"
        sleep: 1
    - name: Fail where it is asked for
      ansible.builtin.assert:
        that: lookup('ansible.builtin.file', signs ~ '/' ~ cluster_name) != 'bad'
        fail_msg: as was asked for
"""
)

# Leaves a report, as the platform's own does.
VERIFY = (
    HEAD
    + """
    - name: Leave a report
      ansible.builtin.copy:
        src: "SIGNS/{{ cluster_name }}.json"
        dest: "{{ lookup('ansible.builtin.env', 'QUOTE_PLATFORM_REPORT') }}"
        mode: "0600"
"""
)


def wait(true: Callable[[], bool], seconds: float = LONG) -> None:
    """Wait as the tests of jobs do, but look less often: what is waited for here takes seconds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.3)


# --- wrong input ---------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(ROOT)
    return tmp_path / "fleet.yml"


def refused(*arguments: str) -> str:
    """Return what a command says that refuses its input."""
    found = CliRunner().invoke(app, ["fleet", *arguments])
    assert found.exit_code == 2, found.output
    return click.unstyle(found.stderr)  # PY_COLORS, whatever its value, makes it bold


GOOD = "inventory: inventories/production"
MESH = "receptor: {nodes: [eu-1]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"clusters: {{b: {{{GOOD}}}}}\ncluster: {{}}", "cluster: unknown; did you mean clusters?"),
        (f"clusters: {{b: {{{GOOD}}}}}\nregions: {{}}", "regions: unknown; allowed are KEYS"),
        ("{}", "clusters: required and not set"),
        ("clusters: {}", "clusters: is empty; allowed is at least one"),
        ("clusters: [berlin]", "clusters: is a list; allowed is a mapping"),
        ("- clusters", "is a list; allowed is a mapping with KEYS"),
        ("clusters: {berlin: production}", "clusters.berlin: 'production' is text; allowed is a mapping"),
        ("clusters: {berlin: {groups: [eu]}}", "clusters.berlin.inventory: required and not set"),
        (f"clusters: {{b: {{{GOOD}, group: [eu]}}}}", "clusters.b.group: unknown; did you mean groups?"),
        (f"clusters: {{b: {{{GOOD}, groups: eu}}}}", "clusters.b.groups: 'eu' is text; allowed is a list"),
        (
            f"clusters: {{b: {{{GOOD}, groups: [1]}}}}",
            "clusters.b.groups.0: 1 is a number; allowed is text",
        ),
        (
            f"clusters: {{b: {{{GOOD}, groups: [EU]}}}}",
            f"clusters.b.groups: EU is no name of a group; {NAMES}",
        ),
        (f"clusters: {{b: {{{GOOD}, groups: [b]}}}}", "clusters.b.groups: b is the name of a cluster"),
        (
            f"clusters: {{b: {{{GOOD}, groups: [eu, eu]}}}}",
            "clusters.b.groups: eu stands there more than once",
        ),
        (f"clusters: {{all: {{{GOOD}}}}}", f"clusters.all: no name of a cluster; {NAMES}"),
        (
            f"clusters: {{1: {{{GOOD}}}}}",
            "clusters.1: this name is a number; allowed is text, so put it in quotes",
        ),
        (
            "clusters: {b: {inventory: inventories/producton}}",
            f"clusters.b.inventory: {ROOT}/inventories/producton: no such inventory; "
            "did you mean inventories/production?",
        ),
        (
            "clusters: {b: {inventory: .}}",
            "clusters.b.inventory: the checkout itself; allowed is a folder such as inventories/NAME",
        ),
        (
            f"clusters: {{b: {{{GOOD}}}, c: {{inventory: inventories/production/}}}}",
            "clusters.c.inventory: inventories/production/ is that of b already",
        ),
        (f"clusters: {{b: {{{GOOD}}}, b: {{}}}}", "line 1: b stands here a second time"),
        (f"clusters: {{b: {{{GOOD}, node: eu-1}}}}", "clusters.b.node: eu-1 is unknown; allowed are local"),
        (
            f"{MESH}}}\nclusters: {{b: {{{GOOD}, node: eu1}}}}",
            "clusters.b.node: eu1 is unknown; did you mean eu-1?",
        ),
        (
            f"{MESH}}}\nclusters: {{b: {{inventory: ../b, node: eu-1}}}}",
            "clusters.b.inventory: ../b; allowed is a path in the checkout of eu-1, such as inventories/NAME",
        ),
        (
            f"{MESH}, sockt: /a}}\nclusters: {{b: {{{GOOD}}}}}",
            "receptor.sockt: unknown; did you mean socket?",
        ),
        (
            f"{MESH}, socket: a:1}}\nclusters: {{b: {{{GOOD}}}}}",
            "receptor.socket: a:1; allowed is the absolute path of a socket, without :",
        ),
        (
            f"{MESH}, tls_client: ''}}\nclusters: {{b: {{{GOOD}}}}}",
            "receptor.tls_client: is empty; work is sent by TLS, to a command of the node's",
        ),
        (
            f"receptor: {{nodes: [local]}}\nclusters: {{b: {{{GOOD}}}}}",
            "receptor.nodes: local is no name of a node; allowed are letters, digits, ., _ and -, "
            "at most 63, and not local",
        ),
        (f"receptor: {{}}\nclusters: {{b: {{{GOOD}}}}}", "receptor.nodes: required and not set"),
    ],
)
def test_a_mistake_in_fleet_yml_is_named(file: Path, text: str, message: str) -> None:
    file.write_text(f"{text}\n")
    lines = refused("run", "drift", "--on", "all", "--fleet", str(file)).splitlines()
    assert lines[0] == f"{file}: 1 mistake; nothing was started."
    assert lines[1:] == [message.replace("KEYS", ", ".join(sorted(Fleet.model_fields)))]
    assert not (file.parent / "state").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["drift"], "no clusters: pass --on GROUP, --on CLUSTER or --on all"),
        (
            ["drift", "--on", "canry"],
            "--on canry: no such group or cluster; did you mean canary? Known are all, berlin, canary",
        ),
        (["drfit", "--on", "all"], "berlin: drfit: no such job; did you mean drift? Known are "),
        (["drift", "--on", "all", "-e", "x"], "-e: allowed are NAME=VALUE, one for each -e, and @FILE"),
        (["drift", "--on", "all", "--timeout", "9"], "berlin: --timeout: '9' is no duration; "),
        (["drift", "--on", "all", "--at-once", "0"], "Invalid value for '--at-once'"),
        (["drift", "--on", "all", "--fleet", "/gone.yml"], "/gone.yml: 1 mistake; nothing was started.\n"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(file: Path, arguments: list[str], message: str) -> None:
    file.write_text(f"clusters: {{berlin: {{{GOOD}, groups: [canary]}}}}\n")
    assert message in refused("run", "--fleet", str(file), *arguments)
    assert not (file.parent / "state").exists()


def test_files_of_the_controller_are_not_sent_to_nodes(file: Path) -> None:
    file.write_text(f"{MESH}}}\nclusters: {{berlin: {{{GOOD}, node: eu-1}}}}\n")
    assert refused("run", "drift", "--fleet", str(file), "--on", "all", "-e", f"@{file}") == (
        "-e @FILE: files of this controller are not sent to the nodes of berlin; "
        "name one that is there in variables_files of jobs.yml\n"
    )


def test_a_run_that_is_not_there_is_not_resumed(file: Path) -> None:
    assert refused("resume") == "latest: no such run of the fleet\n"


# --- waves ---------------------------------------------------------------------------------------------


class Script:
    """A job that ends as is written down for its cluster."""

    def __init__(self, end: News, started: list[str], name: str) -> None:
        self.end, self.started, self.name = end, started, name

    def start(self) -> News:
        self.started.append(self.name)
        return self.end

    def look(self) -> News:
        return self.end

    def cancel(self) -> News:
        return self.end


def made(entries: list[Entry], at_once: int = 1, stop_after: int = 1) -> Run:
    """Return a run that this process works on."""
    return Run.model_validate(
        {
            "id": "1",
            "request": Request(job="upgrade"),
            "at_once": at_once,
            "stop_after": stop_after,
            "owner": "us",
            "created": "2026-11-30T00:00:00Z",
            "driver": process.identity(os.getpid()),
            "entries": entries,
        }
    )


FAILED, DONE = News(state="failed", exit_status=1), News(state="done", exit_status=0)
DRIFT, LATE = News(state="drift", exit_status=3), News(state="out of time", exit_status=6)


@pytest.mark.parametrize(
    ("at_once", "stop_after", "ends", "started", "status"),
    [
        (2, 1, {}, "c d a b e", 0),
        # The others of its wave have been started by then.
        (2, 1, {"c": FAILED}, "c d", 1),
        (2, 1, {"a": LATE}, "c d a b", 6),
        (1, 2, {"c": FAILED, "a": LATE}, "c d a", 1),
        (1, 1, {"c": DRIFT}, "c d a b e", 3),
        (9, 3, {"a": FAILED}, "c d a b e", 1),
    ],
)
def test_canaries_go_first_then_waves_until_so_many_have_failed(
    at_once: int, stop_after: int, ends: dict[str, News], started: str, status: int
) -> None:
    fleet = Fleet(
        clusters={
            name: Cluster(inventory=name, groups=["canary"] if name in "cd" else ["eu"]) for name in "abcde"
        }
    )
    entries = [
        Entry(cluster=name, of=fleet.clusters[name], wave=number)
        for number, names in enumerate(fleet.waves(fleet.on(["canary", "eu"]), at_once))
        for name in names
    ]
    run = made(entries, at_once, stop_after)
    order: list[str] = []

    def place(entry: Entry) -> Place:
        return Script(ends.get(entry.cluster, DONE), order, entry.cluster)

    Driver(run, lambda _: None, place, lambda: None).drive()
    assert order == started.split()
    assert run.exit_status == status
    left = {one.cluster for one in run.entries if one.news.state == "not started"}
    assert left == set("abcde") - set(order)


def test_jobs_are_cancelled_at_the_same_time() -> None:
    together = threading.Barrier(2)

    class Slow(Script):
        def cancel(self) -> News:
            together.wait(20)  # for the other one
            return News(state="cancelled", exit_status=5)

    entries = [Entry(cluster=name, of=Cluster(inventory=name), wave=1) for name in "abc"]
    entries += [Entry(cluster="d", of=Cluster(inventory="d"), wave=2)]
    for one, state in zip(entries, (DONE, News(state="running"), News(state="running")), strict=False):
        one.news = state
    run = made(entries)
    Driver(run, lambda _: None, lambda entry: Slow(DONE, [], entry.cluster), lambda: None).cancel()
    assert [one.news.state for one in run.entries] == ["done", "cancelled", "cancelled", "not started"]


def test_a_disk_that_becomes_full_ends_no_run_and_a_full_one_starts_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        runs, entries = Runs(), [Entry(cluster=one, of=Cluster(inventory=one), wave=1) for one in "abc"]
        run = runs.create(Request(job="upgrade"), entries, 1, 1)

        def fill(entry: Entry) -> Place:
            with suppress(OSError), (tmp_path / "fill").open("ab", buffering=0) as file:
                while True:
                    file.write(b"\0" * 4096)
            return Script(News(state="done", exit_status=0, message="x" * 3000), [], entry.cluster)

        driver = Driver(run, runs.save, fill, lambda: None)
        driver.drive()
        assert driver.unsaved == ""
        assert [one.news.state for one in runs.find(run.id).entries] == ["done"] * 3
        assert runs.find(run.id).ended
        fill(entries[0])
        with pytest.raises(NoSpace, match=r"/fleet: No space left on device; nothing was started$"):
            runs.create(Request(job="upgrade"), entries, 1, 1)
        assert [one.name for one in runs.root.iterdir()] == [f"{run.id}.json"]
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_group_means_its_clusters_once(file: Path) -> None:
    fleet = Fleet(clusters={name: Cluster(inventory=name, groups=["eu"]) for name in "ab"})
    assert fleet.on(["b", "eu"]) == ["a", "b"]
    assert fleet.on(["b"]) == ["b"]


def test_a_version_is_that_of_what_jobs_run(tmp_path: Path) -> None:
    (tmp_path / "roles").mkdir()
    first = version.of(tmp_path)
    assert (first.commit, first) == ("", version.of(tmp_path))
    (tmp_path / "roles" / "a.yml").write_text("a: 1\n")
    (tmp_path / "inventories").mkdir()
    second = version.of(tmp_path)
    assert second.files != first.files
    (tmp_path / "inventories" / "b.yml").write_text("b: 1\n")
    assert version.of(tmp_path) == second


# --- real jobs -----------------------------------------------------------------------------------------


class Fleets(Jobs):
    """The command, with a fleet of its own."""

    def __init__(self, project: Path, state: Path) -> None:
        super().__init__(project, state)
        self.signs = state.parent / "signs"
        self.signs.mkdir()

    def fleet(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "quote_platform.cli", "fleet", *arguments],
            cwd=self.project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> "subprocess.Popen[str]":
        return self.fleet("run", "playbooks/wait.yml", "--on", "all", "-e", f"signs={self.signs}", *arguments)

    def ask_fleet(self, *arguments: str) -> Any:
        """Ask by the command in this process."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.project)
            found = CliRunner().invoke(app, ["fleet", *arguments, "--json"], env=self.environment)
        assert found.exit_code == 0, found.output
        return json.loads(found.stdout)

    def entries(self) -> dict[str, Any]:
        """Return what is written down of the newest run, by cluster."""
        found = self.runs()
        if not found:
            return {}
        return {one["cluster"]: one["news"] for one in json.loads(max(found).read_text())["entries"]}

    def runs(self) -> list[Path]:
        """Return the records of runs."""
        return list((self.state / "quote-platform" / "fleet").glob("*.json"))

    def states(self) -> list[str]:
        return [one["state"] for one in self.entries().values()]


@pytest.fixture
def fleets(project: Path, tmp_path: Path) -> Iterator[Fleets]:
    made = Fleets(project, tmp_path / "state")
    (project / "playbooks" / "wait.yml").write_text(PLAY)
    for name in ("ams", "ber", "cdg"):
        if not (project / "inventories" / name).exists():
            inventory(project, name, "{}", cluster=name)
    (project / "inventories" / "fleet.yml").write_text(
        "clusters:\n"
        "  ams: {inventory: inventories/ams, groups: [eu]}\n"
        "  ber: {inventory: inventories/ber, groups: [eu]}\n"
        "  cdg: {inventory: inventories/cdg, groups: [canary]}\n"
    )
    yield made
    made.clean()


def test_a_run_that_is_killed_is_found_again_and_goes_on(fleets: Fleets) -> None:
    killed = fleets.run("--at-once", "1")
    try:
        wait(lambda: fleets.states() == ["running", "waiting", "waiting"])
        assert list(fleets.entries()) == ["cdg", "ams", "ber"]
        refusal = CliRunner().invoke(app, ["fleet", "resume"], env=fleets.environment)
        assert (refusal.exit_code, refusal.stderr) == (
            2,
            f"{max(fleets.runs()).stem}: process {killed.pid} works on it\n",
        )
    finally:
        killed.kill()
        killed.communicate()
    # Its job goes on, ends, and is not started a second time.
    (fleets.signs / "cdg").write_text("bad")
    wait(lambda: all(one.over for one in fleets.store.all()))
    resumed = fleets.fleet("resume")
    said, error = resumed.communicate(timeout=LONG)
    assert resumed.returncode == 1, said + error
    assert fleets.states() == ["failed", "not started", "not started"]
    assert len(fleets.store.ids()) == 1
    assert "cdg: failed  here  Fail where it is asked for: as was asked for\n" in said
    assert f"next: quote-platform job logs {fleets.entries()['cdg']['job']}\n" in said
    assert "playbooks/wait.yml on 3 clusters: 1 failed, 2 not started (run " in said

    status = {one["cluster"]: one for one in fleets.ask_fleet("status")}
    assert {name: one["jobs"].get("playbooks/wait.yml", {}).get("state") for name, one in status.items()} == {
        "ams": None,
        "ber": None,
        "cdg": "failed",
    }
    assert status["ams"]["version"] == str(version.of(fleets.project))


def test_the_status_has_what_the_last_verify_saw(fleets: Fleets) -> None:
    moment = datetime(2026, 11, 1, 3, tzinfo=UTC)
    ends: dict[str, Outcome] = {"ams": "passed", "ber": "failed"}
    for name, end in ends.items():
        said = Report(cluster=name)
        said.checks += [
            Check(name="base backup", status="passed", moment=moment + timedelta(days=1)),
            Check(name="dump", status=end, moment=moment),
            Check(name="etcd snapshot", status="not run"),
            Check(name="certificates", status=end, moment=moment),
            Check(name="nodes", status="passed"),
        ]
        said.write(fleets.signs / f"{name}.json")
    (fleets.project / "playbooks" / "verify.yml").write_text(VERIFY.replace("SIGNS", str(fleets.signs)))
    run = fleets.fleet("run", "verify", "--on", "eu", "--at-once", "2")
    said_by_run, error = run.communicate(timeout=LONG)
    assert run.returncode == 0, said_by_run + error

    status = {one["cluster"]: one for one in fleets.ask_fleet("status")}
    assert status["cdg"]["checks"] == {}
    assert status["ber"]["checks"] == {
        "base backup": {"status": "passed", "moment": "2026-11-02T03:00:00Z"},
        "dump": {"status": "failed", "moment": "2026-11-01T03:00:00Z"},
        "etcd snapshot": {"status": "not run", "moment": None},
        "certificates": {"status": "failed", "moment": "2026-11-01T03:00:00Z"},
    }
    known = {name: Status.model_validate(one).checks for name, one in status.items()}
    assert {name: (str(view.backups(one)), str(view.certificates(one))) for name, one in known.items()} == {
        "ams": (f"{(datetime.now(UTC) - moment).days} d ago", "until 2026-11-01"),
        "ber": ("dump failed", "until 2026-11-01"),
        "cdg": ("", ""),
    }


# --- over the mesh -------------------------------------------------------------------------------------


class Meshed(Fleets):
    """A controller in a mesh, with the nodes that a test adds."""

    def __init__(self, project: Path, folder: Path) -> None:
        super().__init__(project, folder / "state")
        self.mesh = Mesh(folder)
        self.mesh.start("controller", "receptor-controller.conf")
        self.stores: dict[str, Store] = {}

    def node(self, name: str, checkout: Path, peer: str = "controller") -> None:
        """Start an execution node that works on a checkout, with records of its own."""
        self.stores[name] = Store(self.mesh.folder / name / "quote-platform" / "jobs")
        self.mesh.node(name, checkout, self.environment, peer)

    def name(self, nodes: dict[str, str]) -> None:
        """Write a fleet.yml that says from which node each cluster is reached."""
        (self.project / "inventories" / "fleet.yml").write_text(
            f"receptor: {{nodes: {json.dumps(sorted(set(nodes.values())))}, socket: {self.mesh.socket}}}\n"
            "clusters:\n"
            + "".join(f"  {one}: {{inventory: inventories/{one}, node: {of}}}\n" for one, of in nodes.items())
        )

    def clean(self) -> None:
        self.mesh.stop()
        for store in self.stores.values():
            self.store = store
            super().clean()


@pytest.fixture
def mesh(fleets: Fleets, tmp_path: Path) -> Iterator[Meshed]:
    fleets.signs.rmdir()
    made = Meshed(fleets.project, tmp_path)
    yield made
    made.clean()


@pytest.fixture
def meshed(mesh: Meshed, tmp_path: Path) -> Meshed:
    """A node with the controller's version, and one with another."""
    other = tmp_path / "other"
    shutil.copytree(mesh.project, other)
    (other / "group_vars").mkdir()
    (other / "group_vars" / "all.yml").write_text("new: true\n")
    mesh.node("eu-1", mesh.project)
    mesh.node("eu-2", other)  # which runs something only if it should not
    mesh.name({"ams": "eu-1", "ber": "eu-2"})
    mesh.mesh.ready("eu-1", "eu-2")
    return mesh


def assert_lost_when_its_node_is_away(
    meshed: Meshed, mine: version.Version, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Follow a job that runs, and have its node be cut off, which nobody says."""
    (file,) = meshed.runs()
    known = Run.model_validate_json(file.read_text())
    assert known.receptor
    entry = known.entries[0]
    remote = Remote(known.receptor, mine, known.request, known.origin(entry), entry)
    remote.start()
    wait(lambda: remote.look().job == job)
    meshed.mesh.kill("eu-1")
    monkeypatch.setattr("quote_platform.fleet.mesh.LOST", 7.0)
    begun = time.monotonic()
    wait(lambda: remote.look().over)
    assert (remote.news.state, remote.news.message) == ("lost", "node eu-1: no word for 7 s")
    assert time.monotonic() - begun < 30
    # Receptor will remove it there when it can.
    work = meshed.mesh.folder / "data-controller" / "controller" / remote.work.unit / "status"
    wait(lambda: '"LocalReleased":true' in work.read_text())


def test_a_node_runs_jobs_and_what_it_did_while_it_was_away_is_found(
    meshed: Meshed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = version.of(meshed.project), version.of(tmp_path / "other")
    node = meshed.stores["eu-1"]
    run = meshed.run("--at-once", "9")
    wait(lambda: meshed.states() == ["running", "refused"])
    run.kill()
    run.communicate()
    entries = meshed.entries()
    assert entries["ber"]["message"] == (
        f"the controller has {mine}, this node {theirs}: bring both to the same version"
    )
    assert meshed.store.ids() == []
    (job,) = node.ids()

    assert_lost_when_its_node_is_away(meshed, mine, job, monkeypatch)

    # Its job ends meanwhile, and the controller is started again.
    meshed.mesh.kill("controller")
    (meshed.signs / "ams").write_text("good")
    wait(lambda: node.look(job).over)
    meshed.mesh.again("controller")
    meshed.mesh.again("eu-1")
    meshed.mesh.ready("eu-1", "eu-2")
    resumed = meshed.fleet("resume", "--json")
    said, error = resumed.communicate(timeout=LONG)
    assert resumed.returncode == 4, said + error
    assert meshed.states() == ["done", "refused"]
    assert [one["exit_status"] for one in meshed.entries().values()] == [0, 4]
    assert node.ids() == [job]

    status = {one["cluster"]: one for one in meshed.ask_fleet("status")}
    assert status["ams"]["jobs"]["playbooks/wait.yml"]["state"] == "done"
    assert [(one["version"], one["same"]) for one in status.values()] == [
        (str(mine), True),
        (str(theirs), False),
    ]

    # What runs there is stopped with the command here.
    (meshed.signs / "ams").unlink()
    run = meshed.run("--json")
    wait(lambda: meshed.states() == ["running", "waiting"])
    run.send_signal(signal.SIGTERM)
    said, error = run.communicate(timeout=LONG)
    assert run.returncode == 5, error
    found = json.loads(said)
    assert [one["news"]["state"] for one in found["entries"]] == ["cancelled", "not started"]
    record = node.read(found["entries"][0]["news"]["job"])
    assert found["next"] == [
        f"quote-platform job logs {record.id}  # on eu-1",
        f"quote-platform fleet resume {found['id']}",
    ]
    assert record.supervisor
    assert not process.alive(record.supervisor)
    # Receptor keeps nothing of what has ended.
    kept = [tmp_path / "data-eu-1" / "eu-1", tmp_path / "data-controller" / "controller"]
    wait(lambda: not any(list(one.glob("*")) for one in kept), 60)


def test_a_node_refuses_what_it_cannot_do(project: Path, file: Path) -> None:
    mine = version.of(project)
    ask = Ask(do="run", version=mine, origin="1/a", inventories=["inventories/gone"])
    (answer,) = serve(project, ask.model_dump_json())
    assert answer.news.exit_status == 2
    assert answer.news.message == f"no such inventory in {project}: inventories/gone"
    (answer,) = serve(project, "{}")
    assert (answer.news.state, answer.news.exit_status) == ("refused", 4)
    assert answer.news.message == f"this node has {mine}, and does not understand: 'version'"


def test_a_mesh_that_does_not_answer_is_named(tmp_path: Path) -> None:
    mesh = Receptor(nodes=["eu-1"], socket=f"{tmp_path}/gone.sock")
    ask = Ask(do="status", version=version.of(tmp_path), inventories=[])
    with pytest.raises(Unheard, match=r"^Socket path does not exist: /.*/gone.sock$"):
        one_answer(mesh, "eu-1", ask, 10)
