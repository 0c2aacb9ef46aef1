"""What another split policy would have chosen on logged tasks: the first half of off-policy estimation. Pure.

The policy goes through the log in order. It decides in every logged context and learns from every logged
outcome, whatever the variant. So its choices depend on nothing later in the log, and the logged propensities
are the right weights (`replay_estimates`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from splitplace.messages.task import TaskDecided, TaskFinished, VariantEstimate
from splitplace.policies.scoring import reward_of
from splitplace.policies.splitting.interface import Arm, SplitContext, SplitPolicy


@dataclass(frozen=True, slots=True)
class ReplayedTask:
    """A finished task of the log, and what the policy under test would have chosen for it."""

    context: SplitContext
    logged: str | None
    """The variant that was decided on; None for a refusal."""
    propensity: float
    """Probability of that decision under the policy that took it, in (0, 1]."""
    reward: float
    """Its term in equation 15, in [0, 1]."""
    chosen: str | None
    """What the policy under test chose; None for a refusal, and where it would have waited."""

    @property
    def agrees(self) -> bool:
        """Whether both chose the same."""
        return self.chosen == self.logged


@dataclass(slots=True)
class _Open:
    """A decided task that has not finished."""

    decided: TaskDecided
    context: SplitContext
    chosen: str | None


def replay(events: Iterable[TaskDecided | TaskFinished], policy: SplitPolicy) -> list[ReplayedTask]:
    """Ask the policy about all logged decisions.

    If a task had several attempts, its first decision counts, with its final outcome. Tasks without a
    decision or outcome in the log are left out.

    Args:
        events: decisions and ends, in the order in which they were heard.
        policy: the one under test; it learns.

    Returns:
        The finished tasks, in the order of their ends.
    """
    seen: set[str] = set()
    open_: dict[str, _Open] = {}
    replayed = []
    for event in events:
        if isinstance(event, TaskDecided):
            if event.task not in seen and event.propensity > 0:
                seen.add(event.task)
                context = logged_context(event)
                open_[event.task] = _Open(event, context, policy.decide(context).variant)
        elif (task := open_.pop(event.task, None)) is not None:
            replayed.append(_replayed(task, event))
            if event.attempt == task.decided.attempt:
                policy.learn(task.context, event)
    return replayed


def logged_context(decided: TaskDecided) -> SplitContext:
    """Return the context of a decision from its message."""
    return SplitContext(
        task=decided.task,
        attempt=decided.attempt,
        application=decided.application,
        batch=decided.batch,
        deadline_ms=max(0.0, decided.slack_ms) if decided.deadline_ms is None else decided.deadline_ms,
        slack_ms=decided.slack_ms,
        arms=tuple(map(_arm, decided.alternatives)),
        load_ms=decided.load_ms,
        link_megabytes_per_second=decided.link_megabytes_per_second,
        grace_ms=decided.grace_ms,
    )


def _arm(estimate: VariantEstimate) -> Arm:
    return Arm(
        estimate.variant,
        estimate.kind,
        estimate.accuracy,
        estimate.predicted_ms,
        estimate.note,
        wait_ms=estimate.wait_ms,
        work_ms=estimate.work_ms,
        burden_ms=estimate.work_ms if estimate.burden_ms is None else estimate.burden_ms,
    )


def _replayed(task: _Open, finished: TaskFinished) -> ReplayedTask:
    decided = task.decided
    return ReplayedTask(task.context, decided.variant, decided.propensity, reward_of(finished), task.chosen)
