"""`splitplace demo`."""

import asyncio
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from splitplace.commands.demo.deadlines import DeadlinesError, read_deadlines
from splitplace.commands.demo.options import DemoError, DemoOptions
from splitplace.commands.demo.plan import MIN_NODES, PlanError
from splitplace.commands.demo.run import Demo, write_summary
from splitplace.commands.demo.summary import faults
from splitplace.commands.demo.system import remove
from splitplace.commands.demo.table import table
from splitplace.commands.demo.words import busy_note
from splitplace.commands.processes.broker import BrokerError
from splitplace.commands.shared.options import fail
from splitplace.commands.shared.output import JsonOption, print_json
from splitplace.commands.shared.places import StateDirOption, StoreOption, model_store, paths
from splitplace.commands.shared.policy_option import PolicyOption, parse_pair
from splitplace.commands.shared.service_processes import ApartOption
from splitplace.commands.watch.recording import RecordingError
from splitplace.errors import ExitCode
from splitplace.messages.limits import MAX_NODES
from splitplace.policies.splitting.arms import allows, parse_arms
from splitplace.storage.model_store import ModelStore, StoreError
from splitplace.workshop.datasets import DatasetError

_FAILURES = (DemoError, PlanError, DatasetError, StoreError, BrokerError, RecordingError, DeadlinesError)
DEMO_ARMS = "whole,layer,semantic"


def command(
    *,
    tasks: Annotated[int, typer.Option(min=1, max=100_000, help="How many tasks the sensors send.")] = 200,
    nodes: Annotated[
        int, typer.Option(min=MIN_NODES, max=MAX_NODES, help="How many edge nodes.")
    ] = MIN_NODES,
    policy: PolicyOption = None,
    arms: Annotated[
        str,
        typer.Option(
            help="Variants to choose among from the second act on, or all. Smaller networks (compressed, "
            "int8) are left out by default: they nearly always win."
        ),
    ] = DEMO_ARMS,
    seed: Annotated[int, typer.Option(help="Seed of the sensors' random choices.")] = 0,
    broker: Annotated[
        str | None, typer.Option(help="URL of a broker to use.", show_default="one of its own")
    ] = None,
    summary: Annotated[Path | None, typer.Option(help="JSON file to write the figures to.")] = None,
    log: Annotated[
        Path | None, typer.Option(help="Append decisions and outcomes to this file, for splitplace replay.")
    ] = None,
    deadlines: Annotated[
        Path | None,
        typer.Option(
            help="Take the deadlines from this file, so that demos are comparable; write it if it is missing."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="SPLITPLACE_DATA", help="Folder of data sets, for applications that come without images."
        ),
    ] = None,
    store: StoreOption = None,
    state_dir: StateDirOption = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep logs and journal even if the demo succeeds.")
    ] = False,
    apart: ApartOption = False,
    plain: Annotated[bool, typer.Option("--plain", help="Print lines, also on a terminal.")] = False,
    as_json: JsonOption = False,
) -> None:
    """See why a network is split: a whole system at work, in three acts.

    Starts a broker, the five services (as `splitplace up` does), edge nodes of three speeds and sensors with
    real images. A network that no node can hold is refused as a whole, answered when it is split, and still
    answered when a node is killed; small networks come last. Ends by itself, prints the figures and leaves
    nothing running. `--json` prints the figures as `--summary` writes them; the words go to standard error.
    Exits with 1 if a task got no answer or a process died.
    """
    networks = model_store(store)
    _check(arms, networks, summary)
    _check_deadlines(deadlines)
    folder = paths(state_dir).demos / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    options = DemoOptions(
        tasks=tasks,
        nodes=nodes,
        seed=seed,
        broker=broker,
        store=networks,
        folder=folder,
        data=data,
        log=log,
        deadlines=deadlines,
        policy=parse_pair(policy),
        arms=arms,
        apart=apart,
        plain=plain,
        as_json=as_json,
    )
    note = busy_note(os.getloadavg()[0], os.cpu_count() or 1)
    try:
        figures = Demo(options).run()
    except _FAILURES as error:
        fail(f"{error}\nlogs: {folder}", ExitCode.PROBLEM)
    except (KeyboardInterrupt, asyncio.CancelledError):
        remove(folder)
        fail("stopped", ExitCode.PROBLEM)
    if as_json:
        print_json(figures)
    else:
        Console().print(table(figures))
    if note:
        print(note, file=sys.stderr)
    if summary is not None:
        write_summary(figures, summary)
    broken = faults(figures)
    if broken:
        fail(f"{'; '.join(broken)}\nlogs: {folder}", ExitCode.PROBLEM)
    if keep:
        print(f"logs: {folder}", file=sys.stderr if as_json else sys.stdout)
    else:
        remove(folder)


def _check_deadlines(file: Path | None) -> None:
    """Refuse a file that cannot be read, or a folder in which none can be written."""
    if file is None:
        return
    if not file.parent.is_dir():
        fail(f"--deadlines: {file.parent} is not a folder", ExitCode.USAGE)
    if file.exists():
        read_deadlines(file)


def _check(arms: str, store: ModelStore, summary: Path | None) -> None:
    """Refuse what would only fail after the whole system was started. Exits with the code of wrong usage."""
    if summary is not None and not summary.parent.is_dir():
        fail(f"--summary: {summary.parent} is not a folder", ExitCode.USAGE)
    try:
        chosen = parse_arms(arms)
        applications, _ = store.usable()
    except ValueError as error:
        fail(f"--arms: {error}", ExitCode.USAGE)
    except StoreError as error:
        fail(str(error), ExitCode.PROBLEM)
    for application in applications:
        known = [variant.name for variant in application.variants]
        if chosen is not None and not any(
            allows(chosen, each.name, each.kind) for each in application.variants
        ):
            fail(
                f"--arms: {application.name} has no variant among {arms}, only {', '.join(known)}",
                ExitCode.USAGE,
            )
