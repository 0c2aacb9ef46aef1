"""What would the last hour have been like with other nodes, another policy or deadline? By simulation."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from splitplace.commands.dashboard.on_request import Outcome, Span, Wanted, WhatIf
from splitplace.commands.dashboard.state import DashboardState
from splitplace.commands.plan.command import simulators
from splitplace.commands.plan.sources import chosen_calibration
from splitplace.commands.shared.task_record import TaskRecord
from splitplace.errors import SplitPlaceError
from splitplace.planning.forecast import Figure, Forecast, forecast
from splitplace.planning.kinds import Cluster, from_states, known_kinds
from splitplace.planning.question import DEFAULT_POLICY, Question, check_reach
from splitplace.policies.pairs import parse_policy
from splitplace.simulator.arrivals import Arrival

FEWEST_TASKS = 10
SEEDS = 4
_HOUR_S = 3600.0


class WhatIfError(SplitPlaceError):
    """The question has no honest answer; the message says why, and what to do."""


def questions(
    state: DashboardState, wanted: Wanted, now_s: float, state_dir: Path | None
) -> tuple[Question, Question, Sequence[TaskRecord]]:
    """Return the question as it is, that with the change, and the tasks of the last hour.

    Raises:
        SplitPlaceError: it cannot be asked, or no calibration reaches so far.
        ValueError: the policy is not known.
    """
    calibration = chosen_calibration(None, state_dir)
    records = [
        each
        for each in state.tasks.values()
        if each.finished is not None
        and now_s - each.seen_s <= _HOUR_S
        and each.application in state.applications
    ]
    if len(records) < FEWEST_TASKS:
        raise WhatIfError(
            f"{len(records)} tasks ended in the last hour; a simulation of fewer than {FEWEST_TASKS} says "
            "nothing"
        )
    records.sort(key=lambda each: each.seen_s)
    counts = Counter(each.application for each in records)
    first, *others = [state.applications[name] for name, _ in counts.most_common()]
    cluster = from_states(each.state for each in state.nodes.values() if each.online and each.state)
    unchanged = Question(
        cluster=cluster,
        application=first,
        more=tuple(others),
        calibration=calibration,
        rate=1.0,  # as the deadline, only for tasks that are not given
        deadline_ms=first.default_deadline_ms,
        given=_again(records),
        seeds=SEEDS,
        policy=_policy_of(records),
    )
    policy = wanted.policy or unchanged.policy
    parse_policy(policy)
    given = unchanged.given
    if wanted.deadline_ms is not None:
        given = tuple(replace(each, deadline_ms=wanted.deadline_ms) for each in given)
    changed = replace(unchanged, cluster=_changed(cluster, wanted), policy=policy, given=given)
    for each in (unchanged, changed):
        check_reach(each)
    return unchanged, changed, records


def _policy_of(records: Sequence[TaskRecord]) -> str:
    """Return the policies that decided on the last task and placed it."""
    for each in reversed(records):
        decided, placed = each.last.decided, each.last.placed
        if decided is not None and placed is not None:
            return f"{decided.policy}+{placed.policy}"
    return DEFAULT_POLICY


def _again(records: Sequence[TaskRecord]) -> tuple[Arrival, ...]:
    """Return the tasks as they came."""
    began_s = records[0].seen_s
    return tuple(
        Arrival(
            task=f"sim.{number}",
            at_ms=(each.seen_s - began_s) * 1000,
            application=each.application,
            batch=each.finished.batch,
            deadline_ms=each.finished.deadline_ms,
        )
        for number, each in enumerate(records)
        if each.finished is not None
    )


def _changed(cluster: Cluster, wanted: Wanted) -> Cluster:
    """Return the cluster with the change. Raises WhatIfError."""
    if wanted.remove:
        fewer = cluster.without_one(wanted.remove)
        if fewer is None:
            raise WhatIfError(f"without {wanted.remove} no node is left")
        cluster = fewer
    if wanted.add:
        kinds = known_kinds()
        if wanted.add not in kinds:
            raise WhatIfError(f"there is no kind {wanted.add!r}; known are {', '.join(kinds)}")
        cluster = cluster.with_one_more(wanted.add, kinds[wanted.add])
    return cluster


def answer(
    unchanged: Question,
    changed: Question,
    records: Sequence[TaskRecord],
    simulate: Callable[[Question], Forecast] | None = None,
) -> WhatIf:
    """Simulate both. Takes seconds, in processes of its own. Blocks."""
    if simulate is None:
        with simulators() as simulator:
            before, after = forecast(unchanged, simulator), forecast(changed, simulator)
    else:
        before, after = simulate(unchanged), simulate(changed)
    minutes = (records[-1].seen_s - records[0].seen_s) / 60
    actual = sum(bool(each.finished and each.finished.on_time) for each in records) / len(records)
    return WhatIf(
        tasks=len(records),
        minutes=minutes,
        actual_hit_rate=actual,
        unchanged=_outcome(unchanged, before),
        changed=_outcome(changed, after),
        measured_on=unchanged.calibration.measured_on,
        sentence=_sentence(before.hit_rate, after.hit_rate, actual),
    )


def _outcome(question: Question, found: Forecast) -> Outcome:
    return Outcome(
        nodes=question.cluster.named,
        hit_rate=_span(found.hit_rate),
        p50_ms=_span(found.p50_ms) if found.p50_ms else None,
        p95_ms=_span(found.p95_ms) if found.p95_ms else None,
        reward=found.reward,
        decisions=found.decisions,
    )


def _span(figure: Figure) -> Span:
    return Span(figure.value, figure.low, figure.high)


def _sentence(before: Figure, after: Figure, actual: float) -> str:
    """Say what the change would do, and whether the simulation may be trusted."""
    if after.low > before.high:
        said = "More tasks would be in time"
    elif after.high < before.low:
        said = "Fewer tasks would be in time"
    else:
        said = "It would make no difference that is larger than the uncertainty"
    spans = (
        f"{before.low:.0%} to {before.high:.0%} as it is, {after.low:.0%} to {after.high:.0%} with the change"
    )
    if before.low <= actual <= before.high:
        return f"{said}: {spans}."
    return (
        f"{said}: {spans}. Take it with care: {actual:.0%} were in time in fact, which lies outside of what "
        "is simulated for the system as it is."
    )
