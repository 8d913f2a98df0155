#!/usr/bin/env python3
"""Run ansible-lint with a syntax check that costs a fifth: all are forked from one process.

ansible-lint starts `ansible-playbook --syntax-check` for each playbook and each role, and most of what such a
process takes is importing Ansible. Here one process imports it and forks itself for each check: a check still
begins with nothing that another has left. Arguments and exit status are those of ansible-lint.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from typing import IO, Any

CHECK = ["ansible-playbook", "--syntax-check"]
START = subprocess.run
# What a check imports as it goes: found with `python -X importtime`.
USED = (
    "ansible._internal._json._profiles._inventory_legacy",
    "ansible.playbook.handler_task_include",
    "ansible.plugins.become.sudo",
    "ansible.plugins.connection.psrp",
    "ansible.plugins.connection.ssh",
    "ansible.plugins.connection.winrm",
    "ansible.plugins.inventory.auto",
    "ansible.plugins.inventory.ini",
    "ansible.plugins.inventory.script",
    "ansible.plugins.inventory.toml",
    "ansible.plugins.inventory.yaml",
    "ansible.plugins.shell.powershell",
    "ansible.plugins.shell.sh",
    "ansible.plugins.strategy.linear",
    "ansible.plugins.vars.host_group_vars",
)


class Checker:
    """A process that does syntax checks one after the other, in one environment."""

    def __init__(self, env: dict[str, str]) -> None:
        self.lock = threading.Lock()
        command = [sys.executable, __file__, "--serve"]
        self.process = subprocess.Popen(
            command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def check(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Return what the command came to."""
        asked, told = self.process.stdin, self.process.stdout
        assert asked and told
        with self.lock:
            print(json.dumps(command), file=asked, flush=True)
            line = told.readline()
        if not line:
            raise RuntimeError("the process that checks syntax has ended")
        return subprocess.CompletedProcess(command, **json.loads(line))

    def end(self) -> None:
        """End the process."""
        self.process.communicate()


CHECKERS: dict[str, Checker] = {}
CHECKERS_LOCK = threading.Lock()


def run(command: Any, *args: Any, **options: Any) -> Any:
    """Stand in for `subprocess.run`, which does all but syntax checks."""
    if not isinstance(command, list) or command[:2] != CHECK or options.get("cwd"):
        return START(command, *args, **options)
    env = options.get("env") or dict(os.environ)
    with CHECKERS_LOCK:
        key = json.dumps(env, sort_keys=True)
        if key not in CHECKERS:
            CHECKERS[key] = Checker(env)
    return CHECKERS[key].check(command)


def serve() -> None:
    """Do what standard input asks for, one command a line; a line of JSON answers each."""
    for name in USED:
        __import__(name)
    import ansible.cli.playbook  # noqa: PLC0415 (ansible-lint's own process does without)

    for line in sys.stdin:
        command = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork()
            if not child:
                be(command, out, err, ansible.cli.playbook.main)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            answer: dict[str, Any] = {"returncode": status}
            for name, file in (("stdout", out), ("stderr", err)):
                file.seek(0)
                answer[name] = file.read().decode(errors="replace")
        print(json.dumps(answer), flush=True)


def be(command: list[str], out: IO[bytes], err: IO[bytes], main: Any) -> None:
    """Become the command, which ends this process."""
    status: Any = 1
    try:
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 (its number is what counts)
            os.dup2(nothing.fileno(), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.argv = [shutil.which(command[0]) or command[0], *command[1:]]
        main(sys.argv)
    except SystemExit as end:
        status = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)


def lint() -> int:
    """Run ansible-lint."""
    from ansible.module_utils._internal import _datatag  # noqa: PLC0415 (as below)
    from ansiblelint.__main__ import main  # noqa: PLC0415 (the process that checks does without)

    # It copies a task for each rule that asks for it, and of each text also where it was written.
    # A text never changes: Python's own is its own copy, too.
    _datatag._AnsibleTaggedStr.__deepcopy__ = lambda text, _: text
    subprocess.run = run  # type: ignore[assignment]
    try:
        return main(["ansible-lint", *sys.argv[1:]])
    finally:
        for checker in CHECKERS.values():
            checker.end()


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        sys.exit(lint())
