"""What `experiments live` compares: recorded arrivals, pairs of tasks, and the page about them."""

from pathlib import Path

import pytest

from splitplace.commands.live.compared import TaskEnd, compared, hit_rate, mcnemar, page
from splitplace.commands.live.recorded import LEAST_MS, LOOSEST, drawn, write_arrivals
from splitplace.commands.live.run import SIMULATIONS, simulated_ends
from splitplace.planning.logged import logged_run
from splitplace.policies.promises import JUDGED_FROM, reliability
from splitplace.simulator.arrivals import Arrival, replayed
from tests.support.logs import log_of
from tests.support.questions import APPLICATION, CALIBRATION, cluster, question


def ends(in_time: list[bool]) -> dict[str, TaskEnd]:
    return {
        f"t{number:04d}": TaskEnd(on_time, 1.0 if on_time else 0.0, 100.0 if on_time else None)
        for number, on_time in enumerate(in_time)
    }


def test_recorded_arrivals_are_read_again_as_they_were_written(tmp_path: Path) -> None:
    arrivals = drawn([APPLICATION], tasks=50, rate=2.0, score=15.0, seed=0)
    write_arrivals(arrivals, tmp_path / "arrivals.csv")
    again = replayed(tmp_path / "arrivals.csv", question().workload)
    assert len(again) == 50
    for task, original in zip(again, arrivals, strict=True):
        assert (task.application, task.batch) == (original.application, original.batch)
        assert task.at_ms == pytest.approx(original.at_ms, abs=0.1)
        assert task.deadline_ms == pytest.approx(original.deadline_ms, abs=0.1)


def test_deadlines_are_absolute_and_the_same_for_every_run() -> None:
    once, again = (drawn([APPLICATION], tasks=50, rate=2.0, score=15.0, seed=0) for _ in range(2))
    assert once == again
    assert drawn([APPLICATION], tasks=50, rate=2.0, score=15.0, seed=1) != once
    slow = drawn([APPLICATION], tasks=50, rate=2.0, score=7.5, seed=0)
    assert all(
        LEAST_MS <= task.deadline_ms < other.deadline_ms for task, other in zip(once, slow, strict=True)
    )
    assert max(task.deadline_ms for task in once) > LOOSEST / 2 * min(task.deadline_ms for task in once)


def test_mcnemar_counts_only_pairs_that_differ() -> None:
    assert mcnemar([(True, True)] * 50 + [(False, False)] * 50) == 1.0
    assert mcnemar([(True, False)] * 5) == pytest.approx(2 / 2**5)
    assert mcnemar([(True, False)] * 5 + [(True, True)] * 90) == pytest.approx(2 / 2**5)
    assert mcnemar([(True, False)] * 10 + [(False, True)] * 10) == 1.0
    assert mcnemar([(True, False)] * 3 + [(False, True)] * 15) == pytest.approx(0.00754, rel=0.01)


def test_each_policy_has_live_and_simulated_figures_and_a_paired_test() -> None:
    good, bad = ends([True] * 18 + [False] * 2), ends([True] * 8 + [False] * 12)
    assert hit_rate(good) == pytest.approx(0.9)
    first, second = compared(
        {"good": [good, good], "bad": [bad, bad]}, {"good": [ends([True] * 20)], "bad": [bad]}
    )
    assert first.live_hit_rate == pytest.approx(0.9)
    assert first.simulated_hit_rate == 1.0
    assert first.error == pytest.approx(0.1)
    assert first.p_value is None
    assert first.live_spread == 0.0
    assert second.p_value is not None
    assert second.p_value == pytest.approx(mcnemar([(True, False)] * 20))
    assert second.live_p50_ms == 100.0


def test_the_page_says_whether_the_aim_was_reached_and_the_order_kept() -> None:
    good, bad = ends([True] * 18 + [False] * 2), ends([True] * 8 + [False] * 12)
    near = page(compared({"a": [good], "b": [bad]}, {"a": [good], "b": [bad]}), {}, ["a fact"], "make it")
    assert "Largest difference: 0.0 points: reached. The order of the policies is\nthe same." in near
    assert "- a fact" in near
    far = page(compared({"a": [good], "b": [bad]}, {"a": [bad], "b": [good]}), {}, [], "make it")
    assert (
        "Largest difference: 50.0 points: **missed**. The order of the policies is\n**not the same**." in far
    )


def test_promises_are_counted_by_what_was_promised() -> None:
    honest = [(0.9, number % 10 > 0) for number in range(JUDGED_FROM)]
    rash = [(0.6, False)] * JUDGED_FROM
    few = [(0.1, True)]
    low, middle, high = reliability([*honest, *rash, *few])
    assert [(each.low, each.tasks) for each in (low, middle, high)] == [
        (0.0, 1),
        (0.5, JUDGED_FROM),
        (0.9, JUDGED_FROM),
    ]
    assert [each.error for each in (low, middle, high)] == pytest.approx([-0.9, 0.6, 0.0])
    assert middle.kept == 0.0

    rows = compared({"a": [ends([True])]}, {"a": [ends([True])]})
    shown = page(rows, {"a": [low, middle, high], "b": [low, high], "c": [low], "d": []}, [], "make it")
    assert "there: a: 60.0 points, **missed**; b: 0.0 points, reached; c: no bin has so many.\n" in shown


def test_recorded_tasks_are_simulated_on_the_nodes_of_the_log() -> None:
    arrivals = drawn([APPLICATION], tasks=12, rate=1.0, score=APPLICATION.reference_score, seed=0)
    again = [
        Arrival(f"sim.{n}", task.at_ms, task.application, task.batch, 5000.0)
        for n, task in enumerate(arrivals)
    ]
    logged = logged_run(log_of(question(cluster=cluster(2)), again))
    runs = simulated_ends("whole+earliest-finish", arrivals, logged, [APPLICATION], CALIBRATION)
    assert len(runs) == SIMULATIONS
    assert all(run.keys() == {task.task for task in arrivals} for run in runs)
    assert any(end.on_time for run in runs for end in run.values())
