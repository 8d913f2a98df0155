"""What the commands about jobs share: wrong input as a sentence, and being told to end."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from quote_platform import paths
from quote_platform.jobs import launch
from quote_platform.jobs.definition import WrongInput
from quote_platform.jobs.record import STATUS

WRONG = 2  # status of wrong input
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Json = Annotated[bool, typer.Option("--json", help="For programs.")]


class Signalled(Exception):
    """The command was told to end."""


def raise_signals() -> None:
    """Raise Signalled when the command is told to end; what tells it again is ignored."""
    for one in SIGNALS:
        signal.signal(one, _stop)


def _stop(number: int, _: FrameType | None) -> None:
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    if number == signal.SIGHUP:  # the terminal is gone, and writing to it an error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    raise Signalled


@contextmanager
def sentences() -> Iterator[None]:
    """Turn what cannot be into a sentence on standard error and a status."""
    try:
        yield
    except WrongInput as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(WRONG) from error
    except (launch.NoSpace, launch.NotStarted) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(STATUS["failed"]) from error


def checkout() -> Path:
    """Return the checkout that the command works on, or raise WrongInput."""
    try:
        return paths.repository()
    except FileNotFoundError as error:
        raise WrongInput(str(error)) from error
