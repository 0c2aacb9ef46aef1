"""What another split policy would have earned on the last tasks, by replay. Pure."""

from collections.abc import Iterable, Sequence

from splitplace.commands.dashboard.on_request import ReplayView, Span
from splitplace.commands.shared.task_record import TaskRecord
from splitplace.messages.task import TaskDecided, TaskFinished
from splitplace.policies.replay import replay
from splitplace.policies.replay_estimates import Interval, NoSupportError, estimate
from splitplace.policies.splitting import SPLIT_POLICIES, SplitName, split_policy

POLICIES = tuple(SPLIT_POLICIES)
"""Names of the policies that may be asked about."""


def known_policy(name: str) -> SplitName | None:
    """Return the name of a split policy; None if there is none."""
    return next((known for known in SPLIT_POLICIES if known == name), None)


def events_of(records: Iterable[TaskRecord]) -> list[TaskDecided | TaskFinished]:
    """Return decisions and ends of tasks, a task after the other in the order in which they came."""
    events: list[TaskDecided | TaskFinished] = []
    for record in records:
        decided = [each.decided for _, each in sorted(record.attempts.items()) if each.decided is not None]
        if decided and record.finished is not None:
            events += [decided[0], record.finished]
    return events


def replayed(events: Sequence[TaskDecided | TaskFinished], name: SplitName) -> ReplayView:
    """Estimate what another policy would have earned on these tasks. Takes a second or so."""
    tasks = replay(events, split_policy(name))
    try:
        found = estimate(tasks, replicates=200)
    except NoSupportError as error:
        return ReplayView(name, len(tasks), why_not=str(error))
    return ReplayView(
        name,
        found.tasks,
        logged=_span(found.logged),
        other=_span(found.doubly_robust),
        gain=_span(found.gain),
        agreement=found.agreement,
    )


def _span(interval: Interval) -> Span:
    return Span(interval.value, interval.low, interval.high)
