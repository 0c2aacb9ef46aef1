"""What a calibration changes in a simulation, exactly; and stages that were chosen when a task was placed."""

from pathlib import Path
from random import Random

import pytest
from pydantic import ValidationError

from splitplace.policies.cost import HOP_MS
from splitplace.simulator import Scenario, run
from splitplace.simulator.arrivals import Arrival
from splitplace.simulator.calibration import (
    FEWEST_TASKS,
    Calibration,
    CalibrationError,
    Range,
    Spread,
    read_calibration,
    shipped_calibration,
)
from splitplace.simulator.hosts import Machines
from splitplace.simulator.result import TaskRecord
from splitplace.simulator.workload import Workload
from tests.simulator.worlds import host
from tests.support.free_stages import free_application

APPLICATION = free_application(4, image_ms=(20.0, 20.0, 20.0, 20.0), weight_megabytes=1.0)
WORKLOAD = Workload((APPLICATION,), (1, 1), {APPLICATION.name: (1, 1)}, 1.0, 1)
HOPS_OF_ONE_STAGE = 5
PLAIN = Calibration(measured_on="nothing", tasks=1)


def answers(
    calibration: Calibration | None = None,
    *,
    memory_megabytes: float = 1000.0,
    hosts: int = 1,
    arms: tuple[str, ...] = ("whole",),
    deadline_ms: float = 10_000.0,
) -> list[TaskRecord]:
    """Ten tasks of one image, one after the other."""
    tasks = [Arrival(f"sim.{n}", 2000.0 * n, APPLICATION.name, 1, deadline_ms) for n in range(10)]
    machine = host(memory_megabytes=memory_megabytes, megabytes_per_second=1000.0)
    scenario = Scenario(
        profile="store",
        arms=arms,
        calibration=calibration,
        cluster=Machines.model_validate({"broker": {"megabytes_per_second": 1000.0}, "host": (machine,)}),
        hosts=hosts,
        discipline="deadline",
        mobility=False,
        work_noise=0.0,
        interval_s=1.0,
        intervals=40,
        rules="live",
        records=True,
    )
    result = run(scenario, "rule+earliest-finish", workload=WORKLOAD, tasks=tasks)
    return list(result.records or ())


def response_ms(calibration: Calibration | None) -> float:
    records = answers(calibration)
    assert {record.status for record in records} == {"answered"}
    (first, *others) = {round(record.response_ms or 0.0, 6) for record in records}
    assert not others, "nothing is drawn, so every task takes the same time"
    return first


def test_a_calibration_without_differences_changes_nothing() -> None:
    assert response_ms(PLAIN) == pytest.approx(response_ms(None))


def test_every_hop_of_a_task_takes_what_was_measured() -> None:
    slow = PLAIN.model_copy(update={"hop_ms": HOP_MS + 4.0})
    assert response_ms(slow) - response_ms(None) == pytest.approx(HOPS_OF_ONE_STAGE * 4.0)


def test_hops_of_a_task_differ_by_their_factor() -> None:
    twice = PLAIN.model_copy(update={"hops": Spread.constant(2.0)})
    assert response_ms(twice) - response_ms(None) == pytest.approx(HOPS_OF_ONE_STAGE * HOP_MS)


def test_the_time_before_a_decision_counts_for_the_response() -> None:
    later = PLAIN.model_copy(update={"intake": Spread.constant(7.0)})
    assert response_ms(later) - response_ms(None) == pytest.approx(7.0)


def test_work_takes_the_factor_of_its_application_and_of_the_task() -> None:
    hops_ms = HOPS_OF_ONE_STAGE * HOP_MS
    slower = PLAIN.model_copy(update={"work_factors": {APPLICATION.name: 1.5}, "work": Spread.constant(2.0)})
    assert response_ms(slower) - hops_ms == pytest.approx(3 * (response_ms(None) - hops_ms), rel=0.01)


def test_what_is_drawn_is_the_same_for_the_same_seed() -> None:
    drawn = PLAIN.model_copy(update={"hops": Spread.of([1.0, 2.0, 5.0]), "work": Spread.of([0.9, 1.0, 1.3])})
    first, again = answers(drawn), answers(drawn)
    assert [each.response_ms for each in first] == [each.response_ms for each in again]
    assert len({each.response_ms for each in first}) == len(first)


def test_stages_that_are_chosen_when_a_task_is_placed_run_and_are_answered() -> None:
    """Hosts too small for the stages of the manifest: the placer makes others, which no manifest lists."""
    records = answers(memory_megabytes=2.5, hosts=2, arms=("layer",))
    assert [record.status for record in records] == ["answered"] * 10
    assert {record.variant for record in records} == {"layer"}
    three = answers(memory_megabytes=1.7, hosts=4, arms=("layer",))
    assert [record.status for record in three] == ["answered"] * 10


def test_the_rules_of_the_live_gateway_are_not_scaled() -> None:
    known = Scenario(rules="live").retry_rules(WORKLOAD)
    assert known.grace_ms == 500.0
    assert Scenario(rules="product").retry_rules(Scenario().workload()).grace_ms > known.grace_ms


def test_a_spread_draws_what_it_was_made_of() -> None:
    random = Random(0)
    values = [random.lognormvariate(0.0, 0.5) for _ in range(5000)]
    spread = Spread.of(values)
    drawn = sorted(spread.draw(random) for _ in range(5000))
    assert drawn[2500] == pytest.approx(1.0, rel=0.05)
    assert drawn[4500] == pytest.approx(sorted(values)[4500], rel=0.05)
    assert spread.median == pytest.approx(1.0, rel=0.05)


def test_quantiles_that_fall_are_refused() -> None:
    with pytest.raises(ValidationError, match="must not fall"):
        Spread(quantiles=(2.0, 1.0))


def test_a_file_that_is_no_calibration_says_what_makes_one(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    file.write_text("{}")
    with pytest.raises(CalibrationError, match="splitplace calibrate"):
        read_calibration(file)


def test_a_range_reaches_four_times_beyond_its_ends() -> None:
    known = Range(least=8.0, greatest=25.0)
    assert known.reaches(2.0)
    assert known.reaches(100.0)
    assert not known.reaches(1.9)
    assert not known.reaches(101.0)


def test_the_calibration_that_ships_says_what_it_was_made_on_and_how_wrong_it_was() -> None:
    calibration = shipped_calibration()
    assert calibration.measured_on
    assert calibration.tasks >= FEWEST_TASKS
    assert calibration.check is not None
