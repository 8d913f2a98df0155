"""What becomes of the jobs of a fleet when a part of the mesh goes away: a hop, a node, the controller."""

import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta

import pytest
from test_fleet import Meshed, fleets, mesh, wait
from test_jobs import LONG, project

from quote_platform.jobs import process

__all__ = ["fleets", "mesh", "project"]  # fixtures
# Within which an execution node that has died is noticed; what the controller itself then takes comes on top.
MINUTE = 60


def ended(run: "subprocess.Popen[str]", status: int) -> str:
    """Wait for a command; return what it has said."""
    said, error = run.communicate(timeout=LONG)
    assert run.returncode == status, said + error
    return said


def die(meshed: Meshed, node: str) -> None:
    """Have a machine lose its power: its receptor, and whatever runs of its jobs."""
    meshed.mesh.kill(node)
    store = meshed.stores[node]
    for name in store.ids():
        record = store.read(name)
        assert record.supervisor
        process.send(record.supervisor, signal.SIGKILL)
        process.Group(record.id, record.cgroup).kill()


@pytest.mark.proof(minutes=5)
def test_a_hop_goes_away_and_comes_back_and_so_does_the_controller(mesh: Meshed) -> None:
    mesh.mesh.start("hop", "receptor-hop.conf")
    mesh.node("eu-1", mesh.project, peer="hop")
    mesh.name({"ams": "eu-1", "ber": "eu-1"})
    mesh.mesh.ready("hop", "eu-1")
    run = mesh.run("--at-once", "2")
    wait(lambda: mesh.states() == ["running", "running"])
    jobs = {name: one["job"] for name, one in mesh.entries().items()}
    store = mesh.stores["eu-1"]
    assert sorted(jobs.values()) == sorted(store.ids())

    # A job ends while nobody hears of it.
    mesh.mesh.kill("hop")
    (mesh.signs / "ams").write_text("good")
    wait(lambda: store.look(jobs["ams"]).over)
    assert mesh.states() == ["running", "running"]
    mesh.mesh.again("hop")
    # receptor may need longer to go on than the controller waits for a word.
    wait(lambda: mesh.states()[0] in {"done", "lost"})

    # Nor of the other one: everything on this side of the hop is killed, and fleet.yml has gone meanwhile.
    run.kill()
    run.communicate()
    mesh.mesh.kill("controller")
    (mesh.signs / "ber").write_text("good")
    wait(lambda: store.look(jobs["ber"]).over)
    (mesh.project / "inventories" / "fleet.yml").unlink()
    mesh.mesh.again("controller")
    mesh.mesh.ready("hop", "eu-1")
    ended(mesh.fleet("resume"), 0)
    assert mesh.states() == ["done", "done"]
    assert {name: one["job"] for name, one in mesh.entries().items()} == jobs
    assert sorted(store.ids()) == sorted(jobs.values())


@pytest.mark.proof(minutes=5)
def test_all_jobs_of_a_node_that_dies_are_lost_within_a_minute_and_the_next_run_converges(
    mesh: Meshed,
) -> None:
    mesh.node("eu-1", mesh.project)
    mesh.node("us-1", mesh.project)
    mesh.name({"ams": "eu-1", "ber": "eu-1", "cdg": "us-1"})
    mesh.mesh.ready("eu-1", "us-1")
    run = mesh.run("--at-once", "3")
    wait(lambda: mesh.states() == ["running"] * 3)
    jobs = {name: one["job"] for name, one in mesh.entries().items()}
    died = time.monotonic()
    die(mesh, "eu-1")
    (mesh.signs / "cdg").write_text("good")
    wait(lambda: mesh.states() == ["lost", "lost", "done"])
    assert time.monotonic() - died < MINUTE
    said = ended(run, 1)
    assert said.count("node eu-1: no word for 45 s") == 2
    assert "next: quote-platform fleet resume " in said

    # It is on again, and its receptor may be older than the controller's question.
    for name in ("ams", "ber"):
        (mesh.signs / name).write_text("good")
    mesh.mesh.again("eu-1")
    mesh.mesh.ready("eu-1", "us-1")
    ended(mesh.fleet("resume"), 1)
    assert mesh.states() == ["interrupted", "interrupted", "done"]
    assert {name: one["job"] for name, one in mesh.entries().items()} == jobs
    ended(mesh.run("--at-once", "3"), 0)
    assert mesh.states() == ["done"] * 3
    assert len(mesh.runs()) == 2


def test_a_socket_that_is_gone_loses_jobs_and_no_time(mesh: Meshed) -> None:
    mesh.node("eu-1", mesh.project)
    mesh.name({"ams": "eu-1"})
    mesh.mesh.ready("eu-1")
    mesh.mesh.socket.unlink()
    begun = time.monotonic()
    said = ended(mesh.run(), 1)
    assert time.monotonic() - begun < MINUTE
    why = f"node eu-1: Socket path does not exist: {mesh.mesh.socket}"
    assert mesh.entries()["ams"] | {"state": "lost", "message": why} == mesh.entries()["ams"]
    assert "1 lost" in said
    (known,) = mesh.ask_fleet("status")
    assert known["message"] == why
    # What was lost without having begun is started when the socket is there again.
    mesh.mesh.kill("controller")
    mesh.mesh.again("controller")
    mesh.mesh.ready("eu-1")
    (mesh.signs / "ams").write_text("good")
    ended(mesh.fleet("resume"), 0)
    assert len(mesh.stores["eu-1"].ids()) == 1


@pytest.mark.proof(minutes=3)
@pytest.mark.parametrize(
    ("whose", "named"), [("controller", "tls: expired certificate"), ("eu-1", "certificate has expired")]
)
def test_a_certificate_that_has_ended_is_named(mesh: Meshed, whose: str, named: str) -> None:
    end = datetime.now(UTC) + timedelta(seconds=45)
    mesh.mesh.certify(whose, f"notafter={end:%Y-%m-%dT%H:%M:%SZ}")
    if whose == "controller":
        mesh.mesh.kill("controller")
        mesh.mesh.again("controller")
    mesh.node("eu-1", mesh.project)
    mesh.name({"ams": "eu-1"})
    mesh.mesh.ready("eu-1")
    wait(lambda: datetime.now(UTC) > end)
    said = ended(mesh.run(), 1)
    assert mesh.stores["eu-1"].ids() == []
    assert named in mesh.entries()["ams"]["message"], said
