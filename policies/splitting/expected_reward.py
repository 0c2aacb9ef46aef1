"""Our own policy: the arm whose expected reward, less what it costs others, is highest.

The paper's bandit knows of a task whether its deadline is above or below one moving average. But more is
known: the response of every arm is predicted, for the nodes on which it would run and behind the work that
waits there. What is not known is how far such a prediction can be trusted. So that is what is learnt
(`Ratios`), and the rest is expectation:

1. **Own reward** of an arm (equation 15): `P (1 + accuracy) / 2 + (1 - P) late accuracy / 2`, where P is the
   probability that actual / predicted is at most slack / predicted, and `late` the learnt share of late tasks
   that are answered after all (a late answer still earns its accuracy).
2. **What it costs others.** Work delays what is placed after it. All waiting that tasks suffer is imposed by
   tasks, so a task of average work imposes on average as long a wait as tasks suffer on average, and one of
   w times the work imposes w times that. Multiplied by the reward that a task loses with each millisecond
   of delay (how much lower the best arm's expectation would be with so much less slack), that is the cost:
   nothing on an idle system, and the decisive term on an overloaded one, where the light arms then win
   even though each task by itself would fare better with a heavy one.
3. **Refusal** only where every arm costs others more than it can bring.
4. **Exploration** is needed only because the ratio of an arm that is not chosen is not seen. With probability
   `EXPLORATION` another arm is taken, but only one that may be better than the best (upper bound) and
   is unlikely to be much worse (lower bound). Where nothing fulfils both, nothing is explored.
"""

from dataclasses import dataclass
from math import sqrt
from random import Random
from typing import Annotated

from pydantic import Field

from messages.base import Milliseconds, NonNegative, Part
from messages.task import TaskFinished
from policies.scoring import reward
from policies.splitting.interface import Arm, Decision, SplitContext, nothing_can_run
from policies.splitting.ratios import WINDOW_TASKS, Ratios
from policies.state import State, StateError, remembered

NEWEST_WEIGHT = 0.1
"""Of the newest decision in the means of wait, work and reward lost by delay."""

EXPLORATION = 0.05
"""Probability of an exploration where one is safe."""

MOST_RISKED = 0.25
"""Expected reward that an exploration may lose, at its lower bound."""

DEVIATIONS = 1.64
"""Of a bound: one-sided 95 %."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """What is expected of an arm."""

    variant: str
    on_time: float
    """Probability of an answer before the deadline."""
    own: float
    """Expected reward of the task."""
    deviation: float
    """Standard deviation of `own`, from what is not known of the probability."""
    cost: float
    """Expected reward that others lose by it."""

    @property
    def net(self) -> float:
        """What everybody together gains."""
        return self.own - self.cost


class _Memory(Part):
    """The saved state."""

    ratios: dict[str, object]
    late: NonNegative
    late_answered: NonNegative
    wait_ms: Milliseconds
    work_ms: Milliseconds
    loss_per_ms: Annotated[float, Field(ge=0, le=1)]


class ExpectedReward:
    """Expected reward under learnt distributions of response time, less the delay caused to others."""

    name = "expected-reward"

    def __init__(self, random: Random) -> None:
        self._random = random
        self._ratios = Ratios()
        self._late = 2.0
        """Tasks that were not answered in time, and how many of them were answered late; begins undecided."""
        self._late_answered = 1.0
        self._wait_ms = 0.0
        """Mean wait behind others, mean work, and mean loss of reward by delay, of recent decisions."""
        self._work_ms = 0.0
        self._loss_per_ms = 0.0

    # --- deciding --------------------------------------------------------------------------------------

    def decide(self, context: SplitContext) -> Decision:
        """See `SplitPolicy`."""
        feasible = context.feasible
        if not feasible:
            return nothing_can_run(context)
        prospects = [self._prospect(context, arm, ms, context.slack_ms) for arm, ms in feasible]
        best = max(prospects, key=lambda prospect: prospect.net)
        scores = {prospect.variant: prospect.net for prospect in prospects}
        self._observe_delay(context, max(0.0, best.net))
        if best.net <= 0:
            reason = f"{_described(best, context)}: others would lose {best.cost:.2f}"
            return Decision(None, reason, scores=scores)
        others = [prospect for prospect in prospects if prospect is not best and _is_safe(prospect, best)]
        chosen, propensity = best, 1 - EXPLORATION if others else 1.0
        if others and self._random.random() < EXPLORATION:
            chosen, propensity = self._random.choice(others), EXPLORATION / len(others)
        self._observe_load(next(arm for arm, _ in feasible if arm.variant == chosen.variant))
        return Decision(
            chosen.variant,
            f"{_described(chosen, context)}{'' if chosen is best else ', tried to learn'}",
            scores=scores,
            propensity=propensity,
            explored=chosen is not best,
        )

    def _prospect(self, context: SplitContext, arm: Arm, predicted_ms: float, slack_ms: float) -> Prospect:
        belief = self._ratios.belief(context, arm)
        on_time = belief.probability(slack_ms / predicted_ms) if predicted_ms > 0 else float(slack_ms > 0)
        in_time = reward(on_time=True, accuracy=arm.accuracy)
        too_late = self._late_answered / self._late * reward(on_time=False, accuracy=arm.accuracy)
        smoothed = (on_time * belief.tasks + 1) / (belief.tasks + 2)  # a probability of 0 or 1 is not certain
        return Prospect(
            arm.variant,
            on_time,
            too_late + on_time * (in_time - too_late),
            (in_time - too_late) * sqrt(smoothed * (1 - smoothed) / (belief.tasks + 3)),
            self._cost(arm),
        )

    def _cost(self, arm: Arm) -> float:
        """Expected reward that others lose by an arm's work."""
        if arm.work_ms is None or self._work_ms <= 0:
            return 0.0
        return arm.work_ms / self._work_ms * self._wait_ms * self._loss_per_ms

    def _observe_delay(self, context: SplitContext, value: float) -> None:
        """What this task would lose by waiting for one more task of average work."""
        delay_ms = self._work_ms
        if delay_ms <= 0:
            return
        later_ms = context.slack_ms - delay_ms
        later = max(self._prospect(context, arm, ms, later_ms).net for arm, ms in context.feasible)
        loss = max(0.0, value - max(0.0, later)) / delay_ms
        self._loss_per_ms += NEWEST_WEIGHT * (min(1.0, loss) - self._loss_per_ms)

    def _observe_load(self, arm: Arm) -> None:
        if arm.work_ms is None or arm.wait_ms is None:
            return
        weight = NEWEST_WEIGHT if self._work_ms > 0 else 1.0
        self._wait_ms += weight * (arm.wait_ms - self._wait_ms)
        self._work_ms += weight * (arm.work_ms - self._work_ms)

    # --- learning --------------------------------------------------------------------------------------

    def learn(self, context: SplitContext, outcome: TaskFinished) -> None:
        """See `SplitPolicy`."""
        if outcome.variant is None:
            return
        self._ratios.learn(context, outcome)
        answered = outcome.status == "answered"
        if not (answered and outcome.on_time):
            fading = 1 - 1 / WINDOW_TASKS
            self._late = fading * self._late + 1
            self._late_answered = fading * self._late_answered + answered

    def state(self) -> State:
        """See `SplitPolicy`."""
        return {
            "ratios": dict(self._ratios.state()),
            "late": self._late,
            "late_answered": self._late_answered,
            "wait_ms": self._wait_ms,
            "work_ms": self._work_ms,
            "loss_per_ms": self._loss_per_ms,
        }

    def restore(self, state: State) -> None:
        """See `SplitPolicy`."""
        memory = remembered(_Memory, state)
        ratios = state["ratios"]
        if not isinstance(ratios, dict) or not 0 <= memory.late_answered <= memory.late or memory.late < 1:
            msg = f"{memory.late_answered} of {memory.late} late tasks answered"
            raise StateError(msg)
        self._ratios.restore(ratios)
        self._late = memory.late
        self._late_answered = memory.late_answered
        self._wait_ms = memory.wait_ms
        self._work_ms = memory.work_ms
        self._loss_per_ms = memory.loss_per_ms


def _is_safe(prospect: Prospect, best: Prospect) -> bool:
    """Whether it may be better than the best and is unlikely to be much worse."""
    margin = DEVIATIONS * prospect.deviation
    return prospect.net + margin > best.net and prospect.net - margin > best.net - MOST_RISKED


def _described(prospect: Prospect, context: SplitContext) -> str:
    return (
        f"{prospect.variant} is in time with probability {prospect.on_time:.2f} "
        f"({max(0.0, context.slack_ms):.0f} ms are left), expected reward {prospect.own:.2f}"
    )
