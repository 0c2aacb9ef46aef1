"""`splitplace calibrate`."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from splitplace.bus.service import software_version
from splitplace.commands.shared.options import fail
from splitplace.commands.shared.output import JsonOption, cell, print_json
from splitplace.commands.shared.places import StateDirOption, StoreOption, model_store, paths
from splitplace.commands.watch.recording import Log
from splitplace.errors import ConfigurationError, ExitCode
from splitplace.planning.fitting import fit_and_check
from splitplace.planning.logged import LoggedRun, logged_run
from splitplace.planning.question import DEFAULT_POLICY
from splitplace.simulator.calibration import Calibration, CalibrationError, Spread
from splitplace.storage.model_store import StoreError
from splitplace.storage.replace import replace_file

FAR_OFF = 0.05
"""Error of the hit rate from which on a calibration is called far off."""


def command(
    log: Annotated[Path, typer.Argument(help="A file from `splitplace watch --record` or `demo --log`.")],
    *,
    policy: Annotated[
        str, typer.Option(metavar="SPLIT+PLACEMENT", help="What the run was decided by, for the check.")
    ] = DEFAULT_POLICY,
    where: Annotated[str, typer.Option(help="The run in words: devices, network, what else they did.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="calibration.json in the state folder")
    ] = None,
    store: StoreOption = None,
    state_dir: StateDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit the simulator's hops and noise to the log of a live run, with the fit's error.

    `splitplace plan` uses the result. Every other task is simulated with constants of the rest, to see how
    far off they are.
    """
    try:
        run = logged_run(Log(log).entries())
        applications, _ = model_store(store).usable()
        fitted = fit_and_check(run, applications, measured_on=_described(run, log, where), policy=policy)
    except CalibrationError as error:
        fail(f"{log}: {error}", ExitCode.PROBLEM)
    except OSError as error:
        fail(f"{log}: {error.strerror}", ExitCode.PROBLEM)
    except (StoreError, ValueError) as error:
        raise ConfigurationError(str(error)) from error
    file = out or paths(state_dir).calibration
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, fitted.model_dump_json(indent=1).encode() + b"\n")
    if as_json:
        print_json({"file": str(file), **fitted.model_dump()})
    else:
        _print(fitted, file)


def _described(run: LoggedRun, log: Path, where: str) -> str:
    """Return the run in words."""
    begins = next((task.at_s for task in run.tasks if task.at_s is not None), None)
    day = (
        time.strftime("%Y-%m-%d", time.gmtime(begins))
        if begins is not None
        else "a day that it does not tell"
    )
    scores = sorted(run.scores.values())
    nodes = (
        f"{len(scores)} nodes of {scores[0]:.1f} to {scores[-1]:.1f} GFLOP/s" if scores else "unknown nodes"
    )
    place = f"{where}, " if where else ""
    return f"{place}{len(run.tasks)} tasks on {nodes}, {day} ({log.name}, {software_version()})"


def _print(fitted: Calibration, file: Path) -> None:
    console = Console()
    table = Table("constant", "median", "5 % to 95 %", title=fitted.measured_on, title_justify="left")
    table.add_row("hop, ms", f"{fitted.hop_ms:.2f}", _span(fitted.hops, fitted.hop_ms))
    table.add_row("before the decision, ms", f"{fitted.intake.median:.2f}", _span(fitted.intake))
    table.add_row("work over described", f"{fitted.work.median:.2f}", _span(fitted.work))
    for name, factor in sorted(fitted.work_factors.items()):
        table.add_row(cell(f"  of {name}, times"), f"{factor:.2f}", "")
    console.print(table)
    check = fitted.check
    if check is None:
        console.print("No check: the log tells no times of arrival, no speeds of nodes, or too few tasks.")
    else:
        compared = Table("every other task", "live", "simulated", title=f"Check on {check.tasks} tasks")
        compared.add_row("hit rate", f"{check.live_hit_rate:.1%}", f"{check.simulated_hit_rate:.1%}")
        compared.add_row("response p50, ms", f"{check.live_p50_ms:.0f}", f"{check.simulated_p50_ms:.0f}")
        compared.add_row("response p95, ms", f"{check.live_p95_ms:.0f}", f"{check.simulated_p95_ms:.0f}")
        console.print(compared)
        if check.hit_rate_error > FAR_OFF:
            console.print(
                f"[yellow]note[/] the hit rate is off by {100 * check.hit_rate_error:.0f} points: plans "
                "widen their intervals by that"
            )
    if not fitted.speeds_known:
        console.print("[yellow]note[/] the log tells no speeds of nodes: work is compared with predictions")
    print(f"written to {file}")


def _span(spread: Spread, factor: float = 1.0) -> str:
    return f"{factor * spread.quantile(0.05):.2f} to {factor * spread.quantile(0.95):.2f}"
