"""A random variant, for comparison."""

from random import Random

from typing_extensions import override

from splitplace.policies.splitting.interface import Decision, SplitContext, StatelessSplit, nothing_can_run


class RandomSplit(StatelessSplit):
    """Draws uniformly among the variants that can run now."""

    name = "random"

    def __init__(self, random: Random) -> None:
        self._random = random

    @override
    def decide(self, context: SplitContext) -> Decision:
        feasible = context.feasible
        if not feasible:
            return nothing_can_run(context)
        arm, _ = self._random.choice(feasible)
        return Decision(
            arm.variant, f"drawn among {len(feasible)} that can run", propensity=1 / len(feasible)
        )
