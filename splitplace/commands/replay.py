"""`splitplace replay`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from splitplace.commands.shared.options import fail
from splitplace.commands.shared.output import JsonOption, print_json
from splitplace.commands.watch.recording import Log
from splitplace.errors import ConfigurationError, ExitCode
from splitplace.policies.replay import replay
from splitplace.policies.replay_estimates import Interval, NoSupportError, ReplayEstimate, estimate
from splitplace.policies.splitting import SPLIT_POLICIES, SplitName, SplitPolicy, parse_arms, split_policy
from splitplace.policies.state import StateError
from splitplace.storage import state_file as memory

FEW_TASKS = 30
"""Below this effective sample, estimates by weights say next to nothing."""

UNSUPPORTED = 0.05
"""Share of unsupported tasks that causes a warning."""


def command(
    log: Annotated[Path, typer.Argument(help="A file from `splitplace watch --record` or `demo --log`.")],
    *,
    policy: Annotated[str, typer.Option(help="The split policy to estimate, such as rule or mab.")],
    arms: Annotated[
        str, typer.Option(help="Variants it may choose: all, paper, or names or kinds with commas.")
    ] = "all",
    warm_start: Annotated[
        Path | None, typer.Option(help="Saved state to start from: the `splitter.json` of another run.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the policy and of the bootstrap.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Estimate from logged decisions how another split policy would do.

    The estimate is off-policy: it uses the probabilities that the logging policy stated. Where that policy
    never draws, its log says nothing about others, and the command exits with 1.
    """
    tested = _policy(policy, seed, arms, warm_start)
    lines = Log(log)
    try:
        found = estimate(replay(lines.events(), tested), seed=seed)
    except NoSupportError as error:
        fail(f"{log}: {error}", ExitCode.PROBLEM)
    if as_json:
        print_json({"policy": policy, "broken_lines": lines.broken, **asdict(found)})
        return
    console = Console()
    console.print(_table(policy, found))
    for warning in _warnings(found, lines.broken):
        console.print(f"[yellow]note[/] {warning}")


def _policy(name: str, seed: int, arms: str, warm_start: Path | None) -> SplitPolicy:
    """Return the policy to estimate. Raises ConfigurationError."""
    try:
        policy = split_policy(_known(name), seed=seed, arms=parse_arms(arms))
        _restore(policy, warm_start)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    return policy


def _known(policy: str) -> SplitName:
    """Return the name of a split policy. Raises ValueError."""
    for name in SPLIT_POLICIES:
        if name == policy:
            return name
    known = ", ".join(SPLIT_POLICIES)
    raise ValueError(
        f"no split policy {policy!r}, only {known} (a log says nothing about placement policies)"
    )


def _restore(policy: SplitPolicy, path: Path | None) -> None:
    """Load the state that a splitter saved. Raises StateError."""
    if path is None:
        return
    saved = memory.load(path)
    state = saved.get("policy_state")
    if saved.get("policy") != policy.name or not isinstance(state, dict):
        raise StateError(f"{path} is not the saved state of {policy.name}")
    policy.restore(state)


def _table(policy: str, found: ReplayEstimate) -> Table:
    table = Table("mean reward (eq. 15)", "estimate", "95 % interval", title_justify="left")
    table.title = f"{found.tasks} tasks; {policy} agrees with the log on {found.agreement:.0%}"
    rows = {
        "the log": found.logged,
        f"{policy}, doubly robust": found.doubly_robust,
        f"{policy}, inverse propensity": found.self_normalised,
        f"{policy} minus the log": found.gain,
    }
    for name, interval in rows.items():
        table.add_row(name, *_figures(interval))
    return table


def _figures(interval: Interval | None) -> tuple[str, str]:
    if interval is None:
        return "·", "·"
    return f"{interval.value:.3f}", f"{interval.low:.3f} to {interval.high:.3f}"


def _warnings(found: ReplayEstimate, broken: int) -> list[str]:
    """Return what a reader of the estimates must know."""
    warnings = ["decisions are judged with the queues that the logging policy caused, not their own"]
    if found.effective_tasks < FEW_TASKS:
        warnings.append(
            f"the effective sample is {found.effective_tasks:.1f} tasks: inverse propensity says next to "
            "nothing, and the doubly robust estimate is mostly its model"
        )
    if found.unsupported >= UNSUPPORTED:
        warnings.append(
            f"on {found.unsupported:.0%} of the tasks the logging policy could not have chosen as this one "
            "does: there the doubly robust estimate is its model alone, and inverse propensity skips them"
        )
    if found.refused > 0:
        warnings.append(f"{found.refused:.0%} of the tasks would have been refused or made to wait: reward 0")
    if broken:
        warnings.append(f"{broken} lines of the log are not valid and were skipped")
    return warnings
