"""Our own policy: the arm whose expected reward, less what it costs others, is highest.

The paper's bandit sees one bit of a task: whether its deadline is above or below a moving average. More is
known: a prediction of every arm's response, for the nodes on which it would run and the backlog there.
Unknown is how reliable such a prediction is. So that is learnt (`Ratios`), and the rest is expectation:

1. **Own reward** of an arm (equation 15): `P (1 + accuracy) / 2 + (1 - P) late accuracy / 2`, where P is the
   probability that actual / predicted is at most slack / predicted. `late` is the probability that a task
   that is not in time gets an answer after all (which still earns its accuracy): within the grace, by the
   same distribution; with unlimited grace, the learnt share of late tasks that get one.
2. **What it costs others**: its work times the price of work (`Congestion`). It is 0 on an
   idle system. On an overloaded one it decides: light arms win, although each task by itself would fare
   better with a heavy one.
3. **Refusal** only if every arm costs others more than it can earn, and others are there now. Where another
   arm only lacks memory that tasks hold, the task waits for it first.
4. **What is said** of P is corrected by how often the same came true before (`Promises`); decisions use it as
   it is.
5. **Exploration** is needed only because the ratio of an arm that is not chosen stays unknown. With
   probability `EXPLORATION` another arm is chosen, but only one that may be better than the best (upper
   bound) and is unlikely to be much worse (lower bound).
"""

from dataclasses import dataclass
from math import sqrt
from random import Random
from typing import Annotated, Self

from pydantic import Field, model_validator
from typing_extensions import override

from splitplace.messages.base import NonNegative, Part
from splitplace.messages.task import TaskFinished
from splitplace.policies.promises import Promises
from splitplace.policies.scoring import reward
from splitplace.policies.splitting.congestion import Congestion
from splitplace.policies.splitting.interface import (
    Arm,
    Decision,
    Pending,
    SplitContext,
    SplitPolicy,
    nothing_can_run,
)
from splitplace.policies.splitting.ratios import WINDOW_TASKS, Ratios, load_of
from splitplace.policies.state import Json, State, validated_state

EXPLORATION = 0.05
"""Probability of an exploration where one is safe."""

MOST_RISKED = 0.25
"""Expected reward that an exploration may lose, at its lower bound."""

DEVIATIONS = 1.64
"""Standard deviations between the mean and a bound: one-sided 95 %."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """What is expected of an arm."""

    variant: str
    on_time: float
    """Probability of an answer before the deadline."""
    at_stake: float
    """Reward that depends on it."""
    own_reward: float
    """Expected reward of the task itself."""
    deviation: float
    """Standard deviation of `own_reward`, from the uncertainty of the probability."""
    cost: float
    """Expected reward that others lose by it."""

    @property
    def net(self) -> float:
        """Expected reward of all tasks together."""
        return self.own_reward - self.cost


class _SavedState(Part):
    """The saved state."""

    ratios: dict[str, Json]
    promises: dict[str, Json] = Field(default_factory=dict)
    late: Annotated[NonNegative, Field(ge=1)]
    late_answered: NonNegative
    congestion: dict[str, Json]

    @model_validator(mode="after")
    def _has_no_more_answers_than_tasks(self) -> Self:
        if self.late_answered > self.late:
            raise ValueError(f"{self.late_answered} of {self.late} late tasks answered")
        return self


class ExpectedReward(SplitPolicy):
    """Expected reward under learnt distributions of response time, less the delay caused to others."""

    name = "expected-reward"
    reads_waits = True

    def __init__(self, random: Random) -> None:
        self._random = random
        self._ratios = Ratios()
        self._late = 2.0
        """Tasks that were not answered in time, and how many of them were answered late; begins undecided."""
        self._late_answered = 1.0
        self._congestion = Congestion()
        self._promises = Promises()
        self._said = Pending[float]()
        """Probabilities of the decided tasks, before their correction."""

    # --- deciding --------------------------------------------------------------------------------------

    @override
    def decide(self, context: SplitContext) -> Decision:
        feasible = context.feasible
        if not feasible:
            return nothing_can_run(context)
        price = self._congestion.price(context.load_ms)
        prospects = {arm.variant: self._prospect(context, arm, ms, price) for arm, ms in feasible}
        best = max(prospects.values(), key=lambda prospect: prospect.net)
        scores = {variant: prospect.net for variant, prospect in prospects.items()}
        if best.net <= 0 and load_of(context, context.slack_ms) > 0:
            promised = self._promises.corrected(context.application, best.on_time)
            reason = f"{_described(best, context, promised)}: others would lose {best.cost:.2f}"
            can_wait = any(arm.temporary for arm in context.arms)
            return Decision(None, reason, can_wait=can_wait, scores=scores)
        others = [
            prospect for prospect in prospects.values() if prospect is not best and _is_safe(prospect, best)
        ]
        chosen, propensity = best, 1 - EXPLORATION if others else 1.0
        if others and self._random.random() < EXPLORATION:
            chosen, propensity = self._random.choice(others), EXPLORATION / len(others)
        self._observe(context, next(arm for arm, _ in feasible if arm.variant == chosen.variant), chosen)
        self._said.put(context.task, chosen.on_time)
        promised = self._promises.corrected(context.application, chosen.on_time)
        return Decision(
            chosen.variant,
            f"{_described(chosen, context, promised)}{'' if chosen is best else ', tried to learn'}",
            scores=scores,
            propensity=propensity,
            explored=chosen is not best,
            promised=promised,
        )

    def _prospect(self, context: SplitContext, arm: Arm, predicted_ms: float, price: float) -> Prospect:
        belief = self._ratios.belief(context, arm)
        on_time = (
            belief.probability(context.slack_ms / predicted_ms)
            if predicted_ms > 0
            else float(context.slack_ms > 0)
        )
        late_share = self._late_answered / self._late
        if context.grace_ms is not None and predicted_ms > 0:
            answered = belief.probability((context.slack_ms + context.grace_ms) / predicted_ms)
            late_share = (answered - on_time) / (1 - on_time) if on_time < 1 else 0.0
        too_late = late_share * reward(on_time=False, accuracy=arm.accuracy)
        at_stake = reward(on_time=True, accuracy=arm.accuracy) - too_late
        smoothed = (on_time * belief.tasks + 1) / (belief.tasks + 2)  # a probability of 0 or 1 is not certain
        return Prospect(
            arm.variant,
            on_time,
            at_stake,
            too_late + on_time * at_stake,
            at_stake * sqrt(smoothed * (1 - smoothed) / (belief.tasks + 3)),
            (arm.burden_ms or 0.0) * price,
        )

    def _observe(self, context: SplitContext, arm: Arm, chosen: Prospect) -> None:
        """Count the task's own work, and the reward it is expected to lose to the work of others.

        Others count as the cause if the task is predicted to be in time without waiting.
        """
        if arm.burden_ms is None or arm.wait_ms is None or arm.predicted_ms is None:
            return
        in_time_alone = arm.predicted_ms - arm.wait_ms <= context.slack_ms
        lost = (1 - chosen.on_time) * chosen.at_stake if in_time_alone else 0.0
        self._congestion.observe(context.load_ms, arm.burden_ms, lost)

    # --- learning --------------------------------------------------------------------------------------

    @override
    def learn(self, context: SplitContext, outcome: TaskFinished) -> None:
        said = self._said.take(context.task)
        if outcome.variant is None:
            return
        if said is not None:
            in_time = outcome.status == "answered" and outcome.on_time
            self._promises.learn(context.application, said, came_true=in_time)
        self._ratios.learn(context, outcome)
        answered = outcome.status == "answered"
        if not (answered and outcome.on_time):
            fading = 1 - 1 / WINDOW_TASKS
            self._late = fading * self._late + 1
            self._late_answered = fading * self._late_answered + answered

    @override
    def state(self) -> State:
        return {
            "ratios": dict(self._ratios.state()),
            "promises": dict(self._promises.state()),
            "late": self._late,
            "late_answered": self._late_answered,
            "congestion": dict(self._congestion.state()),
        }

    @override
    def restore(self, state: State) -> None:
        saved = validated_state(_SavedState, state)
        self._ratios.restore(saved.ratios)
        self._promises.restore(saved.promises)
        self._congestion.restore(saved.congestion)
        self._late = saved.late
        self._late_answered = saved.late_answered


def _is_safe(prospect: Prospect, best: Prospect) -> bool:
    """Whether a prospect may be better than the best and is unlikely to be much worse."""
    margin = DEVIATIONS * prospect.deviation
    return prospect.net + margin > best.net and prospect.net - margin > best.net - MOST_RISKED


def _described(prospect: Prospect, context: SplitContext, promised: float) -> str:
    return (
        f"{prospect.variant} is in time with probability {promised:.2f} "
        f"({max(0.0, context.slack_ms):.0f} ms are left), expected reward {prospect.own_reward:.2f}"
    )
