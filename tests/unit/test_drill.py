"""A restore drill: what it compares, by a real PostgreSQL; where it has room; what it applies."""

import copy
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment, FileSystemLoader
from postgres_server import PostgresServer, started

from quote_platform import drill

ROOT = Path(__file__).resolve().parents[2]
TABLES = """
create table quotes (id int, text text, written timestamptz, created_at timestamptz not null default now());
create table "Odd name" (drilled text, at timestamptz default current_timestamp);
create table words (word text);
create schema other; create table other.quotes (id int);
create unlogged table gone_after_a_crash (id int);
create view seen as select * from quotes;
insert into quotes select n, 'text ' || n, null, '2026-11-01 12:00:00Z'::timestamptz + n * interval '1 minute'
  from generate_series(1, 5) n;
insert into words values ('a <b> & "c"'), ('d');
"""
# Two quotes are younger.
MOMENT = "2026-11-01 12:03:30Z"


class Server(PostgresServer):
    """One with a database for each side."""

    def __init__(self, programs: Path, folder: Path) -> None:
        super().__init__(programs, folder)
        self.start("-c listen_addresses=")

    def figures(self, database: str) -> dict[str, Any]:
        """Return what the drill reads, by the words of its own command behind the connection."""
        templates = Environment(  # noqa: S701 (SQL)
            loader=FileSystemLoader(ROOT / "roles" / "postgres" / "templates")
        )
        templates.filters["comment"] = lambda text, decoration: f"{decoration}{text}"
        text = templates.get_template("figures.sql.j2").render(
            __postgres_drill_until=MOMENT, ansible_managed="ours"
        )
        variables = yaml.safe_load((ROOT / "roles" / "postgres" / "vars" / "main.yml").read_text())
        words = shlex.split(variables["__postgres_drill_psql"])
        words = words[words.index("--single-transaction") :]
        found: dict[str, Any] = json.loads(self.psql(database, *words, text))
        return found


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with started(Server) as made:
        for name in ("running", "restored"):
            made.sql("postgres", f"create database {name}")
            made.sql(name, TABLES)
        yield made


def test_rows_are_counted_and_summed_up_to_a_moment(server: Server) -> None:
    running = server.figures("running")
    assert sorted(running) == ["other.quotes", 'public."Odd name"', "public.quotes", "public.words"]
    assert (running["public.quotes"]["rows"], running["public.quotes"]["old"]) == (5, 3)
    assert running["public.quotes"]["newest"].startswith("2026-11-01T12:05:00")
    # Nothing says when a row of this one was made.
    assert running["public.words"] | {"old": 2, "newest": None} == running["public.words"]
    assert server.figures("restored") == running
    assert drill.differences(running, running, running) == []


def test_the_moment_is_that_of_the_base_backup_where_nothing_was_archived_since(server: Server) -> None:
    variables = yaml.safe_load((ROOT / "roles" / "postgres" / "vars" / "main.yml").read_text())
    asked = re.sub(r"\{\{.*?\}\}", "2026-11-23T02:00:00Z", variables["__postgres_drill_choose"])
    words = shlex.split(variables["__postgres_drill_psql"].split("--dbname")[1].partition(" }} ")[2])
    base = ("--host", str(server.folder), "--username", "postgres", "--dbname", "running")
    assert server.call("psql", "-XAtq", *base, *words, asked) == "2026-11-23 02:00:00+00\n"


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ("insert into quotes values (6, 'new')", []),
        # In another order, they are the same rows.
        ("create table copied as table words; delete from words; "
         "insert into words select * from copied order by word desc; drop table copied", []),
        ("delete from quotes where id = 5", []),
        (
            "delete from quotes where id = 2",
            ["public.quotes: 2 rows from before the moment in the restore, 3 in that one"],
        ),
        (
            "update quotes set text = 'other' where id = 2",
            [
                "public.quotes: 3 rows from before the moment in the restore, as many as in the running "
                "database, but others"
            ],
        ),
        (
            "delete from words where word = 'd'",
            ["public.words: 1 rows from before the moment in the restore, 2 in that one"],
        ),
        ("drop table words", ["public.words: is not in the restore"]),
        ("create table more (id int)", ["public.more: is in the restore only"]),
    ],
)  # fmt: skip
def test_what_differs_is_named(server: Server, change: str, wrong: list[str]) -> None:
    running = server.figures("running")
    server.sql("postgres", "drop database restored", "create database restored")
    server.sql("restored", TABLES, change)
    restored = server.figures("restored")
    assert drill.differences(restored, running, running) == wrong


def test_what_changes_while_the_drill_runs_is_no_difference() -> None:
    before: dict[str, Any] = {"a": {"rows": 3, "old": 3, "sum": "6"}, "b": {"rows": 1, "old": 1, "sum": "1"}}
    after = copy.deepcopy(before)
    after["a"] |= {"rows": 2, "old": 2, "sum": "3"}
    del after["b"]
    after["c"] = {"rows": 0, "old": 0, "sum": "0"}
    for restored in (before, after, {"a": {"rows": 2, "old": 2, "sum": "4"}}):
        assert drill.differences(restored, before, after) == []


def test_what_is_read_can_write_nothing(server: Server) -> None:
    variables = yaml.safe_load((ROOT / "roles" / "postgres" / "vars" / "main.yml").read_text())
    words = shlex.split(variables["__postgres_drill_psql"])
    words = words[words.index("--single-transaction") :]
    base = ("--host", str(server.folder), "--username", "postgres", "--dbname", "running")
    with pytest.raises(AssertionError, match="read-only transaction"):
        server.call("psql", "-XAtq", *base, "--set=ON_ERROR_STOP=1", *words, "delete from quotes")


# --- room ----------------------------------------------------------------------------------------------


def node(name: str, cpu: str, memory: str, **spec: Any) -> dict[str, Any]:
    status = {
        "allocatable": {"cpu": cpu, "memory": memory},
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    return {"metadata": {"name": name}, "spec": spec, "status": status}


def pod(where: str, cpu: str, memory: str, phase: str = "Running", **more: Any) -> dict[str, Any]:
    container = {"resources": {"requests": {"cpu": cpu, "memory": memory}}}
    return {"spec": {"nodeName": where, "containers": [container], **more}, "status": {"phase": phase}}


WANTED = [{"cpu": "100m", "memory": "256Mi"}, {"cpu": "250m", "memory": "64Mi"}]
TAINT = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]


@pytest.mark.parametrize(
    ("nodes", "pods", "why"),
    [
        ([node("a", "1", "1Gi")], [], ""),
        ([node("a", "1", "1Gi")], [pod("a", "650m", "704Mi")], ""),
        ([node("a", "1", "1Gi")], [pod("a", "651m", "10Mi")], "a 349m / 1014 MiB"),
        ([node("a", "1", "1Gi")], [pod("a", "10m", "705Mi")], "a 990m / 319 MiB"),
        ([node("a", "1", "1Gi")], [pod("a", "1", "1Gi", "Succeeded"), pod("b", "1", "1Gi")], ""),
        # Together there would be room.
        ([node("a", "300m", "1Gi"), node("b", "300m", "1Gi")], [], "a 300m / 1024 MiB, b 300m / 1024 MiB"),
        ([node("a", "4", "4Gi", taints=TAINT)], [], "no node takes pods"),
        ([node("a", "4", "4Gi", unschedulable=True)], [], "no node takes pods"),
        # One that runs before the others takes what they take later; one that stays is counted with them.
        (
            [node("a", "1", "1Gi")],
            [pod("a", "10m", "10Mi", initContainers=[{"resources": {"requests": {"cpu": "900m"}}}])],
            "a 100m / 1014 MiB",
        ),
        (
            [node("a", "1", "1Gi")],
            [
                pod(
                    "a",
                    "400m",
                    "10Mi",
                    initContainers=[{"restartPolicy": "Always", "resources": {"requests": {"cpu": "400m"}}}],
                )
            ],
            "a 200m / 1014 MiB",
        ),
    ],
)
def test_there_is_room_on_one_node_or_the_drill_is_refused(
    nodes: list[dict[str, Any]], pods: list[dict[str, Any]], why: str
) -> None:
    found = drill.no_room(nodes, pods, WANTED)
    assert found == (
        f"a pod requests 350m / 320 MiB, and no node has as much left for it ({why})" if why else ""
    )
