"""`thompson`: sampling from the posterior of a linear-Gaussian model for each arm, discounted."""

from collections.abc import Sequence
from math import erf, exp, pi, sqrt
from random import Random

from typing_extensions import override

from splitplace.policies.splitting.interface import Decision, SplitContext, nothing_can_run
from splitplace.policies.splitting.linear import LinearBandit

NOISE = 0.3
"""Standard deviation of a reward around its expectation (a reward that is 0 or 1 has at most .5)."""

_STEPS = 200
_WIDTH = 5.0


class Thompson(LinearBandit):
    """Draws a reward for each arm from its posterior, and takes the arm with the highest draw."""

    name = "thompson"

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random

    @override
    def decide(self, context: SplitContext) -> Decision:
        estimates = self._models.estimates(context)
        if not estimates:
            return nothing_can_run(context)
        beliefs = {variant: (mean, NOISE * deviation) for variant, (mean, deviation) in estimates.items()}
        scores = {variant: self._random.gauss(mean, sigma) for variant, (mean, sigma) in beliefs.items()}
        chosen = max(scores, key=scores.__getitem__)
        others = [belief for variant, belief in beliefs.items() if variant != chosen]
        mean, sigma = beliefs[chosen]
        return Decision(
            chosen,
            f"expected reward {mean:.2f} +- {sigma:.2f}, highest draw {scores[chosen]:.2f}",
            scores=scores,
            propensity=probability_of_highest(mean, sigma, others),
            explored=mean < max(expected for expected, _ in beliefs.values()),
        )


def probability_of_highest(mean: float, sigma: float, others: Sequence[tuple[float, float]]) -> float:
    """Return the probability that a Gaussian draw exceeds independent others, each (mean, sigma > 0).

    `integral phi(z) prod_j Phi((mean + sigma z - mean_j) / sigma_j) dz` by the midpoint rule.
    """
    total = 0.0
    step = 2 * _WIDTH / _STEPS
    for index in range(_STEPS):
        z = -_WIDTH + (index + 0.5) * step
        term = exp(-z * z / 2)
        for other_mean, other_sigma in others:
            term *= 0.5 * (1 + erf((mean + sigma * z - other_mean) / (other_sigma * sqrt(2))))
        total += term
    return min(1.0, max(1e-9, total * step / sqrt(2 * pi)))
