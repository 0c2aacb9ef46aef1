"""The paper's contextual multi-armed bandit: equations 2 to 9 and algorithm 1.

Where the paper leaves a choice, it is read as follows:

* **Interval.** The equations are written for the tasks that leave in one scheduling interval. Here an
  interval ends whenever `interval_tasks` tasks have left: 1 where decisions are taken as tasks come; the
  arrival rate (6) reproduces the paper's averaging.
* **Deadline and response.** `sla` is what is left of the deadline when the decision is taken, and `r` runs
  from then: the same as in the paper for a first attempt, and still right for a task that waited or failed.
* **Equation 2.** The weight phi = .9 belongs to the newest observation, as printed, and R starts at 0, as in
  figure 6(a). R follows the layer split, or the most accurate arm of an application that has none. Of a task
  without an answer only a lower bound of `r` is known: it can raise R, not lower it.
* **Contexts.** R belongs to an application, Q and N to the whole system, as their indices say. The context
  of a task is the one at its decision; it is not computed again when the task ends.
* **Equations 3 and 4.** A task without an answer earns 0. An interval in which no task left with a context
  and a decision gives no O for them, and Q stays.
* **Equation 5.** The paper does not say what gamma is: .1. Without one (`None`), Q is the sample mean, for
  which theory guarantees logarithmic regret where nothing changes. In training Q is the sample mean until
  gamma weighs more (10 intervals). Rising from 0 by a tenth each time, the Q of the arm that is chosen less
  often would stay behind.
* **Equations 7 and 8.** O^MAB takes the latest O of each context and decision, 0 where there was none yet.
  With more than two arms the 1/4 becomes 1/(2 x arms). No O exceeds 1, so rho passes every O^MAB after
  24 steps or so: epsilon ends at .9^24 = .0797 with the paper's accuracies, however long the training is.
* **Equation 9.** t counts intervals. N counts decisions when they are taken, so that an arm whose first
  outcome is still awaited does not count as untried; untried arms come first, most accurate before others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, log, sqrt
from random import Random
from typing import Annotated, Literal, NamedTuple

from pydantic import Field
from typing_extensions import override

from splitplace.messages.base import Count, Milliseconds, Name, Part, Ratio
from splitplace.messages.task import TaskFinished
from splitplace.policies.scoring import accuracy_of
from splitplace.policies.splitting.interface import (
    Arm,
    Decision,
    Pending,
    SplitContext,
    SplitPolicy,
    nothing_can_run,
)
from splitplace.policies.state import Json, State, validated_state

REFERENCE = "layer"
"""The kind of arm whose response time tells a high deadline from a low one."""

Situation = Literal["high", "low"]
"""The two contexts: the deadline is at least R, or below it."""


@dataclass(frozen=True, slots=True)
class MabParameters:
    """The symbols of the paper, with its values."""

    phi: float = 0.9
    """Equation 2: weight of the newest response."""
    gamma: float | None = 0.1
    """Equation 5: weight of the newest reward; None: the sample mean."""
    k: float = 0.1
    """Equations 7 and 8: decay of epsilon and growth of rho."""
    c: float = 0.5
    """Equation 9: exploration factor."""
    sla_weight: float = 1.0
    accuracy_weight: float = 1.0
    """Equations 3 and 4: weights of the two objectives; only their ratio matters."""
    interval_tasks: int = 1
    """Tasks that leave in one interval."""


@dataclass(slots=True)
class _Cell:
    """One context and decision."""

    q: float = 0.0
    """Reward estimate Q."""
    n: int = 0
    """Decision count N."""
    o: float = 0.0
    """O of the last interval that had one."""
    samples: int = 0
    """Rewards that went into Q."""
    rewards: list[float] = field(default_factory=list)
    """Rewards of the tasks that left in this interval."""


class _Choice(NamedTuple):
    variant: str
    reason: str
    scores: Mapping[str, float]
    propensity: float


class _CellMemory(Part):
    q: Ratio
    n: Count
    o: Ratio
    samples: Count


class _SavedState(Part):
    """The saved state."""

    t: Count
    epsilon: Ratio
    rho: Annotated[float, Field(gt=0, le=1e6)]
    response_ms: dict[Name, Milliseconds]
    high: dict[Name, _CellMemory]
    low: dict[Name, _CellMemory]


class Mab(SplitPolicy):
    """Two bandits: one for deadlines above the expected response of the layer split, one for those below."""

    name = "mab"

    def __init__(
        self, random: Random, *, training: bool = False, parameters: MabParameters | None = None
    ) -> None:
        """Begin a bandit without experience.

        Args:
            random: draws explorations while training.
            training: whether to explore by equations 6 to 8 instead of equation 9.
            parameters: default those of the paper.
        """
        self._random = random
        self._training = training
        self._parameters = parameters or MabParameters()
        self._t = 0
        self._left = 0
        self._epsilon = 1.0
        self._rho = self._parameters.k
        self._response_ms: dict[str, float] = {}
        self._cells: dict[Situation, dict[str, _Cell]] = {"high": {}, "low": {}}
        self._pending: Pending[tuple[Situation, str]] = Pending()

    @property
    def epsilon(self) -> float:
        """Probability of a random decision while training."""
        return self._epsilon

    @property
    def rho(self) -> float:
        """Reward threshold of equations 7 and 8."""
        return self._rho

    def response_ms(self, application: str) -> float:
        """Return R of equation 2."""
        return self._response_ms.get(application, 0.0)

    def estimates(self, situation: Situation) -> Mapping[str, tuple[float, int]]:
        """Return Q and N by variant."""
        return {variant: (cell.q, cell.n) for variant, cell in self._cells[situation].items()}

    # --- deciding --------------------------------------------------------------------------------------

    @override
    def decide(self, context: SplitContext) -> Decision:
        """Choose by equation 6 while training, else by equation 9."""
        arms = sorted((arm for arm, _ in context.feasible), key=lambda arm: -arm.accuracy)
        if not arms:
            return nothing_can_run(context)
        expected_ms = self.response_ms(context.application)
        situation: Situation = "high" if context.slack_ms >= expected_ms else "low"
        cells = {arm.variant: self._cell(situation, arm.variant) for arm in arms}
        choice = self._epsilon_greedy(cells) if self._training else self._upper_bound(cells)
        cells[choice.variant].n += 1
        self._pending.put(context.task, (situation, choice.variant))
        relation = "at least" if situation == "high" else "below"
        return Decision(
            choice.variant,
            f"{choice.reason}; {context.slack_ms:.0f} ms left, {relation} the {expected_ms:.0f} ms expected",
            scores=choice.scores,
            propensity=choice.propensity,
            explored=cells[choice.variant].q < max(cell.q for cell in cells.values()),
        )

    def _epsilon_greedy(self, cells: Mapping[str, _Cell]) -> _Choice:
        scores = {variant: cell.q for variant, cell in cells.items()}
        best = max(scores, key=scores.__getitem__)
        if self._random.random() < self._epsilon:
            chosen, reason = self._random.choice(list(cells)), "drawn to learn"
        else:
            chosen, reason = best, "highest reward so far"
        propensity = self._epsilon / len(cells) + (1 - self._epsilon) * (chosen == best)
        return _Choice(chosen, reason, scores, propensity)

    def _upper_bound(self, cells: Mapping[str, _Cell]) -> _Choice:
        log_t = log(max(1, self._t))
        scores = {
            variant: cell.q + self._parameters.c * sqrt(log_t / cell.n) if cell.n else inf
            for variant, cell in cells.items()
        }
        return _Choice(max(scores, key=scores.__getitem__), "highest upper bound of its reward", scores, 1.0)

    # --- learning --------------------------------------------------------------------------------------

    @override
    def learn(self, context: SplitContext, outcome: TaskFinished) -> None:
        """Update by equations 2 to 5, 7 and 8. A task that was not decided here updates only R."""
        pending = self._pending.take(context.task)
        variant = outcome.variant or (pending[1] if pending else None)
        if variant is None:
            return
        self._learn_response(context, outcome, variant)
        if pending is None:
            return
        self._cell(pending[0], variant).rewards.append(self._reward(outcome))
        self._left += 1
        if self._left >= self._parameters.interval_tasks:
            self._end_interval()

    def _learn_response(self, context: SplitContext, outcome: TaskFinished, variant: str) -> None:
        """Update R by equation 2."""
        if not any(arm.variant == variant for arm in _references(context.arms)):
            return
        response_ms = max(0.0, outcome.response_ms - (context.deadline_ms - context.slack_ms))
        before = self.response_ms(context.application)
        if outcome.status != "answered":
            response_ms = max(response_ms, before)
        phi = self._parameters.phi
        self._response_ms[context.application] = phi * response_ms + (1 - phi) * before

    def _reward(self, outcome: TaskFinished) -> float:
        """Return a task's term in equations 3 and 4, in [0, 1]."""
        on_time = outcome.status == "answered" and outcome.on_time
        sla_weight, accuracy_weight = self._parameters.sla_weight, self._parameters.accuracy_weight
        total = sla_weight * on_time + accuracy_weight * accuracy_of(outcome)
        return total / (sla_weight + accuracy_weight)

    def _end_interval(self) -> None:
        self._t += 1
        self._left = 0
        cells = [cell for cells in self._cells.values() for cell in cells.values()]
        for cell in cells:
            if cell.rewards:
                cell.samples += len(cell.rewards)
                gamma = self._parameters.gamma
                mean = len(cell.rewards) / cell.samples
                weight = mean if gamma is None else max(gamma, mean) if self._training else gamma
                cell.o = sum(cell.rewards) / len(cell.rewards)  # equations 3 and 4
                cell.q += weight * (cell.o - cell.q)  # equation 5
                cell.rewards.clear()
        variants = {variant for cells_of in self._cells.values() for variant in cells_of}
        overall = sum(cell.o for cell in cells) / (2 * len(variants))
        if self._training and overall > self._rho:
            self._epsilon *= 1 - self._parameters.k  # equation 7
            self._rho *= 1 + self._parameters.k  # equation 8

    def _cell(self, situation: Situation, variant: str) -> _Cell:
        return self._cells[situation].setdefault(variant, _Cell())

    # --- memory ----------------------------------------------------------------------------------------

    @override
    def state(self) -> State:
        """Return the state, without the interval that has not ended."""
        cells: dict[Situation, Json] = {
            situation: {
                variant: {"q": cell.q, "n": cell.n, "o": cell.o, "samples": cell.samples}
                for variant, cell in cells_of.items()
            }
            for situation, cells_of in self._cells.items()
        }
        return {
            "t": self._t,
            "epsilon": self._epsilon,
            "rho": self._rho,
            "response_ms": dict(self._response_ms),
            "high": cells["high"],
            "low": cells["low"],
        }

    @override
    def restore(self, state: State) -> None:
        """Begin from a saved state, whether training or running."""
        memory = validated_state(_SavedState, state)
        self._t = memory.t
        self._epsilon = memory.epsilon
        self._rho = memory.rho
        self._response_ms = dict(memory.response_ms)
        self._cells = {"high": _cells(memory.high), "low": _cells(memory.low)}


def _cells(memory: Mapping[str, _CellMemory]) -> dict[str, _Cell]:
    return {name: _Cell(cell.q, cell.n, cell.o, cell.samples) for name, cell in memory.items()}


def _references(arms: tuple[Arm, ...]) -> list[Arm]:
    """Return the arms whose response is R: the layer splits, else the most accurate arm."""
    return [arm for arm in arms if arm.kind == REFERENCE] or [max(arms, key=lambda arm: arm.accuracy)]
