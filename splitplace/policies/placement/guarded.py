"""A surrogate that has to earn its place: where dynamic programming earns more, that places.

A surrogate that was trained on other nodes or networks may place badly on these, although it predicts well:
most of what it predicts is due to the task, not to its nodes. So both place some of the tasks, drawn at
random, and the rewards tell which is better here.
"""

from collections import OrderedDict
from math import sqrt
from random import Random
from typing import Annotated

from pydantic import Field
from typing_extensions import override

from splitplace.messages.base import Count, Part
from splitplace.messages.task import TaskFinished
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement.daso import SurrogatePlacement
from splitplace.policies.placement.interface import (
    Infeasible,
    PeriodOutcome,
    Placement,
    PlacementPolicy,
    PlacementRequest,
    Training,
)
from splitplace.policies.scoring import reward_of
from splitplace.policies.state import Json, State, validated_state

CLEAR = 1.0
"""Standard errors by which the surrogate must earn more to place most tasks."""

HOPELESS = 2.0
"""Standard errors by which it must earn less to be tried rarely."""

LEAST_OUTCOMES = 30
"""Tasks of each that must have ended before a difference counts."""

TRIED_SHARE, RARE_SHARE = 0.1, 0.02
"""Share of the tasks that the worse of the two places, and that of a hopeless surrogate."""

MEMORY = 200
"""Tasks of each over which rewards are averaged; older ones fade."""

MAX_PENDING = 10_000
"""Placements without an outcome; beyond it, the oldest is dropped."""


class _Earned(Part):
    """Rewards of the tasks that one of the two placed."""

    outcomes: Count = 0
    mean: Annotated[float, Field(ge=0, le=1)] = 0.0
    square: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Mean of the squares."""

    def after(self, reward: float) -> "_Earned":
        """Return the record with one task more."""
        weight = 1 / min(self.outcomes + 1, MEMORY)
        return _Earned(
            outcomes=self.outcomes + 1,
            mean=self.mean + weight * (reward - self.mean),
            square=self.square + weight * (reward * reward - self.square),
        )

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        variance = max(0.0, self.square - self.mean * self.mean)
        return sqrt(variance / max(1, min(self.outcomes, MEMORY)))


class _Saved(Part):
    surrogate: dict[str, Json]
    by_surrogate: _Earned
    by_other: _Earned


class Guarded(PlacementPolicy):
    """Places most tasks by a surrogate that earns more here, else by another policy."""

    name = "daso-guarded"

    def __init__(self, surrogate: SurrogatePlacement, otherwise: PlacementPolicy, random: Random) -> None:
        """Begin without a record, so with most tasks placed by the other policy.

        Args:
            surrogate: learns from all tasks that it places.
            otherwise: places the others.
            random: draws who places a task.
        """
        self._surrogate = surrogate
        self._otherwise = otherwise
        self._random = random
        self._by_surrogate = _Earned()
        self._by_other = _Earned()
        self._pending: OrderedDict[str, bool] = OrderedDict()
        """By task, whether the surrogate placed it."""

    @property
    def surrogate_share(self) -> float:
        """Share of the tasks that the surrogate places."""
        mine, other = self._by_surrogate, self._by_other
        if min(mine.outcomes, other.outcomes) < LEAST_OUTCOMES:
            return TRIED_SHARE
        errors = sqrt(mine.error**2 + other.error**2)
        gain = mine.mean - other.mean
        if gain > CLEAR * errors:
            return 1 - TRIED_SHARE
        return RARE_SHARE if gain < -HOPELESS * errors else TRIED_SHARE

    @override
    def place(self, request: PlacementRequest, cluster: ClusterView, now_ms: float) -> Placement | Infeasible:
        by_surrogate = self._random.random() < self.surrogate_share
        policy: PlacementPolicy = self._surrogate if by_surrogate else self._otherwise
        found = policy.place(request, cluster, now_ms)
        if isinstance(found, Placement):
            self._pending[request.task] = by_surrogate
            self._pending.move_to_end(request.task)
            if len(self._pending) > MAX_PENDING:
                self._pending.popitem(last=False)
        return found

    @override
    def learn(self, outcome: TaskFinished) -> None:
        self._surrogate.learn(outcome)
        by_surrogate = self._pending.pop(outcome.task, None)
        if by_surrogate is None:
            return
        if by_surrogate:
            self._by_surrogate = self._by_surrogate.after(reward_of(outcome))
        else:
            self._by_other = self._by_other.after(reward_of(outcome))

    @override
    def end_period(self, outcome: PeriodOutcome) -> Training | None:
        return self._surrogate.end_period(outcome)

    @override
    def state(self) -> State:
        return {
            "surrogate": dict(self._surrogate.state()),
            "by_surrogate": self._by_surrogate.model_dump(),
            "by_other": self._by_other.model_dump(),
        }

    @override
    def restore(self, state: State) -> None:
        saved = validated_state(_Saved, state)
        self._surrogate.restore(saved.surrogate)
        self._by_surrogate, self._by_other = saved.by_surrogate, saved.by_other
