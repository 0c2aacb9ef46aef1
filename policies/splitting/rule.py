"""The most accurate variant that is predicted to be in time."""

from policies.splitting.interface import Arm, Decision, SplitContext, Unlearned, nothing_can_run

SAME_ACCURACY = 0.0001
"""Variants this close in accuracy count as equal: one image of a test set of 10,000.

That takes measured accuracies at their word; chance alone makes larger differences on such a test set.
"""

MARGIN = 1.2
TOLERANCE = 0.25


class Rule(Unlearned):
    """The most accurate variant whose predicted response, times a margin, fits the slack.

    Among equally accurate ones the fastest. Where none fits, the fastest is tried if the prediction need not
    be very wrong for it to be in time; else the task is refused, so that it does not delay those that can be
    in time. On a second attempt the fastest is always tried while any slack remains: the task was promised.
    """

    name = "rule"

    def __init__(self, margin: float = MARGIN, tolerance: float = TOLERANCE) -> None:
        """A rule.

        Args:
            margin: predictions are multiplied by it before they are compared with the slack.
            tolerance: share of the slack by which the fastest variant may exceed it and still be tried.
        """
        self._margin = margin
        self._tolerance = tolerance

    def decide(self, context: SplitContext) -> Decision:
        """See `SplitPolicy`."""
        feasible = context.feasible
        if not feasible:
            return nothing_can_run(context)
        slack_ms = context.slack_ms
        fitting = [(arm, ms) for arm, ms in feasible if ms * self._margin <= slack_ms]
        if fitting:
            return self._most_accurate(fitting, context)
        fastest, fastest_ms = min(feasible, key=lambda entry: entry[1])
        facts = f"fastest is {fastest.variant} with {fastest_ms:.0f} ms, {max(0.0, slack_ms):.0f} ms are left"
        if fastest_ms <= slack_ms * (1 + self._tolerance):
            return Decision(fastest.variant, f"none fits safely, trying: {facts}")
        if context.attempt > 1 and slack_ms > 0:
            return Decision(fastest.variant, f"attempt {context.attempt}, trying all the same: {facts}")
        return Decision(None, f"cannot be in time: {facts}")

    @staticmethod
    def _most_accurate(fitting: list[tuple[Arm, float]], context: SplitContext) -> Decision:
        best = max(arm.accuracy for arm, _ in fitting)
        arm, arm_ms = min(
            ((arm, ms) for arm, ms in fitting if arm.accuracy >= best - SAME_ACCURACY),
            key=lambda entry: entry[1],
        )
        more_accurate = [other for other in context.arms if other.accuracy > arm.accuracy + SAME_ACCURACY]
        reason = f"{arm.accuracy:.1%} accurate in {arm_ms:.0f} ms, {context.slack_ms:.0f} ms are left"
        if more_accurate:
            passed_over = "; ".join(_why_not(other) for other in more_accurate)
            return Decision(arm.variant, f"{reason}; more accurate, but {passed_over}")
        return Decision(arm.variant, reason)


def _why_not(arm: Arm) -> str:
    if arm.predicted_ms is None:
        return f"cannot run: {arm.note}"
    return f"too slow: {arm.variant} with {arm.predicted_ms:.0f} ms"
