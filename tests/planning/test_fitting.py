"""A calibration that made a log is found again in it; and a log that says too little is refused."""

from dataclasses import replace
from random import Random

import pytest

from splitplace.messages.cluster import ClusterState
from splitplace.messages.task import TaskDecided
from splitplace.planning.fitting import fit, fit_and_check
from splitplace.planning.forecast import forecast
from splitplace.planning.logged import LogEntry, LoggedRun, logged_run
from splitplace.planning.question import changed
from splitplace.policies.cost import HOP_MS
from splitplace.simulator.arrivals import Arrival
from splitplace.simulator.calibration import Calibration, CalibrationError, Spread
from tests.support.logs import log_of
from tests.support.questions import APPLICATION, CALIBRATION, cluster, question

TRUE = CALIBRATION.model_copy(
    update={
        "hop_ms": 6.0,
        "hops": Spread(quantiles=(0.8, 1.0, 1.5)),
        "intake": Spread(quantiles=(3.0, 4.0, 9.0)),
        "work": Spread(quantiles=(0.8, 1.0, 1.6)),
        "work_factors": {APPLICATION.name: 1.3},
    }
)


def tasks(count: int, *, rate: float = 2.0, deadline_ms: float = 2000.0) -> list[Arrival]:
    random, at_ms, found = Random(7), 0.0, []
    for number in range(count):
        at_ms += random.expovariate(rate) * 1000
        found.append(Arrival(f"sim.{number}", at_ms, APPLICATION.name, random.randint(1, 4), deadline_ms))
    return found


@pytest.fixture(scope="module")
def entries() -> list[LogEntry]:
    return log_of(question(calibration=TRUE, cluster=cluster(3)), tasks(300))


def test_the_constants_that_made_a_log_are_found_in_it(entries: list[LogEntry]) -> None:
    found = fit(logged_run(entries), [APPLICATION], measured_on="a simulation")
    assert found.tasks > 250
    assert found.hop_ms == pytest.approx(TRUE.hop_ms, rel=0.1)
    assert found.work_factors[APPLICATION.name] == pytest.approx(1.3, rel=0.05)
    for share in (0.1, 0.5, 0.9):
        assert found.work.quantile(share) == pytest.approx(TRUE.work.quantile(share), rel=0.1)
        assert found.intake.quantile(share) == pytest.approx(TRUE.intake.quantile(share), rel=0.15)
        assert found.hops.quantile(share) == pytest.approx(TRUE.hops.quantile(share), rel=0.2)
    assert found.speeds_known
    assert found.reach is not None
    assert found.reach.nodes == 3
    assert found.reach.batch.greatest == 4


def test_a_fit_foretells_the_tasks_that_it_did_not_see(entries: list[LogEntry]) -> None:
    check = fit_and_check(logged_run(entries), [APPLICATION], measured_on="a simulation", seeds=2).check
    assert check is not None
    assert check.tasks == 150
    assert check.simulated_hit_rate == pytest.approx(check.live_hit_rate, abs=0.05)
    assert check.simulated_p50_ms == pytest.approx(check.live_p50_ms, rel=0.15)
    assert check.simulated_p95_ms == pytest.approx(check.live_p95_ms, rel=0.3)


def test_without_a_fit_they_are_foretold_wrongly(entries: list[LogEntry]) -> None:
    """So the test above can fail."""
    run = logged_run(entries)
    arrivals = run.arrivals()
    assert arrivals is not None
    plain = changed(
        question(cluster=cluster(3), calibration=CALIBRATION, given=tuple(arrivals), seeds=1), arms=run.arms
    )
    found = forecast(plain)
    assert found.p50_ms is not None
    live = sorted(task.finished.response_ms for task in run.tasks)[len(run.tasks) // 2]
    assert found.p50_ms.value < 0.85 * live


def test_the_check_leaves_out_tasks_that_might_not_have_a_variant_that_could_run(
    entries: list[LogEntry],
) -> None:
    """As in the demo, whose splitter has fewer variants at first: simulated tasks have them all."""
    run = logged_run(entries)
    every = list(range(len(run.tasks)))
    assert list(run.unrestricted) == every, "a policy that scores nothing tells nothing"
    run.tasks = [replace(task, decided=estimated(task.decided, score=0.5)) for task in run.tasks]
    assert list(run.unrestricted) == every
    run.tasks[3] = replace(run.tasks[3], decided=estimated(run.tasks[3].decided, score=None))
    run.tasks[5] = replace(run.tasks[5], decided=estimated(run.tasks[5].decided, score=None, runs=False))
    assert sorted(set(every) - set(run.unrestricted)) == [3]


def estimated(decided: TaskDecided, *, score: float | None, runs: bool = True) -> TaskDecided:
    """Return a decision with another score of every variant, which can or cannot run."""
    news = {"score": score, **({} if runs else {"predicted_ms": None})}
    alternatives = tuple(each.model_copy(update=news) for each in decided.alternatives)
    return decided.model_copy(update={"alternatives": alternatives})


def test_a_run_whose_networks_change_is_checked_with_all_that_it_tells(entries: list[LogEntry]) -> None:
    """The first half tells no hop, because all its tasks are cut; the check knows it from the second."""
    run = logged_run(entries)
    half = len(run.tasks) // 2
    cut = [replace(task, decided=task.decided.model_copy(update={"batch": 500})) for task in run.tasks[:half]]
    run.tasks[:half] = cut
    assert fit(LoggedRun(cut, run.states), [APPLICATION], measured_on="a half").hop_ms == HOP_MS
    rest = run.only(set(range(len(run.tasks))) - set(run.unrestricted[1::2]))
    assert fit(rest, [APPLICATION], measured_on="the rest").hop_ms == pytest.approx(TRUE.hop_ms, rel=0.1)


def test_tasks_arrive_again_as_they_did(entries: list[LogEntry]) -> None:
    again, original = logged_run(entries).arrivals(), tasks(300)
    assert again is not None
    shift_ms = original[0].at_ms - again[0].at_ms
    for task, true in zip(again[:50], original[:50], strict=True):
        assert task.at_ms + shift_ms == pytest.approx(true.at_ms, abs=0.01)
        assert (task.batch, task.deadline_ms) == (true.batch, true.deadline_ms)


def test_a_log_without_nodes_and_times_gives_what_it_can(entries: list[LogEntry]) -> None:
    bare: list[LogEntry] = [(None, each) for _, each in entries if not isinstance(each, ClusterState)]
    found = fit_and_check(logged_run(bare), [APPLICATION], measured_on="an old log")
    assert not found.speeds_known
    assert found.check is None
    assert found.reach is None, "so plans refuse it"
    assert found.intake.median == pytest.approx(4.0, rel=0.15)


def test_too_few_tasks_are_refused(entries: list[LogEntry]) -> None:
    with pytest.raises(CalibrationError, match="20 are needed"):
        fit(logged_run(entries[:30]), [APPLICATION], measured_on="a short log")
    with pytest.raises(CalibrationError, match="--store"):
        fit(logged_run(entries), [], measured_on="a log of networks that nobody knows")


def test_a_calibration_is_kept_as_json(entries: list[LogEntry]) -> None:
    found = fit(logged_run(entries), [APPLICATION], measured_on="a simulation")
    assert Calibration.model_validate_json(found.model_dump_json()) == found
