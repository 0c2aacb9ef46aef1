"""`linucb`: a contextual bandit with a linear model for each arm (Li et al. 2010), discounted."""

from typing_extensions import override

from splitplace.policies.splitting.interface import Decision, SplitContext, nothing_can_run
from splitplace.policies.splitting.linear import LinearBandit

ALPHA = 1.0
"""Standard deviations by which an uncertain arm is favoured, in units of the reward's noise.

Below about .7 an arm that was never tried could not outbid one that always earns 1.
"""


class LinUcb(LinearBandit):
    """The arm whose expected reward plus `ALPHA` standard deviations is highest."""

    name = "linucb"

    @override
    def decide(self, context: SplitContext) -> Decision:
        """Choose deterministically."""
        estimates = self._models.estimates(context)
        if not estimates:
            return nothing_can_run(context)
        scores = {variant: mean + ALPHA * deviation for variant, (mean, deviation) in estimates.items()}
        chosen = max(scores, key=scores.__getitem__)
        mean, deviation = estimates[chosen]
        best = max(expected for expected, _ in estimates.values())
        reason = f"expected reward {mean:.2f} +- {deviation * ALPHA:.2f}, the highest upper bound"
        return Decision(chosen, reason, scores=scores, explored=mean < best)
