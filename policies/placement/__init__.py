"""Which node runs which stage: the placement policies, by name."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Literal

import numpy as np

from policies.placement.daso import SurrogatePlacement
from policies.placement.earliest_finish import EarliestFinish
from policies.placement.exact import Exact
from policies.placement.genetic import Genetic
from policies.placement.interface import (
    ActiveJob,
    Infeasible,
    PeriodOutcome,
    Placement,
    PlacementPolicy,
    PlacementRequest,
    Training,
    place,
)
from policies.placement.pretrained import pretrained_weights
from policies.placement.random_placement import RandomPlacement
from policies.placement.round_robin import RoundRobin

__all__ = [
    "PLACEMENT_POLICIES",
    "ActiveJob",
    "Infeasible",
    "PeriodOutcome",
    "Placement",
    "PlacementName",
    "PlacementPolicy",
    "PlacementRequest",
    "Training",
    "place",
    "placement_policy",
]

PlacementName = Literal["earliest-finish", "random", "round-robin", "exact", "genetic", "gobi", "daso"]

PLACEMENT_POLICIES: Mapping[PlacementName, Callable[[Random], PlacementPolicy]] = {
    "earliest-finish": lambda _: EarliestFinish(),
    "random": RandomPlacement,
    "round-robin": lambda _: RoundRobin(),
    "exact": lambda _: Exact(),
    "genetic": Genetic,
    "gobi": lambda random: _by_surrogate(random, decision_aware=False),
    "daso": lambda random: _by_surrogate(random, decision_aware=True),
}


def placement_policy(name: PlacementName, *, seed: int = 0) -> PlacementPolicy:
    """A new policy of that name. Raises KeyError."""
    return PLACEMENT_POLICIES[name](Random(seed))


def _by_surrogate(random: Random, *, decision_aware: bool) -> SurrogatePlacement:
    generator = np.random.default_rng(random.getrandbits(32))
    name = "daso" if decision_aware else "gobi"
    return SurrogatePlacement(pretrained_weights(name), generator, decision_aware=decision_aware)
