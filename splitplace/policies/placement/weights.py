"""The surrogate's weights as JSON: in the policy's saved state, and as they come with this package."""

import json
from functools import cache
from importlib.resources import files

import numpy as np

from splitplace.policies.placement.surrogate import SHAPES, Array, Weights
from splitplace.policies.state import Json, State, StateError


def weights_state(weights: Weights) -> State:
    """Return weights as nested lists of six decimals."""
    state: dict[str, Json] = {name: np.round(values, 6).tolist() for name, values in weights.items()}
    return state


def weights_of(state: State) -> dict[str, Array]:
    """Return weights from JSON. Raises StateError where they are not those of a surrogate."""
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


@cache
def pretrained_weights(name: str) -> Weights:
    """Return the weights of `gobi` or `daso`, trained in the simulator (docs/policies.md says how).

    Raises:
        FileNotFoundError: another name.
    """
    return weights_of(json.loads(files(__package__).joinpath(f"{name}.json").read_text()))
