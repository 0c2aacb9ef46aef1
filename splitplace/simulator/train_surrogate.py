"""Train the shipped weights of the surrogates of GOBI and DASO.

`python -m splitplace.simulator.train_surrogate`

Lambda of equation 11 comes from simulations with several rates, numbers of hosts and mixes of arms. Every
placement is drawn from a mixture of policies, so that good and bad ones occur in idle and crowded clusters.
For some tasks, several placements are played out in the same state (`simulator/counterfactuals.py`). Nothing
else differs between them, so they show the effect of the host alone.

A search ends where the surrogate predicts the best objective, so often where it errs most in that direction.
Trained only on placements of other policies, a surrogate crowds hosts as no other policy would, and does not
predict the consequences. Therefore there are several rounds (DAgger, Ross et al. 2011): after the first, the
surrogates themselves place. Simulations with other seeds are held out to test the result.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from time import process_time
from typing import Any

import numpy as np
from typing_extensions import override

from splitplace.messages.task import TaskFinished
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import (
    Infeasible,
    PeriodOutcome,
    Placement,
    PlacementName,
    PlacementPolicy,
    PlacementRequest,
    Training,
    placement_policy,
)
from splitplace.policies.placement.daso import SurrogatePlacement
from splitplace.policies.placement.interface import StatelessPlacement
from splitplace.policies.placement.surrogate import Weights, initial_weights
from splitplace.policies.placement.training import (
    PlacementSample,
    correlation_within,
    fit,
    predicted,
    rank_correlation,
)
from splitplace.policies.placement.weights import pretrained_weights, weights_state
from splitplace.simulator.counterfactuals import played_out
from splitplace.simulator.running import experience
from splitplace.simulator.scenario import Scenario
from splitplace.simulator.simulation import Simulation

ALL_ARMS = ("whole", "layer", "semantic", "compressed")
CONDITIONS: Sequence[Mapping[str, Any]] = (
    {"rate": 6, "arms": ALL_ARMS},
    {"rate": 20, "arms": ALL_ARMS},
    {"rate": 6, "arms": ("layer", "semantic")},
    {"rate": 30, "arms": ("semantic",)},
    {"rate": 6, "hosts": 20, "arms": ALL_ARMS},
    {"rate": 12, "deadline_scale": 0.5, "arms": ALL_ARMS},
    {"rate": 3, "hosts": 10, "arms": ALL_ARMS},
)
PROFILE = "paper"
"""Workload of the training."""

HELD_OUT = "held out"
PLACED_BY: Sequence[PlacementName] = ("random", "earliest-finish", "round-robin")
SURROGATES = ("gobi", "daso")

COMPARED = 0.25
"""Share of the tasks for which several placements are tried."""

PLACEMENTS = 6
"""Greatest number of placements tried for a task."""

ROUNDS = 3

LED_SHARE = 0.7
"""Share of the tasks that a surrogate places, after the first round."""

Samples = Mapping[str, Sequence[PlacementSample]]
"""Samples by name of the surrogate that observed them."""


class Mixture(StatelessPlacement):
    """Place each task by a randomly drawn policy, most tasks by a leading one, and let surrogates observe.

    One pair of surrogates observes what happens, another what would happen. So in each of them the objectives
    of an interval's tasks have the mean of equation 10.
    """

    name = "mixture"

    def __init__(
        self, seed: str, policies: Sequence[PlacementPolicy], leader: PlacementPolicy | None
    ) -> None:
        self._random = Random(seed)
        self._seed = seed
        self._policies = policies
        self._leader = leader
        self._simulation: Simulation | None = None
        self.happened, self.tried = (
            {name: watcher(name) for name in SURROGATES} for _ in ("happened", "tried")
        )

    def watch(self, simulation: Simulation) -> None:
        """Set the simulation in which it places and plays out alternatives."""
        self._simulation = simulation

    @override
    def place(self, request: PlacementRequest, cluster: ClusterView, now_ms: float) -> Placement | Infeasible:
        led = self._leader is not None and self._random.random() < LED_SHARE
        policy = self._leader if self._leader and led else self._random.choice(self._policies)
        found = policy.place(request, cluster, now_ms)
        if isinstance(found, Placement):
            for surrogate in self.happened.values():
                surrogate.observe(request, found.nodes, cluster, now_ms, state=self._state(request))
            if self._random.random() < COMPARED:
                self._compare(request, found, cluster, now_ms)
        return found

    def _compare(
        self, request: PlacementRequest, found: Placement, cluster: ClusterView, now_ms: float
    ) -> None:
        """Play out several placements: one of each policy, then more of the first policy, which is random."""
        if self._simulation is None:
            return
        proposals = [found]
        for policy in (*self._policies, *[self._policies[0]] * PLACEMENTS):
            other = policy.place(request, cluster, now_ms)
            if isinstance(other, Placement) and other not in proposals and len(proposals) < PLACEMENTS:
                proposals.append(other)
        for number, proposal in enumerate(proposals):
            name = f"{request.task}-{number}"
            outcome = played_out(self._simulation, request, proposal.nodes, name=name)
            for surrogate in self.tried.values():
                surrogate.observe(
                    replace(request, task=name), proposal.nodes, cluster, now_ms, state=self._state(request)
                )
                surrogate.learn(outcome)

    def _state(self, request: PlacementRequest) -> str:
        return f"{self._seed} {request.task}"

    @override
    def learn(self, outcome: TaskFinished) -> None:
        for surrogate in self.happened.values():
            surrogate.learn(outcome)

    @override
    def end_period(self, outcome: PeriodOutcome) -> Training | None:
        """Nobody trains yet."""
        for surrogate in (*self.happened.values(), *self.tried.values()):
            surrogate.end_period(outcome)
        return None


def watcher(name: str) -> SurrogatePlacement:
    """Return a surrogate that only observes."""
    return surrogate(name, initial_weights(np.random.default_rng(0)))


def surrogate(name: str, weights: Weights, seed: int = 0) -> SurrogatePlacement:
    """Return a surrogate without fine-tuning."""
    return SurrogatePlacement(
        weights,
        np.random.default_rng(seed),
        decision_aware=name == "daso",
        fine_tuning=False,
        keep=1_000_000,
    )


@dataclass(frozen=True)
class Experience:
    """Samples that the surrogates observed, by name of the surrogate."""

    happened: Samples
    tried: Samples

    def __add__(self, other: "Experience") -> "Experience":
        """Join two sets of samples."""
        return Experience(
            {name: (*self.happened[name], *other.happened[name]) for name in SURROGATES},
            {name: (*self.tried[name], *other.tried[name]) for name in SURROGATES},
        )


NOTHING = Experience(dict.fromkeys(SURROGATES, ()), dict.fromkeys(SURROGATES, ()))


def collect(intervals: int, seed: str, weights: Mapping[str, Weights], turn: int = 0) -> Experience:
    """Collect what GOBI and DASO observe in simulations under all conditions.

    Args:
        intervals: length of each simulation.
        seed: seed of all simulations.
        weights: weights of surrogates that also place, by name.
        turn: number of the round; surrogates take turns in leading over conditions and rounds.
    """
    seen = NOTHING
    for number, condition in enumerate(CONDITIONS):
        name = f"{seed} {number}"
        policies: list[PlacementPolicy] = [
            placement_policy(placement, seed=number) for placement in PLACED_BY
        ]
        surrogates = [surrogate(kind, its, number) for kind, its in weights.items()]
        leader = surrogates[(number + turn) % len(surrogates)] if surrogates else None
        mixture = Mixture(name, [*policies, *surrogates], leader)
        scenario = Scenario.model_validate(
            {"profile": PROFILE, "intervals": intervals, "rules": "paper", **condition}
        )
        experience(scenario, "random+random", name, placement=mixture, prepare=mixture.watch)
        seen += Experience(
            {kind: its.samples for kind, its in mixture.happened.items()},
            {kind: its.samples for kind, its in mixture.tried.items()},
        )
        happened, tried = (len(samples["daso"]) for samples in (seen.happened, seen.tried))
        print(
            f"{name}: {condition}: {happened} tasks, {tried} tried, {process_time():.0f} s of CPU", flush=True
        )
    return seen


def trained(seen: Experience, *, steps: int, seed: int) -> dict[str, Weights]:
    """Fit weights to all samples; return them by name of the surrogate."""
    weights: dict[str, Weights] = {}
    for name in SURROGATES:
        random = np.random.default_rng(seed)
        samples = (*seen.happened[name], *seen.tried[name])
        weights[name] = fit(initial_weights(random), samples, random, steps=steps)
    return weights


def report(weights: Mapping[str, Weights], seen: Experience) -> None:
    """Print how well weights predict the samples."""
    for name, its in weights.items():
        for what, samples in (("happened", seen.happened[name]), ("tried", seen.tried[name])):
            expected, realised = predicted(its, samples), np.array([sample.target for sample in samples])
            error = float(((expected - realised) ** 2).mean() / realised.var())
            print(
                f"  {name}, {what}: {len(samples)} placements, error {error:.3f} of the variance, "
                f"Spearman {rank_correlation(expected, realised):.3f}"
            )
        print(f"  {name}, placements of one state: {correlation_within(expected, realised, samples):.3f}")


def report_ceiling(seen: Experience) -> None:
    """Print how well playing out predicts what happens.

    It knows everything except later arrivals, so no surrogate can be expected to predict more.
    """
    chosen: dict[str, float] = {}
    for sample in seen.tried["daso"]:
        chosen.setdefault(sample.state, sample.target)  # the first placement is the actual one
    pairs = [
        (chosen[sample.state], sample.target) for sample in seen.happened["daso"] if sample.state in chosen
    ]
    played, happened = np.array(pairs).reshape(-1, 2).T
    correlation = rank_correlation(played, happened)
    print(f"  playing out, happened: {len(pairs)} placements, Spearman {correlation:.3f}")


def main(argv: Sequence[str] | None = None) -> None:
    """Collect, train, collect and train again, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--intervals", type=int, default=60, help="length of each simulation")
    parser.add_argument("--steps", type=int, default=12000, help="steps of AdamW")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("splitplace/policies/placement"), help="folder for the two files"
    )
    parser.add_argument("--check", action="store_true", help="only test the shipped weights with this seed")
    arguments = parser.parse_args(argv)
    weights: dict[str, Weights] = {}
    if arguments.check:
        weights = {name: pretrained_weights(name) for name in SURROGATES}
        _test(weights, arguments.intervals, f"check {arguments.seed}")
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    seen = NOTHING
    for number in range(ROUNDS):
        seen += collect(arguments.intervals, f"round {number} of seed {arguments.seed}", weights, number)
        weights = trained(seen, steps=arguments.steps, seed=arguments.seed)
        print(f"round {number}, fitted to:")
        report(weights, seen)
    _test(weights, arguments.intervals // 2, f"{HELD_OUT} {arguments.seed}")
    for name, its in weights.items():
        (arguments.out / f"{name}.json").write_text(json.dumps(weights_state(its)) + "\n")
    print(f"{process_time():.0f} s of CPU")


def _test(weights: Mapping[str, Weights], intervals: int, seed: str) -> None:
    seen = collect(intervals, seed, weights)
    print(f"{HELD_OUT}:")
    report(weights, seen)
    report_ceiling(seen)


if __name__ == "__main__":
    main()
