"""Jobs by real runs of ansible-runner: how each ends, what it leaves, and who may run beside it."""

import fcntl
import json
import multiprocessing
import os
import pty
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from quote_platform.cli import app
from quote_platform.jobs import process
from quote_platform.jobs.definition import plan
from quote_platform.jobs.lock import Held, Lock
from quote_platform.jobs.record import Record, Store

ROOT = Path(__file__).resolve().parents[2]
HEAD = "- name: Test\n  hosts: all\n  gather_facts: false\n  tasks:\n"
PLAYBOOKS = {
    "site.yml": HEAD + "    - name: Nothing\n      ansible.builtin.meta: noop\n",
    "playbooks/verify.yml": HEAD + "    - name: Nothing\n      ansible.builtin.meta: noop\n",
    # Says what holds inside of a job, and looks for the secret where it might be while the job runs.
    "playbooks/look.yml": HEAD
    + """
    - name: Say what holds
      ansible.builtin.debug:
        msg:
          precedence: "{{ lookup('ansible.builtin.config', 'VARIABLE_PRECEDENCE') | first }}"
          keys: "{{ lookup('ansible.builtin.config', 'HOST_KEY_CHECKING') }}"
          roles: "{{ lookup('ansible.builtin.config', 'DEFAULT_ROLES_PATH') | first }}"
          command: "{{ lookup('ansible.builtin.pipe', 'tr \\"\\\\0\\" \\" \\" < /proc/$PPID/cmdline') }}"
          found: "{{ lookup('ansible.builtin.pipe', search) }}"
          word: "{{ word }}"
      vars:
        search: grep -rlF -- "$THE_SECRET" {{ state }} $ANSIBLE_LOCAL_TEMP/.. || true
    - name: Use the secret
      ansible.builtin.command:
        argv: ["true", "{{ given_token }}"]
      changed_when: true
      no_log: true
    - name: Fail with it
      ansible.builtin.fail:
        msg: "{{ given_token }}"
      no_log: true
      ignore_errors: true
    - name: Rescue
      block:
        - name: Fail where it does not matter
          ansible.builtin.fail:
            msg: never mind
      rescue:
        - name: Go on
          ansible.builtin.meta: noop
    - name: Fail unless all is well
      ansible.builtin.command: cat {{ state }}/well
      changed_when: false
""",
    "playbooks/file.yml": HEAD
    + """
    - name: Write
      ansible.builtin.copy:
        content: right
        dest: "{{ target }}"
        mode: "0600"
""",
    "playbooks/fill.yml": HEAD
    + """
    - name: Fill the disk
      ansible.builtin.shell: dd if=/dev/zero of={{ state }}/fill bs=4k || true
      changed_when: true
    - name: Say more than there is room for
      ansible.builtin.debug:
        msg: "{{ 'x' * 20000 }}"
""",
    # A daemon that leaves its session, its parents and its environment, and one that will not end when asked.
    "playbooks/long.yml": HEAD
    + """
    - name: Leave something behind
      ansible.builtin.shell: |
        (env -i setsid sh -c 'sleep {{ mark }} & exec sleep {{ mark }}' >/dev/null 2>&1 </dev/null &)
        {{ stubborn | default(false) | ternary('(trap "" TERM; sleep ' ~ mark ~ ' >/dev/null 2>&1) &', '') }}
      changed_when: true
    - name: Take long
      ansible.builtin.command: sleep {{ mark }}
      changed_when: true
""",
}
TWO = """
    - name: Write two
      ansible.builtin.copy:
        content: right
        dest: "{{ target }}.{{ item }}"
        mode: "0600"
      loop: [a, b]
"""
# Seconds that a machine with much else to do may take for anything.
LONG = 240
# What no sleep of anybody else has.
MARKS = (f"{50_000 + number}.{secrets.randbelow(10**6)}" for number in range(1000))


def cgroups() -> bool:
    """Return whether a job has a cgroup of its own here."""
    group = process.Group.create(f"test-{os.getpid()}")
    group.kill()
    return group.cgroup is not None


def inventory(project: Path, name: str, jobs: str, cluster: str = "little") -> None:
    folder = project / "inventories" / name
    folder.mkdir(parents=True)
    (folder / "hosts.yml").write_text(
        "all:\n  hosts:\n"
        f"    here: {{ansible_connection: local, ansible_python_interpreter: {sys.executable}}}\n"
        f"  vars: {{cluster_name: {cluster}, cluster_kubeconfig: '{{{{ inventory_dir }}}}/kubeconfig'}}\n"
    )
    (folder / "jobs.yml").write_text(jobs)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose playbooks take seconds."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "roles").mkdir()
    (folder / "playbooks").mkdir()
    shutil.copy(ROOT / "ansible.cfg", folder)
    for name, text in PLAYBOOKS.items():
        (folder / name).write_text(text)
    inventory(folder, "here", "jobs:\n  look: {playbook: playbooks/file.yml, check: true}\n")
    return folder


class Jobs:
    """The command, in a checkout, with a state of its own."""

    def __init__(self, project: Path, state: Path) -> None:
        self.project, self.state = project, state
        self.environment = os.environ | {"XDG_STATE_HOME": str(state), "TERM": "xterm", "COLUMNS": "120"}
        self.store = Store(state / "quote-platform" / "jobs")

    def begin(self, *arguments: str, stdio: Any = subprocess.PIPE, **environment: Any) -> Any:
        return subprocess.Popen(
            [sys.executable, "-m", "quote_platform.cli", "job", *arguments],
            cwd=self.project,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL if stdio == subprocess.PIPE else stdio,
            stdout=stdio,
            stderr=stdio,
            text=True,
            start_new_session=True,
            # So that it is told when the terminal dies.
            preexec_fn=lambda: os.isatty(0) and fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )

    def call(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        child = self.begin(*arguments, **environment)
        output, error = child.communicate(timeout=LONG)
        return child.returncode, output, error

    def ask(self, *arguments: str, status: int = 0, **environment: str) -> Any:
        found, output, error = self.call(*arguments, "--json", **environment)
        assert found == status, output + error
        return json.loads(output)

    def look(self, *arguments: str) -> Any:
        """Ask about jobs that there are, by the command in this process."""
        found = CliRunner().invoke(app, ["job", *arguments, "--json"], env=self.environment)
        assert found.exit_code == 0, found.output
        return json.loads(found.stdout)

    def clean(self) -> None:
        for record in self.store.all():
            if record.supervisor:
                process.send(record.supervisor, signal.SIGKILL)
            self.store.clean(record)


@pytest.fixture
def jobs(project: Path, tmp_path: Path) -> Iterator[Jobs]:
    made = Jobs(project, tmp_path / "state")
    yield made
    made.clean()


def wait(true: Callable[[], bool], seconds: float = LONG) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def sleeping(mark: str) -> list[psutil.Process]:
    """Return the processes that a job with a mark has started and that live."""
    found = []
    for one in psutil.process_iter(["cmdline", "status"]):
        words = one.info["cmdline"] or []
        if one.info["status"] != psutil.STATUS_ZOMBIE and any(mark in word for word in words):
            found.append(one)
    return [one for one in found if "quote_platform" not in " ".join(one.info["cmdline"])]


# --- how it ends ---------------------------------------------------------------------------------------


def test_a_job_fails_with_its_reason_is_run_again_and_keeps_no_secret(jobs: Jobs, tmp_path: Path) -> None:
    secret = secrets.token_hex(16)
    (tmp_path / "given.yml").write_text(f"given_token: {secret}\n")
    (jobs.state).mkdir()
    (jobs.state / "stray").write_text("not-the-secret")
    extra = ["-e", f"@{tmp_path / 'given.yml'}", "-e", f"state={jobs.state}", "-e", "word=unheard-of"]
    arguments = ["run", "playbooks/look.yml", "-i", "inventories/here", *extra]
    job = jobs.ask(*arguments, status=1, THE_SECRET=secret)
    assert (job["state"], job["exit_status"], job["cluster"]) == ("failed", 1, "little")
    (failed,) = job["summary"]["failed"]
    missing = f"cat: {jobs.state}/well: No such file or directory"
    assert failed["message"] == f"The command exited with a non-zero return code.\n{missing}"
    assert (failed["play"], failed["task"], failed["host"]) == ("Test", "Fail unless all is well", "here")
    assert job["message"] == f"here: Fail unless all is well: {failed['message']}".replace("\n", " ")
    assert job["next"] == [f"quote-platform job logs {job['id']}", f"quote-platform job retry {job['id']}"]
    counts = job["summary"]["recap"]["here"]
    assert (counts["failed"], counts["changed"], counts["ignored"], counts["rescued"]) == (1, 1, 1, 1)

    shown = jobs.look("show", "latest")
    status = {one["task"]: (one["status"], one["message"]) for one in shown["results"]}
    assert status["Fail with it"] == ("ignored", "hidden, as the task says no_log")
    assert all(one["duration"] > 0 for one in shown["results"] if one["task"] == "Use the secret")
    said = json.loads(status["Say what holds"][1])
    assert said["precedence"] == "all_plugins_play"
    assert said["keys"] is True
    assert said["roles"] == f"{jobs.project}/roles"
    assert said["word"] == "unheard-of"
    assert "ansible-playbook" in said["command"]
    assert "unheard-of" not in said["command"]
    assert said["found"] == ""  # while it ran

    (jobs.state / "well").touch()
    again = jobs.ask("retry", job["id"], THE_SECRET=secret)
    assert (again["state"], again["retry_of"], again["plan"]) == ("done", job["id"], job["plan"])
    log = jobs.call("logs", again["id"])[1]
    assert "TASK [Use the secret]" in log
    assert "\x1b" not in log
    files = [one for one in jobs.state.rglob("*") if one.is_file()]
    assert len(files) > 8
    assert not [one for one in files if secret.encode() in one.read_bytes()]
    modes = {stat.S_IMODE(one.stat().st_mode) for one in jobs.store.root.rglob("*") if one.is_dir()}
    assert modes == {0o700}
    assert {stat.S_IMODE(one.stat().st_mode) for one in jobs.store.root.rglob("*") if one.is_file()} == {
        0o600
    }
    assert not Path(job["scratch"]).exists()


def test_one_job_changes_a_cluster_and_others_look_meanwhile(jobs: Jobs, tmp_path: Path) -> None:
    mark, target = next(MARKS), tmp_path / "file"
    holder = jobs.ask("start", "playbooks/long.yml", "-i", "inventories/here", "-e", f"mark={mark}")
    assert (holder["state"], holder["exit_status"]) == ("running", None)
    given = ["-i", "inventories/here", "-e", f"target={target}"]
    second, drift = (
        jobs.begin("run", "playbooks/file.yml", *given, "--json"),
        jobs.begin("run", "look", *given),
    )
    refused = json.loads(second.communicate(timeout=LONG)[0])
    assert (second.returncode, refused["state"], refused["exit_status"]) == (4, "refused", 4)
    assert re.fullmatch(
        rf"cluster little: job {holder['id']} \(playbooks/long.yml\) of {re.escape(holder['owner'])}, "
        r"since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\dZ, holds it \(on this controller\)",
        refused["message"],
    )
    said = drift.communicate(timeout=LONG)[0]
    assert drift.returncode == 3, said
    assert f"drift  here  Write: {target}\nnote: it changes nothing, so it takes no lock\n" in said
    assert said.splitlines()[-1] == "next: quote-platform job run converge -i inventories/here"
    assert not target.exists()

    jobs.look("cancel", holder["id"])
    # Longer than the kernel waits for at once.
    code, said, _ = jobs.call("run", "playbooks/file.yml", *given, "--timeout", "30d")
    assert code == 0
    assert f"changed  here  Write: {target}\n" in said
    assert "playbooks/file.yml on inventories/here: done after" in said


def test_drift_is_listed_by_object_and_is_an_end_of_its_own(
    jobs: Jobs, project: Path, tmp_path: Path
) -> None:
    (tmp_path / "metrics").mkdir()
    if not (project / "inventories" / "watched").exists():
        inventory(project, "watched", f"metrics_directory: {tmp_path}/metrics\n", cluster="watched")
    (project / "site.yml").write_text(PLAYBOOKS["playbooks/file.yml"] + TWO)
    try:
        given = ["drift", "-i", "inventories/watched", "-e", f"target={tmp_path}/file"]
        started = jobs.ask("start", *given)
        wait(lambda: jobs.store.look(started["id"]).over)
        for found in (jobs.look("show", started["id"]), jobs.ask("retry", started["id"], status=3)):
            assert (found["state"], found["exit_status"]) == ("drift", 3)
            assert found["message"] == "2 differences"
            assert [(one["host"], one["task"], one["objects"]) for one in found["summary"]["changed"]] == [
                ("here", "Write", [f"{tmp_path}/file"]),
                ("here", "Write two", [f"{tmp_path}/file.a", f"{tmp_path}/file.b"]),
            ]
            assert found["next"] == ["quote-platform job run converge -i inventories/watched"]
        told = tmp_path / "metrics" / "quote-platform-watched-drift.prom"
        assert 'drift_found{cluster="watched",name="drift"} 2.0\n' in told.read_text()
        arguments = ["run", "converge", *given[1:]]
        assert jobs.call(*arguments)[0] == 0
        assert jobs.ask("retry", started["id"])["state"] == "done"
        assert 'drift_found{cluster="watched",name="drift"} 0.0\n' in told.read_text()
        assert sorted(one.name for one in told.parent.iterdir()) == [
            "quote-platform-watched-converge.prom",
            told.name,
        ]
    finally:
        (project / "site.yml").write_text(PLAYBOOKS["site.yml"])


def test_what_a_job_was_started_with_may_change_or_vanish_while_it_runs(jobs: Jobs, project: Path) -> None:
    inventory(project, "fleeting", "jobs: {nap: {playbook: playbooks/long.yml}}\n", cluster="fleeting")
    folder = project / "inventories" / "fleeting"
    job = jobs.ask("start", "nap", "-i", "inventories/fleeting", "-e", f"mark={next(MARKS)}")
    wait(lambda: jobs.store.find(job["id"]).summary.task == "Take long")
    (folder / "jobs.yml").write_text("jobs: {nap: {playbook: gone.yml}}\n")
    assert jobs.look("show", job["id"])["plan"]["playbook"] == "playbooks/long.yml"
    shutil.rmtree(folder)
    assert [one["state"] for one in jobs.look("list")] == ["running"]
    ended = jobs.look("cancel", job["id"])
    assert (ended["state"], ended["cluster"]) == ("cancelled", "fleeting")
    code, _, error = jobs.call("retry", job["id"])
    assert (code, error) == (2, f"{job['id']}: its inventory is gone: {folder}\n")


WAYS = {
    "cancel": ("cancelled", "by OWNER"),
    "SIGKILL of the supervisor": (
        "interrupted",
        "its supervisor is gone: killed, or the controller was switched off",
    ),
    "SIGKILL of the worker": (
        "failed",
        "its worker process ended before the playbook did, with signal 9; see LOG",
    ),
    "SIGKILL of both": ("interrupted", "its supervisor is gone: killed, or the controller was switched off"),
    "SIGTERM of the supervisor": (
        "interrupted",
        "stopped by a signal: the controller is being switched off?",
    ),
    "SIGKILL of the command": ("cancelled", "the command that ran it has ended"),
    "a terminal that dies": ("cancelled", "by OWNER"),
    # The last, so that the others are done with meanwhile.
    "time-out": ("out of time", "not done after 12 s"),
}


class Stopping:
    """A job for each way to stop it, all of them under way."""

    def __init__(self, project: Path, state: Path, kind: str) -> None:
        self.jobs, self.kind = Jobs(project, state), kind
        self.terminal, side = pty.openpty()
        self.marks = {way: next(MARKS) for way in WAYS}
        self.commands = {}
        for number, way in enumerate(WAYS):
            if not (project / "inventories" / f"way-{number}").exists():
                inventory(project, f"way-{number}", "{}", cluster=f"way-{number}")
            in_front = way in {"SIGKILL of the command", "a terminal that dies"}
            given = ["playbooks/long.yml", "-i", f"inventories/way-{number}", "-e", f"mark={self.marks[way]}"]
            given += ["-e", "stubborn=true"] if way == "cancel" else []
            given += ["--timeout", "12s"] if way == "time-out" else []
            stdio = side if way == "a terminal that dies" else subprocess.DEVNULL
            self.commands[way] = self.jobs.begin(
                "run" if in_front else "start", *given, stdio=stdio, QUOTE_PLATFORM_JOB_GROUP=kind
            )
        os.close(side)

    def job(self, way: str) -> Record:
        """Return the job of a way, once it has left processes behind."""
        inventory = f"/way-{list(WAYS).index(way)}"

        def found() -> list[Record]:
            return [one for one in self.jobs.store.all() if one.plan.inventory.endswith(inventory)]

        if way != "time-out":
            wait(lambda: any(one.summary.task == "Take long" for one in found()))
            wait(lambda: len(sleeping(self.marks[way])) >= 3)
        return found()[0]

    def stop(self, way: str) -> Record:
        """Stop the job of a way, and wait until nobody is left who could still do something about it."""
        record = self.job(way)
        assert record.supervisor
        if way == "time-out":
            wait(lambda: self.jobs.store.look(record.id).over)
            return record
        supervisor = psutil.Process(record.supervisor.pid)
        (worker,) = [one for one in supervisor.children() if "quote_platform.jobs.worker" in one.cmdline()]
        match way:
            case "cancel":
                self.jobs.look("cancel", record.id)
            case "SIGKILL of the supervisor":
                supervisor.kill()
            case "SIGKILL of the worker":
                worker.kill()
            case "SIGKILL of both":
                for one in (supervisor, worker):  # neither sees the other die
                    one.suspend()
                for one in (supervisor, worker):
                    one.kill()
            case "SIGTERM of the supervisor":
                supervisor.terminate()
            case "SIGKILL of the command":
                self.commands[way].kill()
            case "a terminal that dies":
                shown = ""
                while "now on here" not in shown:
                    shown += os.read(self.terminal, 65536).decode(errors="replace")
                assert "playbooks/long.yml: playbooks/long.yml on inventories/way-" in shown
                os.close(self.terminal)
        psutil.wait_procs([supervisor, worker], 30)
        return record


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            "cgroup", marks=pytest.mark.skipif(not cgroups(), reason="no cgroup v2 that can be written to")
        ),
        "processes",
    ],
)
def stopping(
    request: pytest.FixtureRequest, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stopping]:
    made = Stopping(project, tmp_path_factory.mktemp("state"), request.param)
    yield made
    made.jobs.clean()
    for child in made.commands.values():
        child.wait(30)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_a_job_is_left_however_it_ends(stopping: Stopping, way: str) -> None:
    record = stopping.stop(way)
    assert bool(record.cgroup) == (stopping.kind == "cgroup")
    if way == "SIGKILL of both":
        # Nobody was there to do it; the next command is.
        stopping.jobs.look("list")
    left = sleeping(stopping.marks[way])
    if way == "SIGKILL of both" and stopping.kind == "processes":
        # What has left its session, its parents and its environment is found by a cgroup only.
        assert len(left) <= 2
        for one in left:
            one.kill()
    else:
        assert left == []
    state, message = WAYS[way]
    found = stopping.jobs.look("show", record.id)
    folder = stopping.jobs.store.folder(record.id)
    wanted = message.replace("OWNER", record.owner).replace("LOG", f"{folder}/supervisor.log")
    assert (found["state"], found["message"]) == (state, wanted)
    assert f"quote-platform job retry {record.id}" in found["next"]
    if way != "time-out":  # a slow machine may not have come as far
        assert [one["task"] for one in found["summary"]["changed"]] == ["Leave something behind"]
        assert found["summary"]["task"] == "Take long"
    assert not Path(found["scratch"]).exists()
    assert not (record.cgroup and Path(record.cgroup).exists())
    assert found["exit_status"] == {"cancelled": 5, "out of time": 6}.get(state, 1)
    Lock(stopping.jobs.store, record.cluster).take(record)  # free


@pytest.mark.parametrize("kind", ["cgroup", "processes"])
def test_a_worker_that_has_not_joined_its_group_yet_ends_with_it(kind: str) -> None:
    group = process.Group.create(f"test-{os.getpid()}", kind)
    child = subprocess.Popen(["sleep", next(MARKS)], env={process.MARK: group.job, "PATH": os.defpath})
    other = subprocess.Popen(["sleep", "60"])
    try:
        wait(lambda: group.members() == {child.pid})
        group.kill()
        assert child.wait(10) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    assert not (group.cgroup and group.cgroup.exists())


@pytest.mark.skipif(
    Path("/run/systemd/system").exists() or not shutil.which("systemd-run"),
    reason="needs a systemd that is away",
)
@pytest.mark.parametrize("command", ["run", "start"])
def test_a_supervisor_that_does_not_start_is_said(jobs: Jobs, command: str) -> None:
    given = ["converge", "-i", "inventories/here"]
    code, _, error = jobs.call(command, *given, QUOTE_PLATFORM_JOB_GROUP="systemd")
    (record,) = jobs.look("list")
    assert (code, error) == (1, f"{record['id']}: {record['message']}\n")
    assert record["message"].startswith(
        "its supervisor did not start: System has not been booted with systemd"
    )
    assert record["state"] == "failed"


def test_a_disk_that_is_nearly_full_refuses_a_job_before_it_starts(jobs: Jobs, project: Path) -> None:
    inventory(project, "full", "minimum_free_mib: 999999999\n")
    code, _, error = jobs.call("run", "converge", "-i", "inventories/full")
    assert code == 1
    assert "MiB are free, a job needs 999999999 (minimum_free_mib in jobs.yml); nothing was started" in error
    assert jobs.store.ids() == []


def test_a_disk_that_becomes_full_ends_no_job(jobs: Jobs, project: Path) -> None:
    jobs.state.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", jobs.state], check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        inventory(project, "small", "minimum_free_mib: 1\n")
        given = ["-i", "inventories/small", "-e", f"state={jobs.state}"]
        job = jobs.ask("run", "playbooks/fill.yml", *given)
        assert job["state"] == "done"
        assert "its record is incomplete: the disk was full" in job["notes"]
        assert [one["state"] for one in jobs.look("list")] == ["done"]
    finally:
        subprocess.run(["umount", "-l", jobs.state], check=True)


# --- one at a time -------------------------------------------------------------------------------------


def test_of_two_starts_at_the_same_moment_exactly_one_runs(jobs: Jobs) -> None:
    given = ["start", "playbooks/long.yml", "-i", "inventories/here", "-e", f"mark={next(MARKS)}", "--json"]
    both = [jobs.begin(*given) for _ in range(2)]
    ended = [(json.loads(one.communicate(timeout=LONG)[0]), one.returncode) for one in both]
    assert sorted(status for _, status in ended) == [0, 4]
    (runs,) = [job for job, status in ended if status == 0]
    (refused,) = [job for job, status in ended if status == 4]
    assert f"job {runs['id']} (playbooks/long.yml)" in refused["message"]


def _contend(root: str, given: dict[str, Any], barrier: Any, results: Any, rounds: int) -> None:
    store, record = Store(Path(root)), Record.model_validate(given)
    for _ in range(rounds):
        lock = Lock(store, "little")
        barrier.wait()
        try:
            lock.take(record)
            results.put(1)
        except Held as error:
            assert "holds it (on this controller)" in str(error)
            results.put(0)
        barrier.wait()
        lock.release()


def test_of_many_that_want_the_lock_at_once_one_has_it(jobs: Jobs, project: Path) -> None:
    many, rounds = 4, 50
    wanted, variables = plan("site.yml", project, project / "inventories" / "here", [])
    records = [jobs.store.create(wanted, variables).model_dump(mode="json") for _ in range(many)]
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(many), context.Queue()
    children = [
        context.Process(target=_contend, args=(str(jobs.store.root), one, barrier, results, rounds))
        for one in records
    ]
    for child in children:
        child.start()
    found = [results.get(timeout=60) for _ in range(many * rounds)]
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    assert sum(found) == rounds


# --- records -------------------------------------------------------------------------------------------


def test_a_record_of_another_boot_is_interrupted_and_others_are_let_alone(jobs: Jobs, project: Path) -> None:
    wanted, variables = plan("site.yml", project, project / "inventories" / "here", [])
    record = jobs.store.create(wanted, variables)
    record.state, record.supervisor = "running", process.identity(os.getpid())
    jobs.store.save(record)
    assert jobs.store.look(record.id).state == "running"
    for change in ({"boot": "another"}, {"started": record.supervisor.started + 1}):
        record.supervisor = process.identity(os.getpid()).model_copy(update=change)
        jobs.store.save(record)
        assert jobs.store.look(record.id).state == "interrupted"


def test_a_job_is_run_again_after_a_reboot(jobs: Jobs, project: Path, tmp_path: Path) -> None:
    given = [f"target={tmp_path}/file"]
    wanted, variables = plan("playbooks/file.yml", project, project / "inventories" / "here", given)
    record = jobs.store.create(wanted, variables)
    # What a controller finds on its disk when it is on again: no process, and another boot.
    record.state, record.started = "running", record.created
    record.supervisor = process.identity(os.getpid()).model_copy(update={"boot": "another"})
    record.scratch, record.cgroup = "/dev/shm/quote-platform-gone", "/sys/fs/cgroup/quote-platform-gone"  # noqa: S108
    jobs.store.save(record)
    (found,) = jobs.look("list")
    assert (found["state"], found["next"]) == ("interrupted", [f"quote-platform job retry {record.id}"])
    again = jobs.ask("retry", record.id)
    assert (again["state"], again["retry_of"]) == ("done", record.id)
    assert (tmp_path / "file").read_text() == "right"


def test_a_clock_that_is_set_back_confuses_nobody(jobs: Jobs, project: Path) -> None:
    wanted, variables = plan("site.yml", project, project / "inventories" / "here", [])
    record = jobs.store.create(wanted, variables)
    record.started = record.created
    record.ended = record.started - timedelta(hours=1)
    assert record.seconds == 0
    record.duration = 12.5
    record.state = "done"
    jobs.store.save(record)
    assert "done after 12 s" in jobs.call("show", record.id)[1]
    # One that was about to start an hour in the future is not waited for until then.
    other = jobs.store.create(wanted, variables)
    other.created += timedelta(hours=1)
    jobs.store.save(other)
    assert jobs.store.look(other.id).state == "interrupted"


def test_records_are_pruned_by_job_and_inventory(jobs: Jobs, project: Path) -> None:
    for name in ("verify", "backup", "verify", "verify"):
        if name == "backup":
            (project / "playbooks" / "backup.yml").write_text(PLAYBOOKS["site.yml"])
        wanted, variables = plan("site.yml", project, project / "inventories" / "here", [])
        record = jobs.store.create(wanted.model_copy(update={"name": name}), variables)
        record.state = "done"
        jobs.store.save(record)
    (project / "playbooks" / "backup.yml").unlink()
    assert len(jobs.look("prune", "--keep", "1", "--older-than", "1d")) == 0
    removed = jobs.look("prune", "--keep", "1")
    assert len(removed) == 2
    assert sorted(one.plan.name for one in jobs.store.all()) == ["backup", "verify"]
