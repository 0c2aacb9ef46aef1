"""`splitplace watch`."""

import asyncio
import contextlib
from pathlib import Path
from typing import Annotated

import typer

from splitplace.commands.shared.options import (
    BrokerOption,
    CredentialsOption,
    PrefixOption,
    fail,
    settings_from,
)
from splitplace.commands.shared.output import JsonOption
from splitplace.commands.watch.recording import recording
from splitplace.commands.watch.watching import Watching, WatchOptions
from splitplace.errors import ExitCode


def command(
    *,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    credentials: CredentialsOption = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Stop after this many seconds.", show_default="never")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="Append decisions and task ends to this file, for `splitplace replay`."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Show the path of the next task of this id and end: ID, SENSOR.ID, or SENSOR.*.",
            show_default="all",
        ),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Print lines, also on a terminal.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what happens and why, as it happens.

    A line tells how each task ended and why; late and refused ones are marked. Nodes and services that come
    and go are told. Counts of tasks and decisions start at zero; the other figures come from the services.
    On a terminal all of it is a page, unless `--plain` is given. `--json` prints each message as one line
    with `topic` and `payload`.
    """
    if plain and as_json:
        fail("--plain and --json exclude each other", ExitCode.USAGE)
    settings = settings_from(broker, prefix, credentials)
    with contextlib.suppress(KeyboardInterrupt), recording(record) as recorder:
        watching = Watching(settings, recorder, WatchOptions(task, plain, as_json))
        asyncio.run(watching.run(seconds))
        if not watching.found:
            fail(f"task {task} has not ended meanwhile; start this before the task is sent", ExitCode.PROBLEM)
