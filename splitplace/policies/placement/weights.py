"""The surrogate's weights as JSON: in the policy's memory, and as they are shipped."""

import numpy as np

from splitplace.policies.placement.surrogate import SHAPES, Array, Weights
from splitplace.policies.state import Json, State, StateError


def weights_state(weights: Weights) -> State:
    """Weights as nested lists of six decimals."""
    state: dict[str, Json] = {name: np.round(values, 6).tolist() for name, values in weights.items()}
    return state


def weights_of(state: State) -> dict[str, Array]:
    """Weights from JSON. Raises StateError where they are not those of a surrogate."""
    weights: dict[str, Array] = {}
    for name, shape in SHAPES.items():
        try:
            values = np.array(state.get(name), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise StateError(f"{name} is no array of numbers: {error}") from error
        if values.shape != shape or not np.isfinite(values).all():
            raise StateError(f"{name} is of shape {values.shape}, not {shape}, or not finite")
        weights[name] = values
    return weights
