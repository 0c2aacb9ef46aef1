"""Predictions learn from what came of them: one factor for each application and variant."""

from collections.abc import Mapping

from splitplace.policies.state import State, StateError

LEAST, MOST = 0.5, 4.0
"""Bounds of a factor, and of each observation that goes into it: one stalled task says little."""

NEWEST_WEIGHT = 0.2
"""Weight of the newest observation in the moving average."""

FADE = 0.01
"""How far the factors of an application's other variants return to 1 with each observation.

A variant with a bad factor is not chosen, so nothing would ever correct it.
"""


class Correction:
    """Exponential moving average of actual / predicted response time, as in equation 2 of the paper."""

    def __init__(self) -> None:
        """A correction that has seen nothing: every factor is 1."""
        self._factors: dict[str, dict[str, float]] = {}

    def factor(self, application: str, variant: str) -> float:
        """By what a prediction must be multiplied, in [`LEAST`, `MOST`]."""
        return self._factors.get(application, {}).get(variant, 1.0)

    def corrected_ms(self, application: str, variant: str, predicted_ms: float) -> float:
        """A prediction, multiplied by its factor."""
        return predicted_ms * self.factor(application, variant)

    def learn(self, application: str, variant: str, predicted_ms: float, actual_ms: float) -> None:
        """What became of an **uncorrected** prediction. Of no use, and ignored, where it was zero."""
        if predicted_ms <= 0:
            return
        seen = min(MOST, max(LEAST, actual_ms / predicted_ms))
        factors = self._factors.setdefault(application, {})
        before = factors.pop(variant, 1.0)
        for other, factor in factors.items():
            factors[other] = factor + FADE * (1 - factor)
        factors[variant] = before + NEWEST_WEIGHT * (seen - before)

    def state(self) -> State:
        """All factors, by application and variant."""
        return {name: dict(factors) for name, factors in self._factors.items()}

    def restore(self, state: State) -> None:
        """Take up saved factors.

        Raises:
            StateError: not a state of this class.
        """
        restored: dict[str, dict[str, float]] = {}
        for application, factors in state.items():
            if not isinstance(factors, Mapping):
                raise StateError(f"factors of {application} are no object")
            restored[application] = {name: _factor(name, value) for name, value in factors.items()}
        self._factors = restored


def _factor(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not LEAST <= value <= MOST:
        raise StateError(f"factor {value!r} of {name} is not in [{LEAST}, {MOST}]")
    return float(value)
