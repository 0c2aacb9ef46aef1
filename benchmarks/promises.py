"""Show how far promised and kept differ by chance alone: `python -m benchmarks.promises`. No broker.

Promises are drawn as a run of the demo made them: most near 1, few between. They come true with exactly the
probability that was said, or a policy says too much; both as they are and corrected online, which should not
spoil what is right. The error is the largest difference of promised and kept in a bin of 30 promises or more,
as `promise_error` of the metrics.
"""

import argparse
from collections.abc import Callable
from itertools import pairwise
from random import Random
from statistics import median

from splitplace.policies.promises import BINS, Promises, largest_error

SHARES = (8, 19, 34, 10, 20, 207)
"""Decisions of a run of the demo in each bin."""
WITHIN = 0.05

Said = tuple[float, bool]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--decisions", type=int, nargs="*", default=[300, 600, 1000])
    options = parser.parse_args()
    kinds: dict[str, Callable[[list[Said]], list[Said]]] = {
        "exactly right": list,
        "exactly right, corrected": corrected,
        "overconfident": overconfident,
        "overconfident, corrected": lambda pairs: corrected(overconfident(pairs)),
    }
    print(f"{'decisions':>9}  {'policy':26}{'median error':>14}{'within 5 points':>17}")
    for decisions in options.decisions:
        for kind, said_by in kinds.items():
            random = Random(1)
            errors = [largest_error(said_by(_drawn(random, decisions))) or 0.0 for _ in range(options.runs)]
            within = sum(error <= WITHIN for error in errors) / options.runs
            print(f"{decisions:9}  {kind:26}{median(errors):14.3f}{within:17.0%}", flush=True)


def _drawn(random: Random, decisions: int) -> list[Said]:
    """Draw probabilities, and whether each came true."""
    bins = list(pairwise((0.0, *BINS, 1.0)))
    chosen = random.choices(bins, SHARES, k=decisions)
    probabilities = [random.uniform(*ends) for ends in chosen]
    return [(probability, random.random() < probability) for probability in probabilities]


def overconfident(pairs: list[Said]) -> list[Said]:
    """Return the same outcomes with greater probabilities said."""
    return [(probability**0.5, came_true) for probability, came_true in pairs]


def corrected(pairs: list[Said]) -> list[Said]:
    """Return what is promised instead, when outcomes are learnt one after the other."""
    promises = Promises()
    found = []
    for said, came_true in pairs:
        found.append((promises.corrected("app", said), came_true))
        promises.learn("app", said, came_true=came_true)
    return found


if __name__ == "__main__":
    main()
