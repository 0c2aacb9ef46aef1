"""Predictions learn from actual responses: one factor for each application and variant."""

from typing import Annotated

from pydantic import ConfigDict, Field, RootModel

from splitplace.policies.state import State, validated_state

LEAST, MOST = 0.5, 4.0
"""Bounds of a factor, and of each observation that goes into it: one stalled task says little."""

NEWEST_WEIGHT = 0.2
"""Weight of the newest observation in the moving average."""

FADE = 0.01
"""How far the factors of an application's other variants return to 1 with each observation.

A variant with a bad factor is not chosen, so nothing would ever correct it.
"""


class _SavedState(RootModel[dict[str, dict[str, Annotated[float, Field(ge=LEAST, le=MOST)]]]]):
    """Factors by application and variant."""

    model_config = ConfigDict(strict=True)


class Correction:
    """Moving average of the logarithm of actual / predicted response time (of the ratio in the paper).

    A task that takes four times as long weighs no more than one that takes a quarter.
    """

    def __init__(self) -> None:
        """A correction that has seen nothing: every factor is 1."""
        self._factors: dict[str, dict[str, float]] = {}

    def factor(self, application: str, variant: str) -> float:
        """Return the factor for a prediction, in [`LEAST`, `MOST`]."""
        return self._factors.get(application, {}).get(variant, 1.0)

    def corrected_ms(self, application: str, variant: str, predicted_ms: float) -> float:
        """Return a prediction times its factor."""
        return predicted_ms * self.factor(application, variant)

    def learn(self, application: str, variant: str, predicted_ms: float, actual_ms: float) -> None:
        """Learn from an **uncorrected** prediction and the actual response. A prediction of 0 is ignored."""
        if predicted_ms <= 0:
            return
        seen = min(MOST, max(LEAST, actual_ms / predicted_ms))
        factors = self._factors.setdefault(application, {})
        before = factors.pop(variant, 1.0)
        for other, factor in factors.items():
            factors[other] = factor + FADE * (1 - factor)
        # The mean of logarithms: half of the tasks then take longer than predicted, half less.
        factors[variant] = before * (seen / before) ** NEWEST_WEIGHT

    def state(self) -> State:
        """Return all factors, by application and variant."""
        return {name: dict(factors) for name, factors in self._factors.items()}

    def restore(self, state: State) -> None:
        """Replace all factors by saved ones. Raises StateError."""
        self._factors = validated_state(_SavedState, state).root
