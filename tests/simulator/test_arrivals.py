from pathlib import Path
from random import Random
from statistics import fmean, pvariance
from typing import get_args

import pytest

from splitplace.simulator.arrivals import ArrivalPattern, ReplayError, arrivals, replayed
from splitplace.simulator.workload import paper

WORKLOAD = paper()
INTERVAL_MS = 300_000.0


def drawn(pattern: ArrivalPattern, *, seed: int = 0, intervals: int = 400, rate: float = 6.0) -> list[float]:
    """Moments of arrival, in intervals."""
    tasks = arrivals(
        WORKLOAD, Random(seed), pattern=pattern, rate=rate, intervals=intervals, interval_ms=INTERVAL_MS
    )
    return [task.at_ms / INTERVAL_MS for task in tasks]


def per_interval(moments: list[float], intervals: int) -> list[int]:
    counts = [0] * intervals
    for moment in moments:
        counts[int(moment)] += 1
    return counts


@pytest.mark.parametrize("pattern", get_args(ArrivalPattern))
def test_every_pattern_has_the_rate_asked_for(pattern: ArrivalPattern) -> None:
    moments = [moment for seed in range(5) for moment in drawn(pattern, seed=seed)]
    assert len(moments) / (5 * 400) == pytest.approx(6.0, rel=0.08)


def test_bursts_vary_more_than_a_poisson_process() -> None:
    poisson = pvariance(per_interval(drawn("poisson"), 400))
    bursty = pvariance(per_interval(drawn("bursty"), 400))
    assert poisson == pytest.approx(6.0, rel=0.25)
    assert bursty > 2 * poisson


def test_all_tasks_of_an_interval_may_arrive_at_its_beginning() -> None:
    moments = drawn("intervals")
    assert all(moment == int(moment) for moment in moments)
    assert len(set(moments)) < len(moments)


def test_batches_deadlines_and_applications_are_drawn_from_their_ranges() -> None:
    tasks = arrivals(
        WORKLOAD,
        Random(1),
        pattern="poisson",
        rate=6,
        intervals=500,
        interval_ms=INTERVAL_MS,
        deadline_scale=2,
    )
    assert {min(task.batch for task in tasks), max(task.batch for task in tasks)} == {250, 1000}
    for name, (shortest, longest) in WORKLOAD.deadline_intervals.items():
        deadlines = {task.deadline_ms / INTERVAL_MS / 2 for task in tasks if task.application == name}
        assert deadlines == set(map(float, range(shortest, longest + 1)))
    shares = [fmean(task.application == name for task in tasks) for name in WORKLOAD.deadline_intervals]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.05)


def test_nothing_arrives_without_a_rate() -> None:
    assert drawn("poisson", rate=0.0) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0,imagenet,300,60", "no application 'imagenet'"),
        ("zero,mnist,300,60", "could not convert"),
        ("0,mnist,0,60", "out of range"),
        ("0,mnist,300,-1", "out of range"),
        ("nan,mnist,300,60", "out of range"),
        ("0,mnist", "argument must be"),
    ],
)
def test_a_line_that_cannot_be_replayed_is_named(tmp_path: Path, line: str, problem: str) -> None:
    file = tmp_path / "arrivals.csv"
    file.write_text(f"at_s,application,batch,deadline_s\n1,mnist,300,60\n{line}\n")
    with pytest.raises(ReplayError, match=f"line 3: .*{problem}"):
        replayed(file, WORKLOAD)


def test_a_file_of_arrivals_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match=r"none\.csv: cannot be read"):
        replayed(tmp_path / "none.csv", WORKLOAD)
