"""How to split a task: the split policies, by name."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

from policies.splitting.arms import PAPER_ARMS, Restricted, parse_arms
from policies.splitting.fixed import Fixed
from policies.splitting.interface import Arm, Decision, SplitContext, SplitPolicy, kind_of
from policies.splitting.random_split import RandomSplit
from policies.splitting.rule import MARGIN, TOLERANCE, Rule

__all__ = [
    "MARGIN",
    "PAPER_ARMS",
    "SPLIT_POLICIES",
    "TOLERANCE",
    "Arm",
    "Decision",
    "SplitContext",
    "SplitName",
    "SplitPolicy",
    "kind_of",
    "parse_arms",
    "split_policy",
]

SplitName = Literal["whole", "layer", "semantic", "compressed", "random", "rule"]


@dataclass(frozen=True, slots=True)
class _Options:
    """What can be set of a policy; each reads what concerns it."""

    seed: int
    margin: float
    tolerance: float


SPLIT_POLICIES: Mapping[SplitName, Callable[[_Options], SplitPolicy]] = {
    "whole": lambda _: Fixed("whole"),
    "layer": lambda _: Fixed("layer"),
    "semantic": lambda _: Fixed("semantic"),
    "compressed": lambda _: Fixed("compressed"),
    "random": lambda options: RandomSplit(Random(options.seed)),
    "rule": lambda options: Rule(options.margin, options.tolerance),
}

_OWN_ARMS = frozenset({"whole", "layer", "semantic", "compressed"})
"""Policies that are defined by the arms they choose: no setting restricts them."""


def split_policy(
    name: SplitName,
    *,
    seed: int = 0,
    arms: Collection[str] | None = None,
    margin: float = MARGIN,
    tolerance: float = TOLERANCE,
) -> SplitPolicy:
    """A new policy of that name. Raises KeyError.

    Args:
        name: which one.
        seed: of its random numbers, for those that draw.
        arms: variants or kinds of variants that it may choose; all where not given. Policies that are
            defined by their arms (`layer`, ...) keep them.
        margin: safety of `rule`.
        tolerance: daring of `rule`.
    """
    policy = SPLIT_POLICIES[name](_Options(seed, margin, tolerance))
    return policy if arms is None or name in _OWN_ARMS else Restricted(policy, arms)
