"""Tasks that arrive near the end are awaited, while energy and cost stay those of the run."""

import pytest

from splitplace.simulator import Scenario, run
from splitplace.simulator.running import train

SHORT = Scenario(
    profile="paper-bzip2", intervals=3, hosts=5, rate=3.0, rules="paper", arms=("layer",), work_noise=0.0
)


def test_draining_lets_every_task_end() -> None:
    cut, drained = (
        run(SHORT.model_copy(update={"drain_intervals": intervals}), "layer+earliest-finish", 0)
        for intervals in (0, 100)
    )
    assert cut.tasks.unfinished + cut.tasks.overdue_unfinished > 0
    assert drained.tasks.unfinished + drained.tasks.overdue_unfinished == 0
    assert drained.tasks.arrived == cut.tasks.arrived
    assert drained.tasks.answered == cut.tasks.arrived
    assert drained.energy_mj_per_interval == cut.energy_mj_per_interval
    assert (drained.cost_usd, drained.fairness) == (cut.cost_usd, cut.fairness)
    assert drained.objective == cut.objective


def test_draining_ends_after_its_time() -> None:
    result = run(SHORT.model_copy(update={"drain_intervals": 1}), "layer+earliest-finish", 0)
    assert result.tasks.unfinished + result.tasks.overdue_unfinished > 0


def test_training_does_not_drain() -> None:
    scenario = SHORT.model_copy(update={"training_intervals": 2})
    again = scenario.model_copy(update={"drain_intervals": 9})
    assert train(scenario, "mab+earliest-finish", 0) == train(again, "mab+earliest-finish", 0)


def test_the_mean_accuracy_counts_tasks_without_an_answer() -> None:
    scenario = SHORT.model_copy(update={"rules": "product", "drain_intervals": 100, "rate": 20})
    result = run(scenario.model_copy(update={"records": True}), "layer+earliest-finish", 0)
    ended = [record for record in result.records or () if record.status not in {"overdue", "unfinished"}]
    assert result.tasks.answered < len(ended)
    assert result.accuracy == pytest.approx(sum(record.accuracy for record in ended) / len(ended))
