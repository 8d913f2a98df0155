"""A PostgreSQL of this machine, for tests: Debian's package `postgresql` has one."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


class PostgresServer:
    """One in a folder of its own, reached by its socket there."""

    port = 5432

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        # It refuses to run as root.
        self.prefix = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        if self.prefix:
            for one in (folder, *folder.iterdir()):
                shutil.chown(one, "postgres")
        self.data = ("--pgdata", str(folder / "data"))
        self.call(
            "initdb", *self.data, "--auth=trust", "--no-sync", "--username=postgres", "--locale=C.UTF-8"
        )

    def start(self, options: str) -> None:
        """Start it with these options beside its socket's."""
        options = f"{options} -c port={self.port} -c unix_socket_directories={self.folder} -c fsync=off"
        log = str(self.folder / "log")
        self.call("pg_ctl", *self.data, "--wait", "--silent", "--log", log, "-o", options, "start")

    def call(self, program: str, *arguments: str) -> str:
        """Return what one of its programs prints."""
        command = [*self.prefix, str(self.programs / program), *arguments]
        environment = os.environ | {"PGTZ": "UTC"}
        done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def psql(self, database: str, *arguments: str) -> str:
        """Ask as a superuser, over the socket."""
        where = ("--host", str(self.folder), "--port", str(self.port), "--username", "postgres")
        return self.call("psql", "-XAtq", *where, "--dbname", database, "--set=ON_ERROR_STOP=1", *arguments)

    def sql(self, database: str, *statements: str) -> str:
        """Return the rows of statements."""
        return self.psql(database, *(word for one in statements for word in ("--command", one))).strip()


@contextlib.contextmanager
def started[Server: PostgresServer](kind: type[Server]) -> Iterator[Server]:
    """Have one of a kind, and nothing of it afterwards."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL server here: install the package postgresql")
    # Not below pytest's own folder, which nobody else may enter.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    made = kind(found[-1].parent, folder)
    try:
        yield made
    finally:
        made.call("pg_ctl", *made.data, "--mode=immediate", "stop")
        shutil.rmtree(folder)
