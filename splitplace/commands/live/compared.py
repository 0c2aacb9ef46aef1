"""Live and simulated runs of the same tasks side by side, with paired tests. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import fmean, stdev

from splitplace.policies.promises import JUDGED_FROM, Kept, largest_of
from splitplace.policies.scoring import mean, mean_reward, quantile

AIM = 0.05
"""Difference between simulated and live hit rate that is aimed at, and between promised and kept."""


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """How a task ended in a run."""

    on_time: bool
    accuracy: float
    """0 without an answer."""
    response_ms: float | None


Run = Mapping[str, TaskEnd]
"""Ends by the task's name."""


@dataclass(frozen=True, slots=True)
class Row:
    """A policy: live over repetitions, and simulated."""

    policy: str
    repetitions: int
    live_hit_rate: float
    live_spread: float | None
    """Standard deviation between repetitions; None with one."""
    live_reward: float
    live_p50_ms: float | None
    live_p95_ms: float | None
    simulated_hit_rate: float
    simulated_p50_ms: float | None
    simulated_p95_ms: float | None
    p_value: float | None
    """McNemar's exact test against the first policy, over all pairs of tasks; None for the first."""

    @property
    def error(self) -> float:
        """Simulated less live hit rate."""
        return self.simulated_hit_rate - self.live_hit_rate


def hit_rate(run: Run) -> float:
    """Return the share of tasks that were answered in time."""
    return mean([end.on_time for end in run.values()]) or 0.0


def mcnemar(pairs: Sequence[tuple[bool, bool]]) -> float:
    """Return the two-sided p-value of the exact test that both succeed equally often; 1 if none differ."""
    only_left = sum(left and not right for left, right in pairs)
    only_right = sum(right and not left for left, right in pairs)
    count, fewer = only_left + only_right, min(only_left, only_right)
    if not count:
        return 1.0
    tail = sum(comb(count, each) for each in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**count))


def compared(live: Mapping[str, Sequence[Run]], simulated: Mapping[str, Sequence[Run]]) -> list[Row]:
    """Return a row for each policy, in order; the first is what others are tested against.

    Args:
        live: repetitions by policy; the n-th of each belong together.
        simulated: runs of the simulator by policy.
    """
    first = next(iter(live.values()))
    rows = []
    for policy, runs in live.items():
        pairs = [
            (ours[task].on_time, theirs[task].on_time)
            for ours, theirs in zip(first, runs, strict=False)
            for task in ours.keys() & theirs.keys()
        ]
        rates = [hit_rate(run) for run in runs]
        ends = [end for run in runs for end in run.values()]
        foretold = [end for run in simulated[policy] for end in run.values()]
        rows.append(
            Row(
                policy,
                len(runs),
                fmean(rates),
                stdev(rates) if len(rates) > 1 else None,
                mean_reward([(end.on_time, end.accuracy) for end in ends]) or 0.0,
                *_responses(ends),
                mean([end.on_time for end in foretold]) or 0.0,
                *_responses(foretold),
                None if runs is first else mcnemar(pairs),
            )
        )
    return rows


def _responses(ends: Sequence[TaskEnd]) -> tuple[float | None, float | None]:
    known = [end.response_ms for end in ends if end.response_ms is not None]
    return quantile(known, 0.5), quantile(known, 0.95)


def page(rows: Sequence[Row], bins: Mapping[str, Sequence[Kept]], facts: Sequence[str], command: str) -> str:
    """Return the page in Markdown.

    Args:
        rows: from `compared`.
        bins: from `promises.reliability`, by policy; none for one that promised nothing.
        facts: how the runs were made, and what a reader must know.
        command: what makes the page anew.
    """
    largest = max(abs(row.error) for row in rows)
    reached = "reached" if largest <= AIM else "**missed**"
    live_order = [row.policy for row in sorted(rows, key=lambda row: -row.live_hit_rate)]
    simulated_order = [row.policy for row in sorted(rows, key=lambda row: -row.simulated_hit_rate)]
    order = "the same" if live_order == simulated_order else "**not the same**"
    return _PAGE.format(
        command=command,
        rows="\n".join(_line(row) for row in rows),
        aim=f"{100 * AIM:.0f}",
        largest=f"{100 * largest:.1f}",
        reached=reached,
        order=order,
        promises=_promises(bins),
        facts="\n".join(f"- {fact}" for fact in facts),
    )


_PAGE = """# Live and simulated

Do simulated and live hit rates agree, for the same tasks on the same nodes?

Made by `{command}`.

| policy | live hit rate | simulated | difference | live reward | live p50 / p95 ms | simulated ms | p |
|---|---|---|---|---|---|---|---|
{rows}

Aim: within {aim} points. Largest difference: {largest} points: {reached}. The order of the policies is
{order}.

p is that of McNemar's exact test against the first policy, on pairs of the same task. Tasks of one run share
its queues, so it is optimistic.

{promises}{facts}
"""


def _promises(bins: Mapping[str, Sequence[Kept]]) -> str:
    promised = {policy: found for policy, found in bins.items() if found}
    if not promised:
        return ""
    lines = [
        f"| {policy} | {each.low:g} | {each.tasks} "
        f"| {each.promised:.3f} | {each.kept:.3f} | {each.error:+.3f} |"
        for policy, found in promised.items()
        for each in found
    ]
    verdicts = [f"{policy}: {_verdict(found)}" for policy, found in promised.items()]
    return _PROMISES.format(
        bins="\n".join(lines), aim=f"{100 * AIM:.0f}", enough=JUDGED_FROM, verdicts="; ".join(verdicts)
    )


def _verdict(bins: Sequence[Kept]) -> str:
    largest = largest_of(bins)
    if largest is None:
        return "no bin has so many"
    return f"{100 * largest:.1f} points, {'reached' if largest <= AIM else '**missed**'}"


_PROMISES = """## In time with probability P

Live decisions that said so, by P. The splitter says it of nodes where the task would end first.

| policy | P from | decisions | promised | came true | difference |
|---|---|---|---|---|---|
{bins}

Aim: within {aim} points in every bin of {enough} decisions or more. Largest difference there: {verdicts}.

## How it was made

"""


def _line(row: Row) -> str:
    spread = "" if row.live_spread is None else f" ± {row.live_spread:.3f}"
    cells = (
        row.policy,
        f"{row.live_hit_rate:.3f}{spread}",
        f"{row.simulated_hit_rate:.3f}",
        f"{row.error:+.3f}",
        f"{row.live_reward:.3f}",
        _pair(row.live_p50_ms, row.live_p95_ms),
        _pair(row.simulated_p50_ms, row.simulated_p95_ms),
        "" if row.p_value is None else f"{row.p_value:.3g}",
    )
    return f"| {' | '.join(cells)} |"


def _pair(p50_ms: float | None, p95_ms: float | None) -> str:
    return "–" if p50_ms is None or p95_ms is None else f"{p50_ms:.0f} / {p95_ms:.0f}"
