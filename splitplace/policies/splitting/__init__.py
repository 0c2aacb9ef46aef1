"""How to split a task: the split policies, by name."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

from splitplace.policies.splitting.arms import PAPER_ARMS, Restricted, allows, parse_arms
from splitplace.policies.splitting.compression import Compression
from splitplace.policies.splitting.expected_reward import ExpectedReward
from splitplace.policies.splitting.fixed import Fixed
from splitplace.policies.splitting.gillis import Gillis
from splitplace.policies.splitting.interface import Arm, Decision, SplitContext, SplitPolicy
from splitplace.policies.splitting.linucb import LinUcb
from splitplace.policies.splitting.mab import Mab, MabParameters
from splitplace.policies.splitting.random_split import RandomSplit
from splitplace.policies.splitting.rule import MARGIN, TOLERANCE, Rule
from splitplace.policies.splitting.thompson import Thompson

__all__ = [
    "MARGIN",
    "PAPER_ARMS",
    "SPLIT_POLICIES",
    "TOLERANCE",
    "Arm",
    "Decision",
    "MabMode",
    "MabParameters",
    "SplitContext",
    "SplitName",
    "SplitPolicy",
    "allows",
    "parse_arms",
    "split_policy",
]

SplitName = Literal[
    "whole",
    "layer",
    "semantic",
    "compressed",
    "random",
    "rule",
    "mab",
    "mc",
    "gillis",
    "linucb",
    "thompson",
    "expected-reward",
]

MabMode = Literal["training", "running"]


@dataclass(frozen=True, slots=True)
class _Options:
    """All options; each policy reads its own."""

    random: Random
    margin: float
    tolerance: float
    mab_mode: MabMode
    mab: MabParameters | None


SPLIT_POLICIES: Mapping[SplitName, Callable[[_Options], SplitPolicy]] = {
    "whole": lambda _: Fixed("whole"),
    "layer": lambda _: Fixed("layer"),
    "semantic": lambda _: Fixed("semantic"),
    "compressed": lambda _: Fixed("compressed"),
    "random": lambda options: RandomSplit(options.random),
    "rule": lambda options: Rule(options.margin, options.tolerance),
    "mab": lambda options: Mab(
        options.random, training=options.mab_mode == "training", parameters=options.mab
    ),
    "mc": lambda _: Compression(),
    "gillis": lambda options: Gillis(options.random),
    "linucb": lambda _: LinUcb(),
    "thompson": lambda options: Thompson(options.random),
    "expected-reward": lambda options: ExpectedReward(options.random),
}


def split_policy(
    name: SplitName,
    *,
    seed: int = 0,
    arms: Collection[str] | None = None,
    margin: float = MARGIN,
    tolerance: float = TOLERANCE,
    mab_mode: MabMode = "running",
    mab: MabParameters | None = None,
) -> SplitPolicy:
    """Make a split policy. Raises KeyError for an unknown name.

    Args:
        name: its name in the registry.
        seed: seed of its random numbers.
        arms: variants or kinds of variants that it may choose; default all. A policy with `kinds` of its own
            keeps them.
        margin: factor of `rule` on predictions before it has learnt.
        tolerance: share of the slack by which `rule` may exceed it.
        mab_mode: how `mab` explores: by equations 6 to 8, or by equation 9.
        mab: constants of `mab`; default those of the paper.
    """
    policy = SPLIT_POLICIES[name](_Options(Random(seed), margin, tolerance, mab_mode, mab))
    return policy if arms is None or policy.kinds is not None else Restricted(policy, arms)
