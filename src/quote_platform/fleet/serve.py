"""What an execution node is asked over the mesh, and its answers: lines of JSON on standard output."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from quote_platform.fleet import version
from quote_platform.fleet.local import Local, Status, status
from quote_platform.fleet.run import News, Request, failed
from quote_platform.fleet.version import Version
from quote_platform.jobs.record import STATUS, Store

# Seconds between two looks at a job, and at most between two lines about it.
LOOK = 1.0
BEAT = 5.0


class Ask(BaseModel):
    """What a controller asks."""

    do: Literal["run", "cancel", "status"]
    version: Version
    # What names a run's job on a cluster; empty for `status`.
    origin: str = ""
    inventories: list[str]
    request: Request = Request(job="")


class Answer(BaseModel):
    """A line of an answer: how a job stands, or what is known of each inventory."""

    news: News = News()
    statuses: dict[str, Status] = {}


def serve(project: Path, given: str) -> Iterator[Answer]:
    """Do what a controller asks."""
    mine = version.of(project)
    try:
        asked = json.loads(given)
        theirs = Version.model_validate(asked["version"])
        ask = Ask.model_validate(asked)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        # A controller of another version may ask otherwise.
        text = f"this node has {mine}, and does not understand: {str(error).splitlines()[0]}"
        yield Answer(news=News(state="refused", exit_status=STATUS["refused"], message=text))
        return
    if ask.do == "status":
        store, now = Store(), time.time()
        found = {one: status(store, project, one, str(mine), now) for one in ask.inventories}
        for one in found.values():
            one.same = mine.files == theirs.files
        yield Answer(statuses=found)
        return
    place = Local(project, ask.inventories[0], ask.request, ask.origin)
    if ask.do == "cancel":
        yield Answer(news=place.cancel())
        return
    # A job that has been started is followed, whatever has become of the checkout since.
    if mine.files != theirs.files and not place.store.of_origin(ask.origin):
        text = f"the controller has {theirs}, this node {mine}: bring both to the same version"
        yield Answer(news=News(state="refused", exit_status=STATUS["refused"], message=text))
        return
    if not (project / ask.inventories[0]).exists():
        yield Answer(news=failed(f"no such inventory in {project}: {ask.inventories[0]}", status=2))
        return
    yield from _follow(place)


def _follow(place: Local) -> Iterator[Answer]:
    """Start a job, and tell how it stands until it has ended."""
    news, told, last = place.start(), 0.0, News()
    while True:
        quiet = {"seconds": 0.0}
        new = news.model_copy(update=quiet) != last.model_copy(update=quiet)
        if new or time.monotonic() - told >= BEAT:
            yield Answer(news=news)
            told, last = time.monotonic(), news
        if news.over:
            return
        time.sleep(LOOK)
        news = place.look()


def main(project: Path, given: str) -> None:
    """Answer on standard output, a line at a time."""
    for answer in serve(project, given):
        sys.stdout.write(answer.model_dump_json(exclude_defaults=True) + "\n")
        sys.stdout.flush()


def parse(line: bytes) -> Answer | None:
    """Return a line of an answer, or None if it is none."""
    try:
        found: Any = json.loads(line)
        return Answer.model_validate(found)
    except (ValueError, ValidationError):
        return None
