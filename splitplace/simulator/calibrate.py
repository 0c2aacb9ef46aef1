"""Sets the one free number of the `paper` profile: `python -m splitplace.simulator.calibrate`.

The paper does not say how fast the hosts of Table 3 are on its networks. So one factor on the work of every
fragment is chosen such that always splitting by layers, placed and trained as in Table 4, takes the response
time printed there. Nothing else is fitted: the last line, always splitting by meaning, is a prediction.
"""

import argparse
from collections.abc import Callable
from statistics import fmean

from splitplace.simulator.running import run
from splitplace.simulator.scenario import Scenario

LAYER_INTERVALS = 9.92
"""Table 4, Layer+GOBI."""

SEMANTIC_INTERVALS = 3.70
"""Table 4, Semantic+GOBI."""

LEAST, MOST = 0.5, 2.0
"""Between which factors to look."""


def solve(response: Callable[[float], float], wanted: float, tolerance: float) -> float:
    """The factor at which a growing function has a value, by bisection on the logarithm.

    Args:
        response: of a factor between `LEAST` and `MOST`.
        wanted: its value.
        tolerance: relative error of the factor.
    """
    low, high = LEAST, MOST
    while high / low > 1 + tolerance:
        middle = float((low * high) ** 0.5)
        if response(middle) < wanted:
            low = middle
        else:
            high = middle
    return float((low * high) ** 0.5)


def mean_response(policy: str, work_scale: float, seeds: int, training: int) -> float:
    """Mean response time in intervals over the answered tasks of several runs; infinite without any.

    Args:
        policy: split+placement.
        work_scale: the factor on the work of every fragment.
        seeds: how many runs.
        training: intervals of learning before each.
    """
    scenario = Scenario(work_scale=work_scale, training_intervals=training, rules="paper")
    means = [run(scenario, policy, seed).response_intervals.mean for seed in range(seeds)]
    return fmean([float("inf") if mean is None else mean for mean in means])


def main() -> None:
    """Calibrate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--placement", default="gobi")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--training", type=int, default=100, help="intervals before each run")
    parser.add_argument("--tolerance", type=float, default=0.03)
    arguments = parser.parse_args()
    layer = f"layer+{arguments.placement}"

    def response(work_scale: float) -> float:
        found = mean_response(layer, work_scale, arguments.seeds, arguments.training)
        print(f"work_scale {work_scale:.3f}: {layer} takes {found:.2f} intervals", flush=True)
        return found

    work_scale = solve(response, LAYER_INTERVALS, arguments.tolerance)
    print(f"\nwork_scale = {work_scale:.2f}")
    for policy, printed in (
        (layer, LAYER_INTERVALS),
        (f"semantic+{arguments.placement}", SEMANTIC_INTERVALS),
    ):
        found = mean_response(policy, work_scale, arguments.seeds, arguments.training)
        print(f"{policy}: {found:.2f} intervals (the paper: {printed:.2f})")


if __name__ == "__main__":
    main()
