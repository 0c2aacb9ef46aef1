"""Which node runs which stage: the placement policies, by name."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Literal

import numpy as np

from splitplace.policies.placement.daso import Search, SurrogatePlacement
from splitplace.policies.placement.earliest_finish import EarliestFinish
from splitplace.policies.placement.exact import Exact
from splitplace.policies.placement.genetic import Genetic
from splitplace.policies.placement.guarded import Guarded
from splitplace.policies.placement.interface import (
    ActiveJob,
    Infeasible,
    PeriodOutcome,
    Placement,
    PlacementPolicy,
    PlacementRequest,
    Rearranging,
    Training,
    place,
)
from splitplace.policies.placement.objective import ALPHA
from splitplace.policies.placement.random_placement import RandomPlacement
from splitplace.policies.placement.round_robin import RoundRobin
from splitplace.policies.placement.weights import pretrained_weights

__all__ = [
    "MOST_REPLICAS",
    "PLACEMENT_POLICIES",
    "ActiveJob",
    "Infeasible",
    "PeriodOutcome",
    "Placement",
    "PlacementName",
    "PlacementPolicy",
    "PlacementRequest",
    "Rearranging",
    "Training",
    "place",
    "placement_policy",
]

PlacementName = Literal[
    "earliest-finish",
    "random",
    "round-robin",
    "exact",
    "genetic",
    "gobi",
    "daso",
    "daso-no-gradient",
    "daso-warm-start",
    "daso-guarded",
]

MOST_REPLICAS = 4
"""Nodes that share a stage at most, where nothing else is set."""

PLACEMENT_POLICIES: Mapping[PlacementName, Callable[[Random, float, int], PlacementPolicy]] = {
    "earliest-finish": lambda _random, _alpha, replicas: EarliestFinish(replicas),
    "random": lambda random, *_: RandomPlacement(random),
    "round-robin": lambda *_: RoundRobin(),
    "exact": lambda *_: Exact(),
    "genetic": lambda random, *_: Genetic(random),
    "gobi": lambda random, alpha, _: _by_surrogate(random, alpha, decision_aware=False),
    "daso": lambda random, alpha, _: _by_surrogate(random, alpha, decision_aware=True),
    "daso-no-gradient": lambda random, alpha, _: _by_surrogate(
        random, alpha, decision_aware=True, search="no-gradient"
    ),
    "daso-warm-start": lambda random, alpha, _: _by_surrogate(
        random, alpha, decision_aware=True, search="warm-start"
    ),
    "daso-guarded": lambda random, alpha, replicas: Guarded(
        _by_surrogate(random, alpha, decision_aware=True), EarliestFinish(replicas), random
    ),
}


def placement_policy(
    name: PlacementName, *, seed: int = 0, alpha: float = ALPHA, replicas: int = 1
) -> PlacementPolicy:
    """Make a placement policy. Raises KeyError for an unknown name.

    Args:
        name: its name in the registry.
        seed: seed of its random numbers.
        alpha: weight of energy in equation 10, in [0, 1], for policies that learn from it.
        replicas: most nodes that share a stage, for `earliest-finish`; the others choose one for each.
    """
    return PLACEMENT_POLICIES[name](Random(seed), alpha, replicas)


def _by_surrogate(
    random: Random, alpha: float, *, decision_aware: bool, search: Search = "gradient"
) -> SurrogatePlacement:
    generator = np.random.default_rng(random.getrandbits(32))
    name = "daso" if decision_aware else "gobi"
    weights = pretrained_weights(name)
    return SurrogatePlacement(weights, generator, decision_aware=decision_aware, alpha=alpha, search=search)
