"""Search the lines that the collectors of logs have written to an S3 object store.

Below `lines/PREFIX/YYYY/MM/DD/HH/` lie gzipped objects of OTLP in JSON, with lines of that hour (UTC) only.
"""

from __future__ import annotations

import filecmp
import gzip
import json
import re
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from quote_platform import object_store
from quote_platform.object_store import Refused

# What the task search_logs is given; plugins/modules has what each means.
SPEC: dict[str, Any] = {
    "endpoint": {"type": "str", "default": ""},
    "region": {"type": "str", "required": True},
    "ca": {"type": "str", "default": ""},
    "bucket": {"type": "str", "required": True},
    "access_key": {"type": "str", "required": True},
    "secret_key": {"type": "str", "required": True, "no_log": True},
    "prefix": {"type": "str", "required": True},
    "since": {"type": "str", "required": True},
    "until": {"type": "str", "required": True},
    "namespace": {"type": "str", "default": ""},
    "pod": {"type": "str", "default": ""},
    "kind": {"type": "str", "default": ""},
    "pattern": {"type": "str", "default": ""},
    "path": {"type": "path", "required": True},
}
HOUR = timedelta(hours=1)
AT_A_TIME = 8  # objects
SAY_EVERY = 5.0  # seconds
SECOND = 10**9  # in nanoseconds, as lines tell their time
# What of a line is kept, by the names that the store of logs has for it.
NAMES = {
    "data_stream.dataset": "data_stream.dataset",
    "event.reason": "event.reason",
    "kubernetes.namespace": "kubernetes.namespace",
    "kubernetes.object.kind": "kubernetes.object.kind",
    "kubernetes.object.name": "kubernetes.object.name",
    "log.iostream": "log.iostream",
    "service.name": "service.name",
    "systemd.unit": "systemd.unit",
    "k8s.namespace.name": "kubernetes.namespace",
} | {
    f"k8s.{kind}.name": f"kubernetes.{kind}.name"
    for kind in ("node", "pod", "container", "deployment", "statefulset", "daemonset", "cronjob", "job")
}


# What reading an object that is none of the collectors', or not whole, comes to.
DAMAGED = (OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, zlib.error)


@dataclass(frozen=True)
class Query:
    """What is searched for: lines from a moment to before another one, in nanoseconds of the epoch."""

    since: int
    until: int
    namespace: str = ""
    pod: str = ""
    kind: str = ""
    pattern: re.Pattern[str] | None = None

    def takes(self, line: Line) -> bool:
        """Tell whether a line is one of them."""
        globs = {"kubernetes.namespace": self.namespace, "kubernetes.pod.name": self.pod}
        return (
            self.since <= line.time < self.until
            and (not self.kind or line.fields.get("data_stream.dataset") == self.kind)
            and all(not glob or fnmatchcase(line.fields.get(name, ""), glob) for name, glob in globs.items())
            and (not self.pattern or bool(self.pattern.search(line.message)))
        )


@dataclass(frozen=True)
class Line:
    """A line, and whose it is; `fields` has the store's names, with dots."""

    time: int
    message: str
    fields: dict[str, str]

    def text(self) -> str:
        """Return it as JSON, as the store would."""
        moment = datetime.fromtimestamp(self.time // SECOND, UTC)
        found: dict[str, Any] = {
            "@timestamp": f"{moment:%Y-%m-%dT%H:%M:%S}.{self.time % SECOND:09d}Z",
            "message": self.message,
        }
        for name, value in sorted(self.fields.items()):
            *folders, last = name.split(".")
            place = found
            for folder in folders:
                place = place.setdefault(folder, {})
            place[last] = value
        return json.dumps(found, ensure_ascii=False)


def moment(name: str, text: str) -> datetime:
    """Return a moment that was written as UTC."""
    if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?Z", text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    raise Refused(f"{name}: {text!r} is not a time in UTC; allowed is for example 2026-11-30T10:00:00Z")


def query(given: dict[str, Any]) -> Query:
    """Return what is searched for, or refuse it."""
    since, until = moment("logging_search_from", given["since"]), moment("logging_search_to", given["until"])
    if since >= until:
        raise Refused(
            f"logging_search_to: {given['until']} is not after logging_search_from, {given['since']}; "
            "allowed is a later time"
        )
    try:
        pattern = re.compile(given["pattern"]) if given["pattern"] else None
    except re.error as error:
        raise Refused(
            f"logging_search_pattern: {given['pattern']!r} is no regular expression ({error}); a character "
            "with a meaning of its own is written with a backslash before it"
        ) from error
    return Query(
        int(since.timestamp()) * SECOND,
        int(until.timestamp()) * SECOND,
        given["namespace"],
        given["pod"],
        given["kind"],
        pattern,
    )


def hours(wanted: Query) -> list[datetime]:
    """Return the hours that a search touches."""
    hour = datetime.fromtimestamp(wanted.since // SECOND, UTC).replace(minute=0, second=0)
    found = []
    while int(hour.timestamp()) * SECOND < wanted.until:
        found.append(hour)
        hour += HOUR
    return found


def lines(content: bytes) -> Iterator[Line]:
    """Yield the lines of an object."""
    # A gateway may have unpacked it, since the object says how it is encoded.
    text = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    for group in json.loads(text.decode(errors="replace"), strict=False).get("resourceLogs", []):
        whose = fields(group.get("resource", {}))
        for scope in group.get("scopeLogs", []):
            for record in scope.get("logRecords", []):
                yield Line(
                    int(record.get("timeUnixNano") or record.get("observedTimeUnixNano") or 0),
                    value(record.get("body", {})),
                    whose | fields(record),
                )


def fields(part: dict[str, Any]) -> dict[str, str]:
    """Return what is kept of the attributes of a line, or of a group of them."""
    return {
        NAMES[one["key"]]: value(one.get("value", {}))
        for one in part.get("attributes", [])
        if one["key"] in NAMES
    }


def value(found: dict[str, Any]) -> str:
    """Return a value of OTLP as text."""
    if not found:
        return ""
    kind, inner = next(iter(found.items()))
    return inner if kind == "stringValue" else json.dumps(inner, ensure_ascii=False)


class Search:
    """One search of a bucket."""

    def __init__(self, client: Any, given: dict[str, Any], say: Callable[[str], None]) -> None:
        self.client, self.bucket, self.prefix = client, given["bucket"], given["prefix"]
        self.say = say
        self.wanted = query(given)
        self.objects = self.read = self.found = self.repeated = 0
        self.damaged: list[str] = []

    def keys(self, hour: datetime) -> list[str]:
        """Return the objects of an hour."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=f"lines/{self.prefix}/{hour:%Y/%m/%d/%H}/"
        )
        return [one["Key"] for page in pages for one in page.get("Contents", [])]

    def fetch(self, key: str) -> tuple[str, bytes]:
        """Return an object, with its name."""
        return key, self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def hour(self, hour: datetime) -> list[str]:
        """Return what is found in an hour, in the order of time; what collectors sent twice is there once."""
        found = set[tuple[int, str]]()
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            for key, content in pool.map(self.fetch, self.keys(hour)):
                self.objects += 1
                try:
                    for line in lines(content):
                        self.read += 1
                        if self.wanted.takes(line):
                            one = (line.time, line.text())
                            self.repeated += one in found
                            found.add(one)
                except DAMAGED as error:
                    self.damaged.append(f"{key} ({error})")
        self.found += len(found)
        return [text for _, text in sorted(found)]

    def into(self, write: Callable[[str], object]) -> None:
        """Search all hours; say how far it is."""
        touched = hours(self.wanted)
        said = time.monotonic()
        for number, hour in enumerate(touched, 1):
            for text in self.hour(hour):
                write(f"{text}\n")
            if time.monotonic() - said > SAY_EVERY or number == len(touched):
                said = time.monotonic()
                self.say(
                    f"{hour:%Y-%m-%d %H}:00: hour {number} of {len(touched)}, {self.objects} objects, "
                    f"{self.read} lines, {self.found} found"
                )


def run(given: dict[str, Any], dry_run: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Search, and write what is found to a file that only its owner reads; return what the task returns."""
    query(given)  # before anybody is asked
    target = Path(given["path"])
    if not target.parent.is_dir():
        raise Refused(
            f"logging_search_file: {target.parent} is no folder; allowed is a file in a folder that is there"
        )
    account = {"bucket": given["bucket"], "access_key": given["access_key"]}
    place = {"endpoint": given["endpoint"], "region": given["region"], "ca": given["ca"]}
    place |= {"accounts": {"logs": account}, "secret_keys": {"logs": given["secret_key"]}}
    with (
        object_store.authority_file(given["ca"]) as authority,
        # Readable by its owner alone, and complete or not there.
        tempfile.NamedTemporaryFile("w", dir=target.parent, prefix=f".{target.name}.", delete=False) as part,
    ):
        try:
            search = Search(object_store.connect(place, "logs", authority), given, say)
            search.into(part.write)
            part.flush()
            changed = not target.is_file() or not filecmp.cmp(part.name, target, shallow=False)
            if not dry_run:
                Path(part.name).replace(target)
        except (ClientError, BotoCoreError) as error:
            raise Refused(object_store.explain(error, object_store.place(given), "logs", account)) from error
        finally:
            Path(part.name).unlink(missing_ok=True)
    if search.damaged:
        raise Refused(
            f"{len(search.damaged)} of {search.objects} objects cannot be read: "
            f"{'; '.join(search.damaged[:3])}. What the others have is in {target}: {search.found} lines"
        )
    return {
        "changed": changed,
        "path": str(target),
        "found": search.found,
        "read": search.read,
        "objects": search.objects,
        "repeated": search.repeated,
    }
