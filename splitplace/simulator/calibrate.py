"""Find the one free number of each profile of the paper: `python -m splitplace.simulator.calibrate`.

The paper does not say how fast the hosts of Table 3 run its networks. So one factor on the work of every
fragment is chosen such that layer splits, placed and trained as in Table 4, have the response time printed
there. Nothing else is fitted: the last line of the output, for semantic splits, is a prediction.
"""

import argparse
from collections.abc import Callable, Mapping
from statistics import fmean

from splitplace.simulator.running import run
from splitplace.simulator.scenario import Scenario
from splitplace.simulator.workload import PaperProfile

LAYER_INTERVALS = 9.92
"""Response time of Layer+GOBI in Table 4."""

DRAIN_INTERVALS = 30
"""As in the experiments: tasks that run at the end are awaited."""

SEMANTIC_INTERVALS = 3.70
"""Response time of Semantic+GOBI in Table 4."""

RANGES: Mapping[PaperProfile, tuple[float, float]] = {"paper": (8.0, 32.0), "paper-bzip2": (0.5, 2.0)}
"""Range of factors to search, by profile."""


def solve(
    response: Callable[[float], float], wanted: float, tolerance: float, bounds: tuple[float, float]
) -> float:
    """Find the factor at which a growing function has a value, by bisection on the logarithm.

    Args:
        response: function of a factor between the bounds.
        wanted: the value.
        tolerance: relative error of the factor.
        bounds: lowest and highest factor.
    """
    low, high = bounds
    while high / low > 1 + tolerance:
        middle = float((low * high) ** 0.5)
        if response(middle) < wanted:
            low = middle
        else:
            high = middle
    return float((low * high) ** 0.5)


def mean_response(
    policy: str, work_scale: float, seeds: int, training: int, profile: PaperProfile = "paper"
) -> float:
    """Return the mean response time of answered tasks over several runs, in intervals; infinite without any.

    Args:
        policy: split+placement.
        work_scale: factor on the work of every fragment.
        seeds: number of runs.
        training: intervals of training before each run.
        profile: one of the paper's.
    """
    scenario = Scenario(
        profile=profile,
        work_scale=work_scale,
        training_intervals=training,
        rules="paper",
        drain_intervals=DRAIN_INTERVALS,
    )
    means = [run(scenario, policy, seed).response_intervals.mean for seed in range(seeds)]
    return fmean([float("inf") if mean is None else mean for mean in means])


def main() -> None:
    """Calibrate and print the factor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", choices=tuple(RANGES), default="paper")
    parser.add_argument("--placement", default="gobi")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--training", type=int, default=100, help="intervals before each run")
    parser.add_argument("--tolerance", type=float, default=0.03)
    arguments = parser.parse_args()
    layer = f"layer+{arguments.placement}"
    profile: PaperProfile = arguments.profile

    def response(work_scale: float) -> float:
        found = mean_response(layer, work_scale, arguments.seeds, arguments.training, profile)
        print(f"work_scale {work_scale:.3f}: {layer} takes {found:.2f} intervals", flush=True)
        return found

    work_scale = solve(response, LAYER_INTERVALS, arguments.tolerance, RANGES[profile])
    print(f"\nwork_scale = {work_scale:.2f}")
    for policy, printed in (
        (layer, LAYER_INTERVALS),
        (f"semantic+{arguments.placement}", SEMANTIC_INTERVALS),
    ):
        found = mean_response(policy, work_scale, arguments.seeds, arguments.training, profile)
        print(f"{policy}: {found:.2f} intervals (the paper: {printed:.2f})")


if __name__ == "__main__":
    main()
