"""Linear models of an arm's reward, one for each arm, for `linucb` and `thompson`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import log, log2, sqrt, tanh
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field
from typing_extensions import override

from splitplace.messages.base import Name, Part
from splitplace.messages.task import TaskFinished
from splitplace.policies.scoring import reward_of
from splitplace.policies.splitting.interface import SplitContext, SplitPolicy
from splitplace.policies.state import Json, State, StateError, validated_state

Vector = npt.NDArray[np.float64]

MAX_APPLICATIONS = 8
"""Applications with a column of their own; further ones share the last."""

FEATURES = 5 + MAX_APPLICATIONS

DISCOUNT = 0.995
"""Weight of an observation after the next one of the same arm: about the last 200 count."""

RIDGE = 1.0
"""Precision of the prior that a coefficient is 0."""

_TYPICAL_LINK = 10.0
"""Megabytes per second at which the link's feature is one half."""


class Columns:
    """Columns of applications, in the order of their first appearance."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def column(self, application: str) -> int:
        """Return the application's column; a new one while there are any."""
        if application not in self.names and len(self.names) < MAX_APPLICATIONS:
            self.names.append(application)
        return self.names.index(application) if application in self.names else MAX_APPLICATIONS - 1


def features(context: SplitContext, predicted_ms: float, columns: Columns) -> Vector:
    """Return the features that an arm's reward depends on, each in [-1, 1].

    The slack enters as `tanh(2 ln(slack / predicted))`: in time or not is a step, and a linear model can only
    follow a step that is one of its features.

    Returns:
        float64 of shape (`FEATURES`,): 1, slack, log of the batch, load, link, then one column for each
        application.
    """
    slack_ms = max(context.slack_ms, 1e-3)
    x = np.zeros(FEATURES)
    x[0] = 1.0
    x[1] = tanh(2 * log(slack_ms / max(predicted_ms, 1e-3)))
    x[2] = log2(max(1, context.batch)) / 10
    x[3] = context.load_ms / (context.load_ms + slack_ms)
    x[4] = context.link_megabytes_per_second / (context.link_megabytes_per_second + _TYPICAL_LINK)
    x[5 + columns.column(context.application)] = 1.0
    return x


@dataclass
class LinearArm:
    """Discounted ridge regression in closed form: `A = sum w x x' + ridge`, `b = sum w r x`.

    Only the sum is discounted, not the prior, so that what was last seen long ago becomes uncertain again
    (Russac et al. 2019).
    """

    gram: Vector = field(default_factory=lambda: np.zeros((FEATURES, FEATURES)))
    """Discounted sum of x x'; float64 of shape (`FEATURES`, `FEATURES`)."""
    moment: Vector = field(default_factory=lambda: np.zeros(FEATURES))
    """Discounted sum of r x; float64 of shape (`FEATURES`,)."""

    @cached_property
    def _inverse(self) -> Vector:
        return np.linalg.inv(self.gram + RIDGE * np.eye(FEATURES)).astype(np.float64, copy=False)

    def estimate(self, x: Vector) -> tuple[float, float]:
        """Return the expected reward at x, and its standard deviation in units of one observation's noise."""
        spread = self._inverse @ x
        return float(spread @ self.moment), sqrt(max(0.0, float(x @ spread)))

    def after(self, x: Vector, reward: float) -> "LinearArm":
        """Return the model after one more observation."""
        return LinearArm(DISCOUNT * self.gram + np.outer(x, x), DISCOUNT * self.moment + reward * x)


_Number = Annotated[float, Field(ge=-1e9, le=1e9)]
_Row = Annotated[list[_Number], Field(min_length=FEATURES, max_length=FEATURES)]


class _ArmMemory(Part):
    gram: Annotated[list[_Row], Field(min_length=FEATURES, max_length=FEATURES)]
    moment: _Row


class _SavedState(Part):
    """The saved state."""

    applications: Annotated[list[Name], Field(max_length=MAX_APPLICATIONS)]
    arms: dict[Name, _ArmMemory]


class LinearModels:
    """The models of all arms."""

    def __init__(self) -> None:
        self.columns = Columns()
        self.arms: dict[str, LinearArm] = {}

    def estimates(self, context: SplitContext) -> Mapping[str, tuple[float, float]]:
        """Return expected reward and its standard deviation for each arm that can run, by variant."""
        return {
            arm.variant: self._arm(arm.variant).estimate(features(context, ms, self.columns))
            for arm, ms in context.feasible
        }

    def learn(self, context: SplitContext, variant: str, reward: float) -> None:
        """Learn a reward in [0, 1]; ignored if the context has no prediction for the variant."""
        predicted_ms = next((ms for arm, ms in context.feasible if arm.variant == variant), None)
        if predicted_ms is not None:
            x = features(context, predicted_ms, self.columns)
            self.arms[variant] = self._arm(variant).after(x, reward)

    def state(self) -> State:
        """Return all models."""
        arms: dict[str, Json] = {
            variant: {"gram": arm.gram.tolist(), "moment": arm.moment.tolist()}
            for variant, arm in self.arms.items()
        }
        return {"applications": list(self.columns.names), "arms": arms}

    def restore(self, state: State) -> None:
        """Replace the models by saved ones. Raises StateError."""
        memory = validated_state(_SavedState, state)
        arms = {
            variant: LinearArm(np.array(arm.gram), np.array(arm.moment))
            for variant, arm in memory.arms.items()
        }
        for variant, arm in arms.items():
            if not np.allclose(arm.gram, arm.gram.T) or np.linalg.eigvalsh(arm.gram)[0] < -RIDGE / 2:
                raise StateError(f"the matrix of {variant} is no sum of outer products")
        self.columns.names = list(memory.applications)
        self.arms = arms

    def _arm(self, variant: str) -> LinearArm:
        return self.arms.get(variant) or LinearArm()


class LinearBandit(SplitPolicy):
    """A policy that learns a linear model of each arm's reward."""

    def __init__(self) -> None:
        self._models = LinearModels()

    @override
    def learn(self, context: SplitContext, outcome: TaskFinished) -> None:
        if outcome.variant is not None:
            self._models.learn(context, outcome.variant, reward_of(outcome))

    @override
    def state(self) -> State:
        return self._models.state()

    @override
    def restore(self, state: State) -> None:
        self._models.restore(state)
