"""How to split a task: the split policies, by name."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Literal

from policies.splitting.fixed import Fixed
from policies.splitting.interface import Arm, Decision, SplitContext, SplitPolicy
from policies.splitting.random_split import RandomSplit
from policies.splitting.rule import MARGIN, TOLERANCE, Rule

__all__ = [
    "MARGIN",
    "SPLIT_POLICIES",
    "TOLERANCE",
    "Arm",
    "Decision",
    "SplitContext",
    "SplitName",
    "SplitPolicy",
    "split_policy",
]

SplitName = Literal["whole", "layer", "semantic", "random", "rule"]

SPLIT_POLICIES: Mapping[SplitName, Callable[[Random, float, float], SplitPolicy]] = {
    "whole": lambda *_: Fixed("whole"),
    "layer": lambda *_: Fixed("layer"),
    "semantic": lambda *_: Fixed("semantic"),
    "random": lambda random, *_: RandomSplit(random),
    "rule": lambda _, margin, tolerance: Rule(margin, tolerance),
}


def split_policy(
    name: SplitName, *, seed: int = 0, margin: float = MARGIN, tolerance: float = TOLERANCE
) -> SplitPolicy:
    """A new policy of that name. Raises KeyError.

    Args:
        name: which one.
        seed: of its random numbers, for those that draw.
        margin: safety of `rule`.
        tolerance: daring of `rule`.
    """
    return SPLIT_POLICIES[name](Random(seed), margin, tolerance)
