"""The process in which ansible-runner runs a playbook; in the job's own group of processes."""

import json
import os
import re
import shlex
import stat
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import pexpect
from ansible_runner import Runner, RunnerConfig

from quote_platform.jobs import environment, process
from quote_platform.jobs.events import HIDDEN, Summary, read, reduced
from quote_platform.jobs.record import Record, Store

# Where the line of a result begins: ok: [host], changed: [host], fatal: [host], failed: [host] (item=…).
RESULT = re.compile(r"^(ok|changed|skipping|fatal|failed|included): \[", re.MULTILINE)


def printed(event: dict[str, Any]) -> str:
    """Return what Ansible prints at an event, without the reason of a failure that no_log hides."""
    text = str(event.get("stdout") or "")
    res = (event.get("event_data") or {}).get("res")
    if isinstance(res, dict) and "censored" in res:
        # ansible-core 2.21 hides the result, but prints the exception in front of it.
        result = RESULT.search(text)
        return text[result.start() :] if result else HIDDEN
    return text


class _Log:
    """Where output and events go; a disk that is full stops the writing and not the playbook."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = self._open("output.log")
        self.events = self._open("events.jsonl")

    def _open(self, name: str) -> Any:
        return os.fdopen(os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w")

    def write(self, file: Any, text: str) -> None:
        with suppress(OSError):
            file.write(text)
            file.flush()

    def event(self, event: dict[str, Any]) -> bool:
        """Keep a part of an event; return that ansible-runner keeps none, as results may be secret."""
        if text := printed(event):
            self.write(self.output, f"{text}\n")
        if line := reduced(event):
            self.write(self.events, json.dumps(line) + "\n")
        return False


def configure(record: Record, folder: Path) -> Any:
    """Return what ansible-runner is to run, prepared."""
    plan = record.plan
    arguments = ["--check", "--diff"] if plan.check else []
    if plan.vault_password_file:
        arguments += ["--vault-password-file", plan.vault_password_file]
    if plan.variables:
        arguments += ["-e", f"@{folder / 'variables.json'}"]
    for file in plan.variables_files:
        arguments += ["-e", f"@{file}"]
    config = RunnerConfig(
        private_data_dir=record.scratch,
        project_dir=plan.project,
        playbook=plan.playbook,
        inventory=plan.inventory,
        ident="artifacts",
        cmdline=shlex.join(arguments) or None,
        envvars=environment.of(record),
        # No limit on silence. The time-out is how often it looks whether the playbook has ended.
        settings={"pexpect_timeout": 1, "idle_timeout": None},
        # The log is ours; facts stay in memory, as by hand.
        suppress_output_file=True,
        quiet=True,
        fact_cache_type="memory",
    )
    config.prepare()
    # ansible-runner switches it off where the environment does not say anything; ansible.cfg asks for it.
    if "ANSIBLE_HOST_KEY_CHECKING" not in os.environ:
        del config.env["ANSIBLE_HOST_KEY_CHECKING"]
    return config


def withhold(config: Any) -> int:
    """Have ansible-runner write its file `command`, which has the whole environment, to memory only."""
    descriptor = os.memfd_create("command")
    os.fchmod(descriptor, stat.S_IRUSR | stat.S_IWUSR)
    (Path(config.artifact_dir) / "command").symlink_to(f"/proc/{os.getpid()}/fd/{descriptor}")
    return descriptor


def run(record: Record, folder: Path) -> int:
    """Run the playbook of a job; return what ansible-playbook ended with."""
    log = _Log(folder)
    config = configure(record, folder)
    withhold(config)
    runner = Runner(config, event_handler=log.event)
    rc: int
    try:
        _, rc = runner.run()
    except pexpect.TIMEOUT:
        # The playbook has ended, and something that it has started in the background holds the terminal.
        recap = Summary.of(read(folder / "events.jsonl")).recap
        rc = 0 if recap and not any(host["failed"] or host["unreachable"] for host in recap.values()) else 2
    log.write(log.events, json.dumps({"event": "end", "rc": rc}) + "\n")
    return rc


def _end_with_supervisor(group: process.Group) -> None:
    """Wait until the supervisor is gone, which alone has the other end of our input, and end everything."""
    with suppress(OSError):
        os.read(0, 1)
    group.kill()
    os._exit(1)


def main(job: str, root: str) -> None:
    """Run a job that a supervisor has prepared."""
    store = Store(Path(root))
    record = store.read(job)
    group = process.Group(job, record.cgroup)
    group.join()
    threading.Thread(target=_end_with_supervisor, args=[group], daemon=True).start()
    try:
        rc = run(record, store.folder(job))
    except Exception:
        traceback.print_exc()
        rc = 1
    sys.stderr.flush()
    # Without waiting for the thread; what is left of the job is ended by the supervisor.
    os._exit(min(rc, 255))


if __name__ == "__main__":
    main(*sys.argv[1:])
