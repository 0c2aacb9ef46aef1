"""Which node runs which stage: the placement policies, by name."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Literal

from policies.placement.earliest_finish import EarliestFinish
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
from policies.placement.random_placement import RandomPlacement

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

PlacementName = Literal["earliest-finish", "random"]

PLACEMENT_POLICIES: Mapping[PlacementName, Callable[[Random], PlacementPolicy]] = {
    "earliest-finish": lambda _: EarliestFinish(),
    "random": RandomPlacement,
}


def placement_policy(name: PlacementName, *, seed: int = 0) -> PlacementPolicy:
    """A new policy of that name. Raises KeyError."""
    return PLACEMENT_POLICIES[name](Random(seed))
