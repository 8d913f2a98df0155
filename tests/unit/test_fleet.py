"""Jobs on many clusters: wrong input is refused, waves go in order, and real jobs run and are found again."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_jobs import HEAD, LONG, Jobs, inventory, project, wait
from typer.testing import CliRunner

from quote_platform.cli import app
from quote_platform.fleet import version
from quote_platform.fleet.definition import Cluster, Fleet
from quote_platform.fleet.run import Driver, Entry, News, Place, Request, Run
from quote_platform.jobs import process

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
    return found.stderr


GOOD = "inventory: inventories/production"


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
    run = Run.model_validate(
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
    order: list[str] = []

    def place(entry: Entry) -> Place:
        return Script(ends.get(entry.cluster, DONE), order, entry.cluster)

    Driver(run, lambda _: None, place, lambda: None).drive()
    assert order == started.split()
    assert run.exit_status == status
    left = {one.cluster for one in run.entries if one.news.state == "not started"}
    assert left == set("abcde") - set(order)


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

    def entries(self) -> dict[str, Any]:
        """Return what is written down of the newest run, by cluster."""
        found = list((self.state / "quote-platform" / "fleet").glob("*.json"))
        if not found:
            return {}
        return {one["cluster"]: one["news"] for one in json.loads(max(found).read_text())["entries"]}

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
        assert "works on it" in fleets.fleet("resume").communicate(timeout=LONG)[1]
    finally:
        killed.kill()
        killed.communicate()
    # Its job goes on, ends, and is not started a second time.
    (fleets.signs / "cdg").write_text("good")
    (fleets.signs / "ams").write_text("bad")
    wait(lambda: all(one.over for one in fleets.store.all()))
    resumed = fleets.fleet("resume")
    said, error = resumed.communicate(timeout=LONG)
    assert resumed.returncode == 1, said + error
    assert fleets.states() == ["done", "failed", "not started"]
    assert len(fleets.store.ids()) == 2
    assert "ams: failed  here  Fail where it is asked for: as was asked for\n" in said
    assert f"next: quote-platform job logs {fleets.entries()['ams']['job']}\n" in said
    assert "playbooks/wait.yml on 3 clusters: 1 done, 1 failed, 1 not started (run " in said

    found = CliRunner().invoke(app, ["fleet", "status", "--json"], env=fleets.environment)
    assert found.exit_code == 2  # of this checkout, which has no fleet.yml
    file = str(fleets.project / "inventories" / "fleet.yml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(fleets.project)
        found = CliRunner().invoke(
            app, ["fleet", "status", "--json", "--fleet", file], env=fleets.environment
        )
    status = {one["cluster"]: one for one in json.loads(found.stdout)}
    assert {name: one["jobs"].get("playbooks/wait.yml", {}).get("state") for name, one in status.items()} == {
        "ams": "failed",
        "ber": None,
        "cdg": "done",
    }
    assert status["ams"]["version"] == str(version.of(fleets.project))


def test_a_run_that_is_cancelled_leaves_nothing_behind(fleets: Fleets) -> None:
    run = fleets.run("--at-once", "2", "--on", "ams", "--json")
    wait(lambda: fleets.states() == ["running", "waiting", "waiting"])
    run.send_signal(signal.SIGTERM)
    said, error = run.communicate(timeout=LONG)
    assert run.returncode == 5, error
    found = json.loads(said)
    assert [one["news"]["state"] for one in found["entries"]] == ["cancelled", "not started", "not started"]
    assert found["exit_status"] == 5
    assert found["next"] == [
        f"quote-platform job logs {found['entries'][0]['news']['job']}",
        f"quote-platform fleet resume {found['id']}",
    ]
    (record,) = fleets.store.all()
    assert record.supervisor
    assert not process.alive(record.supervisor)
