"""Weights of the surrogates as they are shipped, trained in the simulator (docs/policies.md says how)."""

import json
from functools import cache
from importlib.resources import files

from splitplace.policies.placement.surrogate import Weights
from splitplace.policies.placement.weights import weights_of


@cache
def pretrained_weights(name: str) -> Weights:
    """Weights of `gobi` or `daso`, from a file of this package. Raises FileNotFoundError for another name."""
    return weights_of(json.loads(files(__package__).joinpath(f"{name}.json").read_text()))
