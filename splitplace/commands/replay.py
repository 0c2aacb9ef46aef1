"""`splitplace replay`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from splitplace.commands.shared.exit_codes import ExitCode
from splitplace.commands.shared.options import fail
from splitplace.commands.watching.recording import Log
from splitplace.policies.replay import replay
from splitplace.policies.replay_estimates import Interval, NoSupportError, ReplayEstimate, estimate
from splitplace.policies.splitting import SPLIT_POLICIES, SplitName, SplitPolicy, parse_arms, split_policy
from splitplace.policies.state import StateError
from splitplace.storage import state_file as memory

FEW_TASKS = 30
"""With an effective sample below this, estimates by weights are next to nothing."""

UNSUPPORTED = 0.05
"""From this share of unsupported tasks on there is a warning."""


def command(
    log: Annotated[Path, typer.Argument(help="What splitplace watch --record or demo --log has written.")],
    *,
    policy: Annotated[str, typer.Option(help="The split policy to estimate, such as rule or mab.")],
    arms: Annotated[str, typer.Option(help="What it may choose: all, paper, or variants or kinds.")] = "all",
    warm_start: Annotated[
        Path | None, typer.Option(help="What it had learnt before: the splitter.json of another run.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the policy and of the bootstrap.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the estimates there; - prints them instead.")
    ] = None,
) -> None:
    """Estimate from logged decisions how another split policy would have fared.

    Off-policy: by the probabilities that the logging policy stated. Where it never draws, its log says
    nothing about other policies, and this exits with 1.
    """
    try:
        tested = split_policy(_known(policy), seed=seed, arms=parse_arms(arms))
        _restore(tested, warm_start)
    except ValueError as error:
        fail(str(error), ExitCode.USAGE)
    lines = Log(log)
    try:
        found = estimate(replay(lines.events(), tested), seed=seed)
    except NoSupportError as error:
        fail(f"{log}: {error}", ExitCode.PROBLEM)
    except OSError as error:
        fail(f"{log}: {error.strerror}", ExitCode.PROBLEM)
    text = json.dumps({"policy": policy, "broken_lines": lines.broken, **asdict(found)}, indent=2)
    if str(json_file) == "-":
        print(text)
        return
    if json_file is not None:
        json_file.write_text(f"{text}\n", encoding="utf-8")
    console = Console()
    console.print(_table(policy, found))
    for warning in _warnings(found, lines.broken):
        console.print(f"[yellow]note[/] {warning}")


def _known(policy: str) -> SplitName:
    """The name of a split policy. Raises ValueError."""
    for name in SPLIT_POLICIES:
        if name == policy:
            return name
    known = ", ".join(SPLIT_POLICIES)
    raise ValueError(f"there is no split policy {policy!r}, only {known}; of placements a log tells nothing")


def _restore(policy: SplitPolicy, path: Path | None) -> None:
    """Takes up what a splitter has saved. Raises StateError."""
    if path is None:
        return
    saved = memory.load(path)
    state = saved.get("policy_state")
    if saved.get("policy") != policy.name or not isinstance(state, dict):
        raise StateError(f"{path} is no memory of {policy.name}")
    policy.restore(state)


def _table(policy: str, found: ReplayEstimate) -> Table:
    table = Table("mean reward (eq. 15)", "estimate", "95 % interval", title_justify="left")
    table.title = f"{found.tasks} tasks; {policy} agrees with the log on {found.agreement:.0%}"
    rows = {
        "the log": found.logged,
        f"{policy}, doubly robust": found.doubly_robust,
        f"{policy}, inverse propensity": found.self_normalised,
        f"{policy} less the log": found.gain,
    }
    for name, interval in rows.items():
        table.add_row(name, *_figures(interval))
    return table


def _figures(interval: Interval | None) -> tuple[str, str]:
    if interval is None:
        return "·", "·"
    return f"{interval.value:.3f}", f"{interval.low:.3f} to {interval.high:.3f}"


def _warnings(found: ReplayEstimate, broken: int) -> list[str]:
    """What must be known to read the estimates rightly."""
    warnings = ["every decision is judged in the queues that the logging policy left, not in its own"]
    if found.effective_tasks < FEW_TASKS:
        warnings.append(
            f"the effective sample is {found.effective_tasks:.1f} tasks: inverse propensity tells next to "
            "nothing, and the doubly robust estimate is mostly its model"
        )
    if found.unsupported >= UNSUPPORTED:
        warnings.append(
            f"on {found.unsupported:.0%} of the tasks the logging policy could not have chosen what this one "
            "does: there, the doubly robust estimate is its model alone; inverse propensity leaves them out"
        )
    if found.refused > 0:
        warnings.append(f"{found.refused:.0%} of the tasks would have been refused or made to wait: reward 0")
    if broken:
        warnings.append(f"{broken} lines of the log are not valid and were passed over")
    return warnings
