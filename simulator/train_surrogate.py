"""Weights of GOBI's and DASO's surrogates, as they are shipped: `python -m simulator.train_surrogate`.

Lambda of equation 11: tasks of simulations in which every placement is drawn from a mixture of policies and
every split decision from all arms, at several rates and numbers of hosts, so that good and bad placements in
idle and crowded clusters are seen. Other simulations, with other seeds, are held out to test the surrogate.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from time import process_time

import numpy as np

from messages.task import TaskFinished
from policies.cluster import ClusterView
from policies.placement import (
    Infeasible,
    PeriodOutcome,
    Placement,
    PlacementName,
    PlacementPolicy,
    PlacementRequest,
    Training,
    placement_policy,
)
from policies.placement.daso import SurrogatePlacement
from policies.placement.interface import Unlearned
from policies.placement.surrogate import Weights, initial_weights
from policies.placement.training import Sample, fit, predicted, rank_correlation
from policies.placement.weights import weights_state
from simulator.running import experience
from simulator.scenario import Scenario

CONDITIONS: Sequence[Mapping[str, float]] = (
    {"rate": 6, "hosts": 50},
    {"rate": 20, "hosts": 50},
    {"rate": 6, "hosts": 20},
    {"rate": 12, "hosts": 50, "deadline_scale": 0.5},
    {"rate": 3, "hosts": 10},
)
HELD_OUT = "held out"
PLACED_BY: Sequence[PlacementName] = ("random", "earliest-finish", "round-robin")


class Mixture(Unlearned):
    """Places by a policy drawn for each task, and lets surrogates watch."""

    name = "mixture"

    def __init__(self, random: Random, watching: Sequence[SurrogatePlacement]) -> None:
        self._random = random
        self._watching = watching
        seed = random.getrandbits(32)
        self._policies: list[PlacementPolicy] = [placement_policy(name, seed=seed) for name in PLACED_BY]

    def place(self, request: PlacementRequest, cluster: ClusterView, now_ms: float) -> Placement | Infeasible:
        """See `PlacementPolicy`."""
        found = self._random.choice(self._policies).place(request, cluster, now_ms)
        if isinstance(found, Placement):
            for surrogate in self._watching:
                surrogate.observe(request, found.nodes, cluster, now_ms)
        return found

    def learn(self, outcome: TaskFinished) -> None:
        """See `PlacementPolicy`."""
        for surrogate in self._watching:
            surrogate.learn(outcome)

    def end_period(self, outcome: PeriodOutcome) -> Training | None:
        """See `PlacementPolicy`. Nobody trains yet."""
        for surrogate in self._watching:
            surrogate.end_period(outcome)
        return None


def collect(intervals: int, seed: str) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """What GOBI and DASO see in simulations under all conditions."""
    random = np.random.default_rng(0)
    weights = initial_weights(random)
    gobi, daso = (
        SurrogatePlacement(weights, random, decision_aware=aware, fine_tuning=False, keep=1_000_000)
        for aware in (False, True)
    )
    for number, condition in enumerate(CONDITIONS):
        scenario = Scenario.model_validate(
            {"intervals": intervals, "arms": ("whole", "layer", "semantic", "compressed"), **condition}
        )
        mixture = Mixture(Random(f"{seed} {number}"), (gobi, daso))
        experience(scenario, "random+random", f"{seed} {number}", placement=mixture)
        print(f"{seed}: {condition}: {len(daso.samples)} tasks", flush=True)
    return gobi.samples, daso.samples


def trained(samples: Sequence[Sample], held_out: Sequence[Sample], *, steps: int, seed: int) -> Weights:
    """Weights fitted to some samples; prints how they do on others."""
    random = np.random.default_rng(seed)
    weights = fit(initial_weights(random), samples, random, steps=steps)
    for name, some in (("training", samples), (HELD_OUT, held_out)):
        expected, realised = predicted(weights, some), np.array([one.target for one in some])
        error = float(((expected - realised) ** 2).mean() / realised.var())
        correlation = rank_correlation(expected, realised)
        print(f"  {name}: {len(some)} tasks, error {error:.3f} of the variance, Spearman {correlation:.3f}")
    return weights


def main(argv: Sequence[str] | None = None) -> None:
    """Collect, train, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--intervals", type=int, default=60, help="of each simulation")
    parser.add_argument("--steps", type=int, default=6000, help="of AdamW")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("policies/placement"), help="folder of the two files"
    )
    arguments = parser.parse_args(argv)
    everything = collect(arguments.intervals, f"seed {arguments.seed}")
    held_out = collect(arguments.intervals // 3, f"{HELD_OUT} {arguments.seed}")
    for name, samples, others in zip(("gobi", "daso"), everything, held_out, strict=True):
        print(name)
        weights = trained(samples, others, steps=arguments.steps, seed=arguments.seed)
        (arguments.out / f"{name}.json").write_text(json.dumps(weights_state(weights)) + "\n")
    print(f"{process_time():.0f} s of CPU")


if __name__ == "__main__":
    main()
