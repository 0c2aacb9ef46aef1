"""`splitplace demo`."""

import asyncio
import secrets
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from splitplace.commands.demo.plan import MIN_NODES, PlanError
from splitplace.commands.demo.run import Demo, DemoError, DemoOptions, write_summary
from splitplace.commands.demo.summary import faults
from splitplace.commands.demo.system import remove
from splitplace.commands.demo.table import table
from splitplace.commands.processes.broker import BrokerError
from splitplace.commands.shared.options import fail
from splitplace.commands.shared.places import StateDirOption, StoreOption, model_store, paths
from splitplace.commands.shared.policy_option import PolicyOption, parse_pair
from splitplace.commands.watch.recording import RecordingError
from splitplace.errors import ExitCode
from splitplace.messages.limits import MAX_NODES
from splitplace.policies.splitting.arms import allows, parse_arms
from splitplace.storage.model_store import ModelStore, StoreError
from splitplace.workshop.datasets import DatasetError

DEMO_ARMS = "whole,layer,semantic,compressed"


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
            help="Variants to choose among, or all. int8 is excluded by default: it nearly always wins."
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
) -> None:
    """Watch a whole system at work: services, nodes, sensors, real images.

    Starts a broker, the five services, edge nodes of three speeds and a sensor for each application, each in
    its own process, and shows what they do. Ends by itself, prints the figures and leaves nothing running.
    Exits with 1 if a task got no answer or a process died.
    """
    networks = model_store(store)
    _check(arms, networks, summary)
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
        policy=parse_pair(policy),
        arms=arms,
    )
    try:
        figures = Demo(options).run()
    except (DemoError, PlanError, DatasetError, StoreError, BrokerError, RecordingError) as error:
        fail(f"{error}\nlogs: {folder}", ExitCode.PROBLEM)
    except (KeyboardInterrupt, asyncio.CancelledError):
        remove(folder)
        fail("stopped", ExitCode.PROBLEM)
    Console().print(table(figures))
    if summary is not None:
        write_summary(figures, summary)
    broken = faults(figures)
    if broken:
        fail(f"{'; '.join(broken)}\nlogs: {folder}", ExitCode.PROBLEM)
    if keep:
        print(f"logs: {folder}")
    else:
        remove(folder)


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
