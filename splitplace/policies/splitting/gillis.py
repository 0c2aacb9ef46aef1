"""`gillis`: layer split or compression, chosen by reinforcement learning."""

from dataclasses import dataclass
from math import log2
from random import Random
from typing import Annotated

from pydantic import Field
from typing_extensions import override

from splitplace.messages.application import VariantKind
from splitplace.messages.base import Name, Part
from splitplace.messages.task import TaskFinished
from splitplace.policies.scoring import reward_of
from splitplace.policies.splitting.interface import (
    Decision,
    Pending,
    SplitContext,
    SplitPolicy,
    nothing_can_run,
)
from splitplace.policies.state import State, validated_state

LEARNING_RATE = 0.1
DISCOUNT = 0.5
"""Weight of what the next task of the application can still earn.

A decision loads the nodes only for the next few tasks, so the horizon is short.
"""

FIRST_VALUE = 1 / (1 - DISCOUNT)
"""Value of an untried action: the most that can be earned, so that it is tried until it is known.

Values that rise from 0 would leave behind the action that is chosen less often.
"""

FIRST_EPSILON = 1.0
LAST_EPSILON = 0.05
DECAY = 0.98
"""Exploration shrinks by this with each outcome."""

LOAD_SHARES = (0.1, 0.3, 1.0)
"""Borders of the load bins: mean backlog as a share of the slack."""

_MOST_OCTAVES = 40


_Value = Annotated[float, Field(ge=0, le=FIRST_VALUE)]


class _SavedState(Part):
    """The saved state: Q by application, state and variant."""

    epsilon: Annotated[float, Field(ge=LAST_EPSILON, le=FIRST_EPSILON)]
    q: dict[Name, dict[str, dict[Name, _Value]]]


@dataclass(slots=True)
class _Step:
    """A decision."""

    situation: str
    variant: str
    following: str | None = None
    """The state in which the application's next decision was taken."""


class Gillis(SplitPolicy):
    """Tabular Q-learning over load, slack and batch, with epsilon-greedy exploration that fades.

    Gillis (Yu et al. 2021) partitions models over serverless functions; a policy-gradient learner picks
    partitions that keep the deadline at least cost. The paper at hand keeps of it "either model-compression
    or layer-splitting based on the application SLA demands", decided by "a reinforcement-learning model which
    continuously adapts". So two actions, the reward of equation 15, and as state what such a learner
    sees: backlog, slack, batch size, in bins of an octave (load: `LOAD_SHARES`), for each
    application by itself. The next state is the one in which the application's next task is decided.
    """

    name = "gillis"
    kinds: frozenset[VariantKind] = frozenset({"layer", "compressed"})

    def __init__(self, random: Random) -> None:
        self._random = random
        self._epsilon = FIRST_EPSILON
        self._q: dict[str, dict[str, dict[str, float]]] = {}
        self._pending: Pending[_Step] = Pending()
        self._latest: dict[str, _Step] = {}

    @override
    def decide(self, context: SplitContext) -> Decision:
        variants = [arm.variant for arm, _ in context.feasible if arm.kind in self.kinds]
        if not any(arm.kind in self.kinds for arm in context.arms):
            known = ", ".join(arm.variant for arm in context.arms)
            return Decision(
                None,
                f"{context.application} has neither a layer split nor a compressed variant, only {known}",
            )
        if not variants:
            return nothing_can_run(context)
        situation = situation_of(context)
        values = self._q.setdefault(context.application, {}).setdefault(situation, {})
        scores = {variant: values.setdefault(variant, FIRST_VALUE) for variant in variants}
        best = max(scores, key=scores.__getitem__)
        explores = self._random.random() < self._epsilon
        chosen = self._random.choice(variants) if explores else best
        self._note(context, situation, chosen)
        return Decision(
            chosen,
            f"{'drawn to learn' if explores else 'highest value'} in state {situation}",
            scores=scores,
            propensity=self._epsilon / len(variants) + (1 - self._epsilon) * (chosen == best),
            explored=chosen != best,
        )

    @override
    def learn(self, context: SplitContext, outcome: TaskFinished) -> None:
        """`Q(s, a) += rate * (reward + discount * max Q(s') - Q(s, a))`."""
        step = self._pending.take(context.task)
        if step is None:
            return
        table = self._q.setdefault(context.application, {})
        following = table.get(step.following or step.situation, {})
        target = reward_of(outcome) + DISCOUNT * max(following.values(), default=FIRST_VALUE)
        values = table.setdefault(step.situation, {})
        variant = outcome.variant or step.variant
        before = values.get(variant, FIRST_VALUE)
        values[variant] = before + LEARNING_RATE * (target - before)
        self._epsilon = max(LAST_EPSILON, DECAY * self._epsilon)

    @override
    def state(self) -> State:
        return {
            "epsilon": self._epsilon,
            "q": {
                application: {situation: dict(values) for situation, values in table.items()}
                for application, table in self._q.items()
            },
        }

    @override
    def restore(self, state: State) -> None:
        memory = validated_state(_SavedState, state)
        self._epsilon = memory.epsilon
        self._q = {
            application: {situation: dict(values) for situation, values in table.items()}
            for application, table in memory.q.items()
        }

    def _note(self, context: SplitContext, situation: str, variant: str) -> None:
        step = _Step(situation, variant)
        before = self._latest.get(context.application)
        if before is not None:
            before.following = situation
        self._latest[context.application] = step
        self._pending.put(context.task, step)


def situation_of(context: SplitContext) -> str:
    """Return the state of a decision: octave of the slack, octave of the batch, bin of the load."""
    slack_ms = max(1.0, context.slack_ms)
    slack = min(_MOST_OCTAVES, int(log2(slack_ms)))
    batch = min(_MOST_OCTAVES, int(log2(max(1, context.batch))))
    load = sum(context.load_ms >= share * slack_ms for share in LOAD_SHARES)
    return f"slack {slack}, batch {batch}, load {load}"
