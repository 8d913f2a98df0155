"""What of ansible-runner's events is kept: who did what where, how long it took, what came of it."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

Status = Literal["ok", "changed", "failed", "unreachable", "ignored", "rescued", "skipped"]
# Characters of a message; beyond that, the log has it.
MESSAGE = 8000
HIDDEN = "hidden, as the task says no_log"
RECAP = {
    "ok": "ok",
    "changed": "changed",
    "dark": "unreachable",
    "failures": "failed",
    "skipped": "skipped",
    "rescued": "rescued",
    "ignored": "ignored",
}
DEBUG = ("debug", "ansible.builtin.debug")


class Result(BaseModel):
    """What a task came to on one host."""

    play: str
    task: str
    host: str
    status: Status
    changed: bool = False
    # Seconds.
    duration: float = 0
    # Why it failed, or what a task of the module debug says.
    message: str = ""
    # What it changed, as the module names it.
    objects: list[str] = []


class Summary(BaseModel):
    """Where a job stands, or stood when it ended."""

    plays: int = 0
    play: str = ""
    task: str = ""
    tasks: int = 0
    hosts: list[str] = []
    # Hosts on which the current task is under way.
    busy: list[str] = []
    changes: int = 0
    failures: int = 0
    changed: list[Result] = []
    failed: list[Result] = []
    # What tasks of the module debug say, in the end.
    said: list[str] = []
    # Per host: ok, changed, unreachable, failed, skipped, rescued, ignored.
    recap: dict[str, dict[str, int]] = {}
    # What ansible-playbook ended with, or None if that is not known.
    rc: int | None = None
    # All results, if they were asked for.
    results: list[Result] = []

    @classmethod
    def of(cls, lines: Iterable[dict[str, Any]], every: bool = False) -> "Summary":
        """Return the summary of events."""
        found = cls()
        for line in lines:
            found.add(line, every)
        return found

    def add(self, line: dict[str, Any], every: bool = False) -> Result | None:
        """Take one more event in; return the result that it tells of."""
        kind = line.get("event")
        if kind == "play":
            self.play, self.task, self.busy = line["play"], "", []
            self.plays += 1
        elif kind == "task":
            self.task, self.busy = line["task"], []
            self.tasks += 1
        elif kind == "begin":
            self._host(line["host"])
            self.busy.append(line["host"])
        elif kind == "recap":
            self._recap(line["hosts"])
        elif kind == "end":
            self.rc, self.busy = line["rc"], []
        elif kind == "result":
            result = Result.model_validate({name: line[name] for name in Result.model_fields if name in line})
            self._take(result)
            if every:
                self.results.append(result)
            return result
        return None

    def _host(self, name: str) -> None:
        if name not in self.hosts:
            self.hosts.append(name)

    def _take(self, result: Result) -> None:
        self._host(result.host)
        if result.host in self.busy:
            self.busy.remove(result.host)
        if result.changed:
            self.changes += 1
            self.changed.append(result)
        if result.status in {"failed", "unreachable"}:
            self.failures += 1
            self.failed.append(result)
        elif result.message:
            self.said.append(result.message)

    def _recap(self, hosts: dict[str, dict[str, int]]) -> None:
        self.recap = hosts
        # A block with `rescue` has taken care of some, which only the recap tells. What really fails takes
        # its host out, so it comes last.
        left = {
            host: counts.get("failed", 0) + counts.get("unreachable", 0) for host, counts in hosts.items()
        }
        for result in reversed(self.failed):
            if left.get(result.host, 0) <= 0:
                result.status = "rescued"
            left[result.host] = left.get(result.host, 0) - 1
        self.failed = [one for one in self.failed if one.status != "rescued"]
        self.failures = len(self.failed)


def reduced(event: dict[str, Any]) -> dict[str, Any] | None:
    """Return what is kept of an event of ansible-runner, or None."""
    data = event.get("event_data") or {}
    kind = event.get("event", "")
    line: dict[str, Any] | None = None
    if kind == "playbook_on_play_start":
        line = {"event": "play", "play": data.get("name", "")}
    elif kind == "playbook_on_task_start":
        line = {"event": "task", "play": data.get("play", ""), "task": _task(data)}
    elif kind == "runner_on_start":
        line = {"event": "begin", "host": data.get("host", "")}
    elif kind == "playbook_on_stats":
        line = {"event": "recap", "hosts": _counts(data)}
    elif kind in {"runner_on_ok", "runner_on_failed", "runner_on_unreachable", "runner_on_skipped"}:
        line = _result(kind, data)
    return {"time": event.get("created", "")} | line if line else None


def _task(data: dict[str, Any]) -> str:
    role = data.get("role")
    name = data.get("task") or data.get("name") or ""
    return f"{role} : {name}" if role and not name.startswith(f"{role} : ") else str(name)


def _counts(data: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {
        host: {ours: (data.get(theirs) or {}).get(host, 0) for theirs, ours in RECAP.items()}
        for host in data.get("processed") or {}
    }


def _result(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    res = data.get("res") or {}
    changed = bool(res.get("changed")) and kind == "runner_on_ok"
    status: Status = {
        "runner_on_failed": "ignored" if data.get("ignore_errors") else "failed",
        "runner_on_unreachable": "unreachable",
        "runner_on_skipped": "skipped",
    }.get(kind, "changed" if changed else "ok")
    line = {
        "event": "result",
        "play": data.get("play", ""),
        "task": _task(data),
        "host": data.get("host", ""),
        "status": status,
        "changed": changed,
        "duration": round(data.get("duration") or 0, 2),
    }
    if status in {"failed", "unreachable", "ignored"}:
        line["message"] = message(res)
    elif status != "skipped" and data.get("task_action") in DEBUG and "censored" not in res:
        line["message"] = _text(res.get("msg", ""))
    if changed:
        line["objects"] = sorted(set(_objects(res)))
    return line


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, indent=2) if value else ""
    return text if len(text) <= MESSAGE else f"{text[:MESSAGE]} …"


def message(res: dict[str, Any]) -> str:
    """Return why a task failed, as its module says it; nothing of it where it says no_log."""
    if "censored" in res:
        return HIDDEN
    items = [one for one in res.get("results") or [] if isinstance(one, dict) and one.get("failed")]
    if items:
        return _text("\n".join(filter(None, (_item(one) for one in items))))
    parts = [_text(res.get("msg", ""))]
    # `non-zero return code` says nothing without what the program said.
    parts += [str(res.get(name, "")).strip() for name in ("stderr", "module_stderr")]
    return _text("\n".join(part for part in parts if part))


def _item(res: dict[str, Any]) -> str:
    label = res.get("_ansible_item_label", res.get("item", ""))
    text = message(res)
    return text if text == HIDDEN or not isinstance(label, (str, int)) else f"{label}: {text}"


def _objects(res: dict[str, Any]) -> Iterator[str]:
    """Yield the names of what was changed: headers of the differences, else paths."""
    if "censored" in res:
        return
    items = [one for one in res.get("results") or [] if isinstance(one, dict) and one.get("changed")]
    for item in items:
        yield from _objects(item)
    if items:
        return
    diff = res.get("diff")
    named = False
    for one in diff if isinstance(diff, list) else [diff]:
        if isinstance(one, dict) and (header := one.get("after_header") or one.get("before_header")):
            named = True
            yield str(header).removesuffix(" (content)").removesuffix(" (file attributes)")
    if not named and isinstance(where := res.get("dest") or res.get("path"), str):
        yield where


def read(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a job, without the last if it was cut off."""
    try:
        with file.open() as lines:
            for line in lines:
                try:
                    yield json.loads(line)
                except ValueError:
                    continue
    except FileNotFoundError:
        return
