"""`splitplace simulate`."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from splitplace.commands.shared.options import explain
from splitplace.commands.shared.output import JsonOption, print_json
from splitplace.commands.shared.places import StoreOption, model_store
from splitplace.errors import ConfigurationError
from splitplace.simulator import Quality, Result, Scenario, run


def command(
    *,
    policy: Annotated[
        str, typer.Option(help="How to split and where to place, such as mab+daso.")
    ] = "expected-reward+earliest-finish",
    hosts: Annotated[int | None, typer.Option(help="Number of hosts.", show_default="50")] = None,
    intervals: Annotated[
        int | None, typer.Option(help="Length in scheduling intervals.", show_default="100")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Tasks per interval.", show_default="6")] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    scenario: Annotated[
        Path | None, typer.Option(help="JSON file with further settings (see docs/simulator.md).")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="immediate, or interval: decide at the start of each.", show_default="immediate"),
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option(help="When to retry and give up: product (default) or paper (late tasks are answered)."),
    ] = None,
    machines: Annotated[
        str | None, typer.Option(help="azure50, pi3, pi4, pi5, or a TOML file of hosts.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Workload: that of the paper, or of the model store.", show_default="paper"),
    ] = None,
    store: StoreOption = None,
    arms: Annotated[
        str | None, typer.Option(help="Variants to choose from: names or kinds with commas.")
    ] = None,
    pattern: Annotated[str | None, typer.Option(help="Arrivals: poisson, bursty or intervals.")] = None,
    replay: Annotated[Path | None, typer.Option(help="CSV file of arrivals.")] = None,
    loading: Annotated[
        str | None,
        typer.Option(
            help="Hosts begin with nothing, and load ahead what the fewest hold (rarest) or what is asked "
            "for (demand).",
            show_default="every host has everything",
        ),
    ] = None,
    training: Annotated[int | None, typer.Option(help="Intervals in which policies learn first.")] = None,
    records: Annotated[
        bool, typer.Option("--records", help="Add a record of each task to the JSON.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run policies on simulated hosts: eight hours take seconds.

    Flags win over the settings of `--scenario`.
    """
    given = {
        "hosts": hosts,
        "intervals": intervals,
        "rate": rate,
        "mode": mode,
        "rules": rules,
        "machines": machines,
        "profile": profile,
        "stores": (store,) if store else None,
        "arms": tuple(arms.split(",")) if arms else None,
        "pattern": pattern,
        "replay": replay,
        "loading": loading,
        "training_intervals": training,
        "records": records or None,
    }
    try:
        chosen = {**_read(scenario), **{k: v for k, v in given.items() if v is not None}}
        if chosen.get("profile") == "store":
            chosen.setdefault("stores", model_store(None).folders)
        setup = Scenario.model_validate(chosen)
        result = _run(setup, policy, seed)
    except ValidationError as error:
        raise ConfigurationError(f"not a valid scenario: {explain(error)}") from error
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    if as_json:
        print_json(result)
    else:
        _print(result)


def _read(path: Path | None) -> dict[str, object]:
    """Return settings from a JSON file. Only their types are checked here."""
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
        return Scenario.model_validate_json(text).model_dump(exclude_unset=True)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {explain(error)}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8: {error}") from error


def _run(scenario: Scenario, policy: str, seed: int) -> Result:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        bar = progress.add_task(f"{policy}, intervals", total=scenario.intervals)
        return run(scenario, policy, seed, watch=lambda *_: progress.advance(bar))


def _print(result: Result) -> None:
    console = Console()
    title = f"{result.policy}: {result.hosts} hosts, {result.intervals} intervals, {result.rate:g} tasks each"
    table = Table(title=f"{title}, seed {result.seed}")
    table.add_column("figure")
    for name in ("all", *result.by_application):
        table.add_column(name, justify="right")
    parts: tuple[Quality, ...] = (result, *result.by_application.values())
    table.add_row("reward", *(_figure(part.reward) for part in parts))
    table.add_row("accuracy", *(_figure(part.accuracy) for part in parts))
    table.add_row("SLA violations", *(_figure(part.sla_violation_rate) for part in parts))
    table.add_row("response, intervals", *(_figure(part.response_intervals.mean) for part in parts))
    table.add_row("  p50", *(_figure(part.response_intervals.p50) for part in parts))
    table.add_row("  p95", *(_figure(part.response_intervals.p95) for part in parts))
    table.add_row("wait, intervals", *(_figure(part.wait_intervals) for part in parts))
    for variant in result.decisions:
        table.add_row(f"decided {variant}", *(str(part.decisions.get(variant, 0)) for part in parts))
    console.print(table)
    tasks, energy = result.tasks, result.energy_mj_per_interval
    console.print(
        f"tasks: {tasks.arrived} arrived, {tasks.answered} answered, {tasks.refused} refused, "
        f"{tasks.failed + tasks.expired} failed or expired; at the end {tasks.overdue_unfinished} were "
        f"overdue and {tasks.unfinished} still running"
    )
    console.print(
        f"energy: {energy.total:.4f} MJ an interval, {energy.above_idle:.4f} above idle; "
        f"cost: {result.cost_usd:.2f} $; fairness: {_figure(result.fairness)}"
    )
    console.print(
        f"a decision: p50 {_figure(result.decision_ms.p50)} ms, p99 {_figure(result.decision_ms.p99)} ms; "
        f"simulated in {result.wall_s:.1f} s ({result.cpu_s:.1f} s of CPU)"
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
