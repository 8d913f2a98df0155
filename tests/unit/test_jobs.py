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
from pathlib import Path
from typing import Any

import psutil
import pytest

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
          found: "{{ lookup('ansible.builtin.pipe', 'grep -rlF -- $THE_SECRET ' ~ state ~ ' || true') }}"
          word: "{{ word }}"
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
    - name: Fail in the end
      ansible.builtin.fail:
        msg: "{{ 'x' * 20000 }}"
""",
    # A daemon that leaves its session, its parents and its environment, and one that will not end when asked.
    "playbooks/long.yml": HEAD
    + """
    - name: Leave something behind
      ansible.builtin.shell: |
        (env -i setsid sh -c 'sleep {{ mark }} & exec sleep {{ mark }}' >/dev/null 2>&1 &)
        nohup sh -c 'trap "" TERM; sleep {{ mark }}; sleep {{ mark }}' >/dev/null 2>&1 &
      changed_when: true
    - name: Take long
      ansible.builtin.command: sleep {{ mark }}
      changed_when: true
""",
}
# What no sleep of anybody else has.
MARKS = (f"{50_000 + number}.{secrets.randbelow(10**6)}" for number in range(1000))


def cgroups() -> bool:
    """Return whether a job has a cgroup of its own here."""
    group = process.Group.create(f"test-{os.getpid()}")
    group.kill()
    return group.cgroup is not None


KINDS = [
    pytest.param(
        "cgroup", marks=pytest.mark.skipif(not cgroups(), reason="no cgroup v2 that may be written to")
    ),
    "processes",
]


def inventory(project: Path, name: str, jobs: str) -> None:
    folder = project / "inventories" / name
    folder.mkdir(parents=True)
    (folder / "hosts.yml").write_text(
        f"all:\n  hosts: {{here: {{ansible_connection: local, ansible_python_interpreter: {sys.executable}}}}}\n"
        "  vars: {cluster_name: little, cluster_kubeconfig: '{{ inventory_dir }}/kubeconfig'}\n"
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
        self.environment = os.environ | {"XDG_STATE_HOME": str(state), "THE_SECRET": "none-yet"}
        self.store = Store(state / "quote-platform" / "jobs")

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "quote_platform.cli", "job", *arguments]

    def call(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*arguments),
            cwd=self.project,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def ask(self, *arguments: str, status: int = 0, **environment: str) -> Any:
        done = self.call(*arguments, "--json", **environment)
        assert done.returncode == status, done.stdout + done.stderr
        return json.loads(done.stdout)

    def long(self, mark: str, **environment: str) -> Record:
        """Start a job that takes long, and wait until it has left processes behind."""
        job = self.ask(
            "start", "playbooks/long.yml", "-i", "inventories/here", "-e", f"mark={mark}", **environment
        )
        wait(lambda: len(sleeping(mark)) >= 4)
        return self.store.look(job["id"])


@pytest.fixture
def jobs(project: Path, tmp_path: Path) -> Iterator[Jobs]:
    made = Jobs(project, tmp_path / "state")
    yield made
    for record in made.store.all():
        if record.supervisor:
            process.send(record.supervisor, signal.SIGKILL)
        made.store.clean(record)


def wait(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def sleeping(mark: str) -> list[psutil.Process]:
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if one.info["cmdline"] and any(mark in word for word in one.info["cmdline"][:4]) and one.is_running()
    ]


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
    assert failed["message"] == f"non-zero return code\ncat: {jobs.state}/well: No such file or directory"
    assert (failed["play"], failed["task"], failed["host"]) == ("Test", "Fail unless all is well", "here")
    assert job["message"] == "here: Fail unless all is well: non-zero return code"
    assert job["next"] == [f"quote-platform job logs {job['id']}", f"quote-platform job retry {job['id']}"]
    counts = job["summary"]["recap"]["here"]
    assert (counts["failed"], counts["changed"], counts["ignored"], counts["rescued"]) == (1, 1, 1, 1)

    shown = jobs.ask("show", "latest")
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
    log = jobs.call("logs", again["id"]).stdout
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
    assert not list(jobs.store.root.glob("*/run"))


def test_drift_is_named_and_has_a_status_of_its_own(jobs: Jobs, tmp_path: Path) -> None:
    target = tmp_path / "file"
    given = ["-i", "inventories/here", "-e", f"target={target}"]
    found = jobs.call("run", "look", *given)
    assert found.returncode == 3, found.stdout + found.stderr
    assert f"drift  here  Write: {target}" in found.stdout
    assert "look on inventories/here: drift after" in found.stdout
    assert found.stdout.splitlines()[-1] == "next: quote-platform job run converge -i inventories/here"
    assert not target.exists()
    done = jobs.call("run", "playbooks/file.yml", *given)
    assert done.returncode == 0
    assert f"changed  here  Write: {target}" in done.stdout
    assert jobs.ask("run", "look", *given)["state"] == "done"


def test_a_job_that_takes_too_long_is_ended_with_all_that_it_started(jobs: Jobs) -> None:
    mark = next(MARKS)
    given = ["playbooks/long.yml", "-i", "inventories/here", "-e", f"mark={mark}"]
    job = jobs.ask("run", *given, "--timeout", "5s", status=6)
    assert (job["state"], job["message"]) == ("out of time", "not done after 5 s")
    assert [one["task"] for one in job["summary"]["changed"]] == ["Leave something behind"]
    assert sleeping(mark) == []


@pytest.mark.parametrize("kind", KINDS)
def test_cancel_leaves_nothing_and_only_one_job_changes_a_cluster(
    jobs: Jobs, tmp_path: Path, kind: str
) -> None:
    mark = next(MARKS)
    job = jobs.long(mark, QUOTE_PLATFORM_JOB_GROUP=kind)
    assert bool(job.cgroup) == (kind == "cgroup")
    given = ["-i", "inventories/here", "-e", f"target={tmp_path / 'file'}"]
    refused = jobs.ask("run", "playbooks/file.yml", *given, status=4)
    start = re.escape(job.created.strftime("%Y-%m-%d %H:"))
    assert re.fullmatch(
        rf"cluster little: job {job.id} \(playbooks/long.yml\) of {re.escape(job.owner)}, "
        rf"since {start}\d\d:\d\dZ, holds it \(on this controller\)",
        refused["message"],
    )
    assert jobs.ask("run", "look", *given, status=3)["notes"] == ["it only reads, so it holds no lock"]
    began = time.monotonic()
    cancelled = jobs.ask("cancel", job.id)
    assert time.monotonic() - began < 15
    assert (cancelled["state"], cancelled["exit_status"]) == ("cancelled", 5)
    assert cancelled["message"] == f"by {job.owner}"
    assert sleeping(mark) == []
    assert not (job.cgroup and Path(job.cgroup).exists())
    second = jobs.call("cancel", job.id)
    assert (second.returncode, second.stderr) == (2, f"{job.id}: has ended: cancelled\n")


@pytest.mark.parametrize("kind", KINDS)
def test_without_its_supervisor_a_job_ends_and_is_found_interrupted(
    jobs: Jobs, tmp_path: Path, kind: str
) -> None:
    mark = next(MARKS)
    job = jobs.long(mark, QUOTE_PLATFORM_JOB_GROUP=kind)
    assert job.supervisor
    os.kill(job.supervisor.pid, signal.SIGKILL)
    wait(lambda: not sleeping(mark), 10)  # the worker has ended them; no command has looked yet
    (found,) = jobs.ask("list")
    assert (found["state"], found["next"]) == ("interrupted", [f"quote-platform job retry {job.id}"])
    assert found["summary"]["task"] == "Take long"
    # The lock of the dead is free.
    jobs.ask("run", "playbooks/file.yml", "-i", "inventories/here", "-e", f"target={tmp_path / 'file'}")


@pytest.mark.parametrize("kind", KINDS)
def test_what_outlives_supervisor_and_worker_ends_with_the_next_command(jobs: Jobs, kind: str) -> None:
    mark = next(MARKS)
    job = jobs.long(mark, QUOTE_PLATFORM_JOB_GROUP=kind)
    assert job.supervisor
    supervisor = psutil.Process(job.supervisor.pid)
    (worker,) = [one for one in supervisor.children() if "quote_platform.jobs.worker" in one.cmdline()]
    for one in (supervisor, worker):  # neither sees the other die
        one.suspend()
    for one in (supervisor, worker):
        one.kill()
    assert jobs.ask("show", job.id)["state"] == "interrupted"
    left = sleeping(mark)
    # One that has left its session, its parents and its environment is found by its cgroup only.
    assert len(left) <= (0 if kind == "cgroup" else 2)
    for one in left:
        one.kill()


@pytest.mark.parametrize("how", ["SIGKILL", "a terminal that dies"])
def test_a_job_in_front_ends_with_its_command(jobs: Jobs, how: str) -> None:
    mark = next(MARKS)
    terminal, side = pty.openpty()
    command = jobs.command("run", "playbooks/long.yml", "-i", "inventories/here", "-e", f"mark={mark}")
    child = subprocess.Popen(
        command,
        cwd=jobs.project,
        env=jobs.environment | {"TERM": "xterm", "COLUMNS": "120"},
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
        # So that it is told when the terminal dies.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )
    os.close(side)
    shown = ""
    while "now on here" not in shown or len(sleeping(mark)) < 4:
        shown += os.read(terminal, 65536).decode(errors="replace")
    assert "playbooks/long.yml: playbooks/long.yml on inventories/here" in shown
    if how == "SIGKILL":
        child.kill()
    os.close(terminal)
    child.wait(30)
    wait(lambda: jobs.store.all()[0].over)
    (record,) = jobs.store.all()
    assert record.state == "cancelled"
    assert record.message == (
        "the command that ran it has ended" if how == "SIGKILL" else f"by {record.owner}"
    )
    assert sleeping(mark) == []


def test_a_disk_that_is_nearly_full_refuses_a_job_before_it_starts(jobs: Jobs, project: Path) -> None:
    inventory(project, "full", "minimum_free_mib: 999999999\n")
    found = jobs.call("run", "converge", "-i", "inventories/full")
    assert found.returncode == 1
    assert (
        "MiB are free, a job needs 999999999 (minimum_free_mib in jobs.yml); nothing was started"
        in found.stderr
    )
    assert jobs.store.ids() == []


def test_a_disk_that_becomes_full_leaves_a_whole_record(jobs: Jobs, project: Path) -> None:
    jobs.state.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", jobs.state], check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        inventory(project, "small", "minimum_free_mib: 1\n")
        given = ["-i", "inventories/small", "-e", f"state={jobs.state}"]
        job = jobs.ask("run", "playbooks/fill.yml", *given, status=1)
        assert job["state"] == "failed"
        assert job["supervisor"]
        assert [one["state"] for one in jobs.ask("list")] == ["failed"]
    finally:
        subprocess.run(["umount", "-l", jobs.state], check=True)


# --- one at a time -------------------------------------------------------------------------------------


def test_of_two_starts_at_the_same_moment_exactly_one_runs(jobs: Jobs) -> None:
    for _ in range(3):
        mark = next(MARKS)
        given = ["start", "playbooks/long.yml", "-i", "inventories/here", "-e", f"mark={mark}", "--json"]
        both = [
            subprocess.Popen(
                jobs.command(*given),
                cwd=jobs.project,
                env=jobs.environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        ended = [(json.loads(one.communicate(timeout=60)[0]), one.returncode) for one in both]
        assert sorted(status for _, status in ended) == [0, 4]
        (runs,) = [job for job, status in ended if status == 0]
        (refused,) = [job for job, status in ended if status == 4]
        assert f"job {runs['id']} (playbooks/long.yml)" in refused["message"]
        jobs.ask("cancel", runs["id"])


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


def test_records_are_pruned_by_job_and_inventory(jobs: Jobs, project: Path) -> None:
    for name in ("verify", "backup", "verify", "verify"):
        if name == "backup":
            (project / "playbooks" / "backup.yml").write_text(PLAYBOOKS["site.yml"])
        wanted, variables = plan("site.yml", project, project / "inventories" / "here", [])
        record = jobs.store.create(wanted.model_copy(update={"name": name}), variables)
        record.state = "done"
        jobs.store.save(record)
    (project / "playbooks" / "backup.yml").unlink()
    assert len(jobs.ask("prune", "--keep", "1", "--older-than", "1d")) == 0
    removed = jobs.ask("prune", "--keep", "1")
    assert len(removed) == 2
    assert sorted(one.plan.name for one in jobs.store.all()) == ["backup", "verify"]
