"""One simulation, as the experiments see it."""

from statistics import fmean

from experiments.figures import Run, decision_shares, flatten
from experiments.running import Request
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
    return Run({**flatten(plain), **decision_shares(plain), **_parts(result, scenario)})


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
