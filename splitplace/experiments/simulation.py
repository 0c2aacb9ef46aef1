"""Run one training or one simulation, and turn its result into figures."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from splitplace.experiments.figures import Run, decision_shares, flatten
from splitplace.experiments.running import SimulationRequest, TrainedPolicies, TrainingRun
from splitplace.policies.placement import PlacementPolicy
from splitplace.policies.scoring import reward
from splitplace.policies.splitting import SplitPolicy
from splitplace.simulator import Result, Scenario, run, train
from splitplace.simulator.oracle import UPPER_BOUND
from splitplace.simulator.upper_bound import highest


def train_policies(training: TrainingRun) -> TrainedPolicies:
    """Train the policies, and record the state of a bandit after each interval.

    Raises:
        ValueError: the scenario is impossible, or there is no such policy.
        StoreError: the model store cannot be used.
    """
    states: list[dict[str, float]] = []

    def watch(split: SplitPolicy, _placement: PlacementPolicy, _interval: int) -> None:
        if split.name == "mab":
            states.append(flatten(split.state()))

    learnt = train(training.scenario, training.policy, training.seed, watch=watch)
    interval_ms = training.scenario.interval_ms(training.scenario.workload())
    return TrainedPolicies(learnt, _in_intervals(by_name(states), interval_ms))


def by_name(states: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Return the series of each figure by name; 0 before its first value."""
    names = {name for entry in states for name in entry}
    return {name: [entry.get(name, 0.0) for entry in states] for name in sorted(names)}


def _in_intervals(series: Mapping[str, list[float]], interval_ms: float) -> dict[str, list[float]]:
    """Convert response times to scheduling intervals, as the paper draws them."""
    return {
        name: [value / interval_ms for value in values] if name.startswith("response_ms.") else values
        for name, values in series.items()
    }


def simulate(request: SimulationRequest, trained: TrainedPolicies | None) -> Run:
    """Run one simulation.

    Raises:
        ValueError: the scenario is impossible, or there is no such policy.
        StoreError: the model store cannot be used.
    """
    scenario = request.scenario
    if request.policy.startswith(f"{UPPER_BOUND}+"):
        return Run(flatten(highest(scenario, request.seed)))
    recorded = scenario.model_copy(update={"records": True})
    result = run(recorded, request.policy, request.seed, learnt=trained.learnt if trained else None)
    plain = result.model_dump(exclude={"records"})
    figures = {**flatten(plain), **decision_shares(plain), **_parts(result, scenario)}
    before = trained.series if trained else {}
    figures |= {f"training.{name}": values[-1] for name, values in before.items()}
    return Run(figures, {**before, "reward_by_tenth": _reward_by_tenth(result, scenario)})


def _reward_by_tenth(result: Result, scenario: Scenario) -> list[float]:
    """Return the mean reward (of 100) of tasks that arrived in each tenth of the run; NaN if none did."""
    tenth_ms = scenario.intervals * scenario.interval_ms(scenario.workload()) / 10
    rewards: list[list[float]] = [[] for _ in range(10)]
    for record in result.records or ():
        if record.known:
            rewards[min(9, int(record.arrived_ms / tenth_ms))].append(reward(record.on_time, record.accuracy))
    return [100 * fmean(values) if values else math.nan for values in rewards]


def _parts(result: Result, scenario: Scenario) -> dict[str, float]:
    """Return the parts of the mean response time of answered tasks, in intervals."""
    answered = [record for record in result.records or () if record.status == "answered"]
    if not answered:
        return {}
    interval_ms = scenario.interval_ms(scenario.workload())
    spent_ms = {
        "wait": [record.wait_ms or 0.0 for record in answered],
        "transfer": [record.transfer_ms or 0.0 for record in answered],
        "compute": [record.compute_ms or 0.0 for record in answered],
    }
    return {
        f"response_parts_intervals.{part}": fmean(values) / interval_ms for part, values in spent_ms.items()
    }
