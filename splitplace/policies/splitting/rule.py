"""The most accurate variant that is predicted to be in time."""

from collections.abc import Mapping

from typing_extensions import override

from splitplace.messages.task import TaskFinished
from splitplace.policies.splitting.interface import Arm, Decision, SplitContext, SplitPolicy, nothing_can_run
from splitplace.policies.splitting.ratios import Ratios
from splitplace.policies.state import State

SAME_ACCURACY = 0.0001
"""Variants this close in accuracy count as equal: one image of a test set of 10,000.

That takes measured accuracies at their word; chance alone makes larger differences on such a test set.
"""

SAFE_QUANTILE = 0.95
"""A variant fits where it is in time with this probability."""

MARGIN_TASKS = 20.0
"""Weight of the margin against observations, in tasks: a quantile of .95 takes 20 to be seen."""

MARGIN = 1.2
TOLERANCE = 0.25


class Rule(SplitPolicy):
    """The most accurate variant whose predicted response fits the slack in 95 of 100 cases.

    The predicted 95th percentile is the prediction times a factor. That begins as the margin and approaches
    the 95th percentile of actual / predicted of the application and variant under such a load as tasks end.

    Among equally accurate ones the fastest. Where none fits, the fastest is tried if the prediction need not
    be very wrong for it to be in time; else the task is refused, so that it does not delay those that can be
    in time. On a second attempt the fastest is always tried while any slack remains: the task was promised.
    """

    name = "rule"

    def __init__(self, margin: float = MARGIN, tolerance: float = TOLERANCE) -> None:
        """Begin with the margin.

        Args:
            margin: 95th percentile of actual / predicted before anything was learnt.
            tolerance: share of the slack by which the fastest variant may exceed it and still be tried.
        """
        self._margin = margin
        self._tolerance = tolerance
        self._ratios = Ratios()

    @override
    def decide(self, context: SplitContext) -> Decision:
        feasible = context.feasible
        if not feasible:
            return nothing_can_run(context)
        slack_ms = context.slack_ms
        safe_ms = {arm.variant: ms * self._factor(context, arm) for arm, ms in feasible}
        fitting = [(arm, ms) for arm, ms in feasible if safe_ms[arm.variant] <= slack_ms]
        if fitting:
            return self._most_accurate(fitting, context, safe_ms)
        fastest, fastest_ms = min(feasible, key=lambda entry: entry[1])
        facts = f"fastest is {fastest.variant} with {fastest_ms:.0f} ms, {max(0.0, slack_ms):.0f} ms are left"
        if fastest_ms <= slack_ms * (1 + self._tolerance):
            return Decision(fastest.variant, f"none fits safely, trying: {facts}")
        if context.attempt > 1 and slack_ms > 0:
            return Decision(fastest.variant, f"attempt {context.attempt}, trying all the same: {facts}")
        return Decision(None, f"cannot be in time: {facts}")

    @override
    def learn(self, context: SplitContext, outcome: TaskFinished) -> None:
        self._ratios.learn(context, outcome)

    @override
    def state(self) -> State:
        return self._ratios.state()

    @override
    def restore(self, state: State) -> None:
        self._ratios.restore(state)

    def _factor(self, context: SplitContext, arm: Arm) -> float:
        """Return the factor from a prediction to its 95th percentile."""
        belief = self._ratios.belief(context, arm)
        learnt = belief.quantile(SAFE_QUANTILE) if belief.own_tasks > 0 else self._margin
        share = belief.own_tasks / (belief.own_tasks + MARGIN_TASKS)
        return self._margin + share * (learnt - self._margin)

    @staticmethod
    def _most_accurate(
        fitting: list[tuple[Arm, float]], context: SplitContext, safe_ms: Mapping[str, float]
    ) -> Decision:
        best = max(arm.accuracy for arm, _ in fitting)
        arm, arm_ms = min(
            ((arm, ms) for arm, ms in fitting if arm.accuracy >= best - SAME_ACCURACY),
            key=lambda entry: entry[1],
        )
        more_accurate = [other for other in context.arms if other.accuracy > arm.accuracy + SAME_ACCURACY]
        reason = f"{arm.accuracy:.1%} accurate in {arm_ms:.0f} ms, {context.slack_ms:.0f} ms are left"
        if more_accurate:
            passed_over = "; ".join(_why_not(other, safe_ms) for other in more_accurate)
            return Decision(arm.variant, f"{reason}; more accurate, but {passed_over}")
        return Decision(arm.variant, reason)


def _why_not(arm: Arm, safe_ms: Mapping[str, float]) -> str:
    if arm.predicted_ms is None:
        return f"cannot run: {arm.note}"
    safe = f"{SAFE_QUANTILE:.0%} within {safe_ms[arm.variant]:.0f} ms"
    return f"too slow: {arm.variant} with {arm.predicted_ms:.0f} ms, {safe}"
