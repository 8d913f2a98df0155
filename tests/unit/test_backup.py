"""Backups against a server of AWS' API: what is whole, what is refused, what a failure leaves."""

import ast
import hashlib
import json
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from s3_server import Bucket, environment, refusal, serving
from typer.testing import CliRunner, Result

from proxy import proxying
from quote_platform.backup import cli, jobs, store
from quote_platform.backup.retention import CHECKSUM, Entry, name_of
from quote_platform.backup.store import BackupError, Store

PACKAGE = Path(store.__file__).parent
DUMP = b"PGDMP" + bytes(range(256)) * 40


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 0)
        with serving() as found:
            yield found


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> Bucket:
    for name, value in environment(endpoint).items():
        monkeypatch.setenv(name, value)
    made = Bucket(endpoint)
    monkeypatch.setattr(cli, "opened", lambda name="": Store(made.client, name or made.name, "https://s3"))
    monkeypatch.setattr(jobs, "now", lambda: made.now)
    monkeypatch.setattr(jobs, "PART", 1000)
    monkeypatch.setattr(store, "CHUNK", 700)
    return made


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a program of ours in place of one of PostgreSQL's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(name: str, text: str) -> None:
        (folder / name).write_text(f"#!{sys.executable}\nimport os, sys, time\n{text}\n")
        (folder / name).chmod(0o755)

    write("pg_dump", f"sys.stdout.buffer.write({DUMP!r})")
    write("pg_restore", "sys.exit(sys.stdin.buffer.read(5) != b'PGDMP')")
    return write


def call(*words: str) -> Result:
    return CliRunner().invoke(cli.app, list(words))


def log(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def put(bucket: Bucket, name: str, content: bytes = b"content", checksum: str = "") -> None:
    time = datetime.strptime(name[:18], "%Y-%m-%dT%H%M%SZ").replace(tzinfo=UTC)
    checksum = checksum or hashlib.sha256(content).hexdigest()
    bucket.put(f"quote/pg/{name}", content, time)
    bucket.put(f"quote/pg/{name}{CHECKSUM}", f"{checksum}  {name}\n".encode(), time)


# --- dump and file --------------------------------------------------------------------------------------


def test_a_dump_is_stored_read_back_and_then_marked(
    bucket: Bucket, program: Callable[[str, str], None]
) -> None:
    line = log(call("dump", "/quote/pg/"))
    name = "quote/pg/2026-06-01T000000Z.dump"
    assert bucket.objects[name] == DUMP
    checksum = hashlib.sha256(DUMP).hexdigest()
    assert bucket.objects[f"{name}{CHECKSUM}"] == f"{checksum}  2026-06-01T000000Z.dump\n".encode()
    assert bucket.calls.count("UploadPart") == 11
    assert bucket.calls[-3:] == ["CompleteMultipartUpload", "GetObject", "PutObject"]
    assert line.pop("seconds") >= 0
    assert line == {"what": "dump", "name": name, "bytes": len(DUMP), "sha256": checksum}


def test_pg_dump_gets_the_environment_of_libpq(
    bucket: Bucket, program: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGDATABASE", "quotes")
    program("pg_dump", "print('PGDMP', os.environ['PGDATABASE'], *sys.argv[1:])")
    log(call("dump", "pg"))
    assert bucket.objects["pg/2026-06-01T000000Z.dump"] == b"PGDMP quotes --format=custom --no-password\n"


def test_a_pg_dump_that_fails_midway_leaves_nothing(
    bucket: Bucket, program: Callable[[str, str], None]
) -> None:
    program("pg_dump", f"sys.stdout.buffer.write({DUMP!r}); sys.stdout.flush(); sys.exit(3)")
    result = call("dump", "pg")
    assert result.exit_code == 1
    assert "pg_dump ended with 3; nothing was stored in bucket backups at https://s3" in result.stderr
    assert bucket.calls.count("UploadPart") > 1
    assert bucket.objects == {}
    assert bucket.begun == []


def test_a_pg_dump_that_is_killed_leaves_nothing(bucket: Bucket, program: Callable[[str, str], None]) -> None:
    program("pg_dump", f"sys.stdout.buffer.write({DUMP!r}); sys.stdout.flush(); os.kill(os.getpid(), 9)")
    assert "pg_dump ended with -9" in call("dump", "pg").stderr
    assert bucket.objects == {}
    assert bucket.begun == []


def test_an_empty_dump_is_none(bucket: Bucket, program: Callable[[str, str], None]) -> None:
    program("pg_dump", "")
    assert "would be empty" in call("dump", "pg").stderr
    assert bucket.objects == {}
    assert bucket.begun == []


def test_being_told_to_end_aborts_the_upload_and_ends_pg_dump(
    bucket: Bucket, program: Callable[[str, str], None], tmp_path: Path
) -> None:
    program(
        "pg_dump",
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        f"sys.stdout.buffer.write({DUMP!r}); sys.stdout.flush(); time.sleep(60)",
    )

    def end(_: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    bucket.before["UploadPart"] = end
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert call("dump", "pg").exit_code == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert bucket.objects == {}
    assert bucket.begun == []
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_store_that_refuses_a_part_keeps_nothing(
    bucket: Bucket, program: Callable[[str, str], None]
) -> None:
    def refuse(given: dict[str, Any]) -> None:
        if given["PartNumber"] == 4:
            raise refusal("AccessDenied", 403, "UploadPart")

    bucket.before["UploadPart"] = refuse
    result = call("dump", "pg")
    assert result.exit_code == 1
    assert "writing pg/2026-06-01T000000Z.dump in bucket backups at https://s3 failed" in result.stderr
    assert "AWS_ACCESS_KEY_ID" in result.stderr
    assert bucket.objects == {}
    assert bucket.begun == []


def test_what_reads_back_otherwise_is_no_backup(bucket: Bucket, program: Callable[[str, str], None]) -> None:
    def spoil(given: dict[str, Any]) -> None:
        bucket.put(given["Key"], DUMP[:-1] + b"?")

    bucket.before["GetObject"] = spoil
    result = call("dump", "pg")
    assert result.exit_code == 1
    assert "reads back with another checksum" in result.stderr
    assert bucket.objects == {}


def test_what_pg_restore_cannot_read_is_no_backup(
    bucket: Bucket, program: Callable[[str, str], None]
) -> None:
    program("pg_dump", "print('no archive' * 1000)")
    result = call("dump", "pg")
    assert result.exit_code == 1
    assert "cannot be read by pg_restore (1)" in result.stderr
    assert bucket.objects == {}


def test_pg_restore_may_stop_reading_early(
    bucket: Bucket, program: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "PART", 200_000)
    program("pg_dump", "sys.stdout.buffer.write(b'PGDMP' * 100_000)")  # more than a pipe holds
    program("pg_restore", "sys.exit(0)")
    assert log(call("dump", "pg"))["bytes"] == 500_000


def test_a_verification_that_cannot_delete_leaves_nothing_whole(
    bucket: Bucket, program: Callable[[str, str], None]
) -> None:
    def refuse(_: dict[str, Any]) -> None:
        raise refusal("InternalError", 500, "GetObject")

    bucket.before |= {"GetObject": refuse, "DeleteObject": refuse}
    assert call("dump", "pg").exit_code == 1
    bucket.before.clear()
    assert json.loads(call("list", "pg", "--json").stdout)[0]["whole"] is False
    assert "has no whole backup" in call("check", "pg", "--max-age", "60").stderr


def test_a_missing_pg_dump_is_named(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "pg_dump does not start" in call("dump", "pg").stderr
    assert bucket.begun == []


def test_a_file_is_stored_as_a_snapshot(bucket: Bucket, tmp_path: Path) -> None:
    source = tmp_path / "snapshot"
    source.write_bytes(DUMP)
    assert log(call("file", str(source), "etcd/quote"))["name"] == "etcd/quote/2026-06-01T000000Z.db"
    assert bucket.objects["etcd/quote/2026-06-01T000000Z.db"] == DUMP
    assert "No such file" in call("file", str(tmp_path / "none"), "etcd/quote").stderr


# --- list, fetch, check ---------------------------------------------------------------------------------


def test_list_says_what_is_whole_over_all_pages(bucket: Bucket) -> None:
    for day in range(1, 8):
        put(bucket, f"2026-05-0{day}T000000Z.dump")
    bucket.delete(f"quote/pg/2026-05-07T000000Z.dump{CHECKSUM}")
    bucket.put("quote/pg/other/2026-05-09T000000Z.dump", b"of another prefix")
    rows = json.loads(call("list", "quote/pg", "--json").stdout)
    assert [row["name"][:10] for row in rows] == [f"2026-05-0{day}" for day in range(7, 0, -1)]
    assert [row["whole"] for row in rows] == [False] + [True] * 6
    assert rows[0]["time"] == "2026-05-07T00:00:00+00:00"
    text = call("list", "quote/pg").stdout.splitlines()
    assert len(text) == 7
    assert text[0].endswith("not whole")


@pytest.mark.parametrize(
    ("arguments", "content"), [([], b"two"), (["--name", "2026-05-01T000000Z.dump"], b"one")]
)
def test_fetch(bucket: Bucket, tmp_path: Path, arguments: list[str], content: bytes) -> None:
    put(bucket, "2026-05-01T000000Z.dump", b"one")
    put(bucket, "2026-05-02T000000Z.dump", b"two")
    bucket.put("quote/pg/2026-05-03T000000Z.dump", b"cut off")
    target = tmp_path / "backup"
    target.write_bytes(b"old")
    target.chmod(0o644)
    assert log(call("fetch", "quote/pg", str(target), *arguments))["bytes"] == 3
    assert target.read_bytes() == content
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("2026-05-01T000000Z.dump", "stored was 0000"),
        ("2026-05-02T000000Z.dump", "holds no checksum"),
        ("2026-05-03T000000Z.dump", "is not whole"),
        ("2026-05-04T000000Z.dump", "is not in bucket backups at https://s3: choose one"),
    ],
)
def test_fetch_refuses(bucket: Bucket, tmp_path: Path, name: str, complaint: str) -> None:
    put(bucket, "2026-05-01T000000Z.dump", checksum="0" * 64)
    put(bucket, "2026-05-02T000000Z.dump", checksum="?")
    bucket.put("quote/pg/2026-05-03T000000Z.dump", b"cut off")
    target = tmp_path / "backup"
    target.write_bytes(b"old")
    result = call("fetch", "quote/pg", str(target), "--name", name)
    assert result.exit_code == 1
    assert complaint in result.stderr
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_dump_is_restored_after_it_was_read_once(
    bucket: Bucket, program: Callable[[str, str], None], tmp_path: Path
) -> None:
    put(bucket, "2026-05-01T000000Z.dump", DUMP)
    program(
        "pg_restore",
        "content = sys.stdin.buffer.read()\n"
        f"with open({str(tmp_path / 'calls')!r}, 'a') as log: print(len(content), *sys.argv[1:], file=log)",
    )
    assert log(call("restore", "quote/pg"))["name"] == "quote/pg/2026-05-01T000000Z.dump"
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"{len(DUMP)} --list",
        f"{len(DUMP)} --dbname= --no-password --no-owner --single-transaction",
    ]


@pytest.mark.parametrize(
    ("checksum", "restoring", "complaint"),
    [
        ("0" * 64, "sys.exit('must not be asked')", "reads back with another checksum"),
        (
            "",
            "sys.exit(3)",
            "quote/pg/2026-05-01T000000Z.dump in bucket backups at https://s3 could not be restored (3)",
        ),
    ],
)
def test_a_dump_that_is_damaged_or_refused_is_not_restored(
    bucket: Bucket, program: Callable[[str, str], None], checksum: str, restoring: str, complaint: str
) -> None:
    put(bucket, "2026-05-01T000000Z.dump", DUMP, checksum)
    program("pg_restore", f"sys.stdin.buffer.read()\nif sys.argv[1] != '--list':\n  {restoring}")
    result = call("restore", "quote/pg")
    assert result.exit_code == 1
    assert complaint in result.stderr


def test_check_names_prefix_and_age(bucket: Bucket) -> None:
    put(bucket, "2026-05-31T230000Z.dump")
    assert log(call("check", "quote/pg", "--max-age", "3600"))["age"] == 3600
    result = call("check", "quote/pg", "--max-age", "3599")
    assert result.exit_code == 1
    assert (
        "the newest whole backup of quote/pg in bucket backups at https://s3 is 3600 s old" in result.stderr
    )
    assert call("check", "etcd", "--max-age", "3600").exit_code == 1


# --- prune ----------------------------------------------------------------------------------------------


def test_prune_deletes_and_says_so(bucket: Bucket) -> None:
    for day in range(1, 6):
        put(bucket, f"2026-05-0{day}T000000Z.dump")
    bucket.delete(f"quote/pg/2026-05-05T000000Z.dump{CHECKSUM}")
    bucket.put("quote/pg/README", b"of somebody else")
    bucket.begin("quote/pg/2026-05-05T010000Z.dump", bucket.now - timedelta(days=2))
    bucket.begin("quote/pg/2026-05-31T235900Z.dump", bucket.now)
    bucket.begin("quote/pg/film.mkv", bucket.now - timedelta(days=9))
    line = log(call("prune", "quote/pg", "--daily", "2", "--weekly", "0", "--monthly", "0"))
    assert line["kept"] == 2
    assert line["deleted"][-2:] == ["2026-05-05T000000Z.dump", "2026-05-05T010000Z.dump"]
    assert sorted(bucket.objects) == [
        "quote/pg/2026-05-03T000000Z.dump",
        f"quote/pg/2026-05-03T000000Z.dump{CHECKSUM}",
        "quote/pg/2026-05-04T000000Z.dump",
        f"quote/pg/2026-05-04T000000Z.dump{CHECKSUM}",
        "quote/pg/README",
    ]
    assert sorted(bucket.begun) == ["quote/pg/2026-05-31T235900Z.dump", "quote/pg/film.mkv"]


def test_a_prune_that_breaks_off_leaves_nothing_that_only_looks_whole(bucket: Bucket) -> None:
    for day in range(1, 4):
        put(bucket, f"2026-05-0{day}T000000Z.dump")

    def refuse(given: dict[str, Any]) -> None:
        if not given["Key"].endswith(CHECKSUM):
            raise refusal("InternalError", 500, "DeleteObject")

    bucket.before["DeleteObject"] = refuse
    assert call("prune", "quote/pg", "--daily", "1", "--weekly", "0", "--monthly", "0").exit_code == 1
    rows = json.loads(call("list", "quote/pg", "--json").stdout)
    assert [row["whole"] for row in rows] == [True, False, True]


@pytest.mark.parametrize("prefix", ["", "/"])
def test_the_whole_bucket_is_no_prefix(bucket: Bucket, prefix: str) -> None:
    result = call("prune", prefix)
    assert result.exit_code == 2
    assert bucket.calls == []


# --- lifecycle ------------------------------------------------------------------------------------------


def test_lifecycle_keeps_the_rules_of_others(bucket: Bucket) -> None:
    sent: list[dict[str, Any]] = []
    bucket.before["PutBucketLifecycleConfiguration"] = sent.append
    assert log(call("lifecycle", "backups", "quote/pg", "--days", "60"))["changed"] is True
    foreign = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 3}}
    both = {"Rules": [foreign, *bucket.lifecycle["Rules"]]}
    bucket.unobserved.put_bucket_lifecycle_configuration(Bucket="backups", LifecycleConfiguration=both)
    assert log(call("lifecycle", "backups", "quote/pg", "--days", "90"))["changed"] is True
    assert log(call("lifecycle", "backups", "quote/pg", "--days", "90"))["changed"] is False
    assert bucket.lifecycle["Rules"] == [
        foreign,
        {
            "ID": "quote-platform/quote/pg",
            "Status": "Enabled",
            "Filter": {"Prefix": "quote/pg/"},
            "Transitions": [{"Days": 90, "StorageClass": "GLACIER"}],
        },
    ]
    assert len(sent) == 2
    # Small objects, as checksums are, stay where they are, if it was so.
    assert sent[1]["TransitionDefaultMinimumObjectSize"] == "all_storage_classes_128K"


# --- the store ------------------------------------------------------------------------------------------


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "S3_ENDPOINT": "https://store.example:7070",
        "S3_REGION": "eu-central-1",
        "S3_BUCKET": "backups",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }.items():
        monkeypatch.setenv(name, value)
    opened = Store.from_environment()
    url = opened.client.generate_presigned_url("get_object", Params={"Bucket": "backups", "Key": "a/b"})
    assert url.startswith("https://store.example:7070/backups/a/b?")
    assert opened.client.meta.region_name == "eu-central-1"
    assert opened.client.meta.config.request_checksum_calculation == "when_required"
    assert opened.where == "bucket backups at https://store.example:7070"
    monkeypatch.setenv("S3_ENDPOINT", "")
    monkeypatch.setenv("AWS_CA_BUNDLE", "")  # as templates leave it, where there is no authority of one's own
    amazon = Store.from_environment()
    assert amazon.where == "bucket backups at AWS"
    url = amazon.client.generate_presigned_url("get_object", Params={"Bucket": "backups", "Key": "a"})
    assert url.startswith("https://backups.s3.")
    monkeypatch.delenv("S3_BUCKET")
    with pytest.raises(BackupError, match="S3_BUCKET is empty"):
        Store.from_environment()
    monkeypatch.setenv("S3_ENDPOINT", "store without scheme")
    with pytest.raises(BackupError, match="check S3_ENDPOINT"):
        Store.from_environment("backups")


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (refusal("NoSuchBucket", 404, "ListObjectsV2"), "create the bucket, or correct S3_BUCKET"),
        (refusal("SignatureDoesNotMatch", 403, "ListObjectsV2"), "check AWS_ACCESS_KEY_ID"),
        (EndpointConnectionError(endpoint_url="https://s3"), "check S3_ENDPOINT and the network"),
    ],
)
def test_an_error_says_where_and_what_next(bucket: Bucket, error: Exception, step: str) -> None:
    def fail(_: dict[str, Any]) -> None:
        raise error

    bucket.before["ListObjectsV2"] = fail
    for command in (["list", "pg"], ["prune", "pg"], ["check", "pg", "--max-age", "1"]):
        result = call(*command)
        assert result.exit_code == 1
        assert "bucket backups at https://s3" in result.stderr
        assert step in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_entries_are_those_below_the_prefix_only(bucket: Bucket) -> None:
    name = name_of(bucket.now, ".db")
    bucket.put(f"etcd/{name}", b"123")
    bucket.put(f"etcd-old/{name}", b"123")
    assert Store(bucket.client, "backups").entries("etcd") == [Entry(name, 3, bucket.now)]


def test_it_runs_with_boto3_and_typer_alone() -> None:
    allowed = {*sys.stdlib_module_names, "boto3", "botocore", "typer"}
    for file in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                ours = name.startswith("quote_platform.backup")
                assert ours or name.split(".")[0] in allowed, f"{file.name} imports {name}"


@pytest.mark.parametrize(
    ("account", "said"),
    [
        ("me:other", "the proxy refuses the user and password of HTTPS_PROXY: correct them"),
        ("me:s3cret/", "and whether it lets one go there (Tunnel connection failed: 502"),
    ],
)
def test_a_proxy_that_refuses_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, account: str, said: str
) -> None:
    for name in ("NO_PROXY", "no_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment("https://127.0.0.1:9").items():  # where nobody is
        monkeypatch.setenv(name, value)
    with proxying(account) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:s3cret%2F@127.0.0.1:{proxy.port}")
        result = call("list", "etcd")
    assert result.exit_code == 1
    assert said in result.stderr
    assert "s3cret" not in result.stderr
    assert {(one.target, one.account) for one in proxy.asked} == {("127.0.0.1:9", "me:s3cret/")}
