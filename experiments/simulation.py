"""One simulation, as the experiments see it."""

import math
from statistics import fmean

from experiments.figures import Run, decision_shares, flatten
from experiments.running import Request
from policies.scoring import reward
from simulator import Result, Scenario, TaskRecord, run


def simulate(request: Request) -> Run:
    """Runs the simulator.

    Raises:
        ValueError: the scenario cannot be, or there is no such policy.
        bus.store.StoreError: the model store cannot be used.
    """
    scenario = request.scenario
    result = run(scenario.model_copy(update={"records": True}), request.policy, request.seed)
    plain = result.model_dump(exclude={"records"})
    figures = {**flatten(plain), **decision_shares(plain), **_parts(result, scenario)}
    return Run(figures, {"reward_by_tenth": _reward_by_tenth(result, scenario)})


def _reward_by_tenth(result: Result, scenario: Scenario) -> list[float]:
    """Mean reward, of 100, of the tasks that arrived in each tenth of the run; NaN where none did."""
    tenth_ms = scenario.intervals * scenario.interval_ms(scenario.workload()) / 10
    rewards: list[list[float]] = [[] for _ in range(10)]
    for record in result.records or ():
        if record.known:
            rewards[min(9, int(record.arrived_ms / tenth_ms))].append(reward(record.on_time, record.accuracy))
    return [100 * fmean(values) if values else math.nan for values in rewards]


def _parts(result: Result, scenario: Scenario) -> dict[str, float]:
    """What the mean response time is made of, in intervals, over the answered tasks."""
    answered = [record for record in result.records or () if record.status == "answered"]
    if not answered:
        return {}
    interval_ms = scenario.interval_ms(scenario.workload())
    return {
        f"response_parts_intervals.{part}": fmean(part_ms(record, part) for record in answered) / interval_ms
        for part in ("wait", "transfer", "compute")
    }


def part_ms(record: TaskRecord, part: str) -> float:
    """One part of a task's response time."""
    parts = {"wait": record.wait_ms, "transfer": record.transfer_ms, "compute": record.compute_ms}
    return parts[part] or 0.0
