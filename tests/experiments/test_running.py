"""Simulations are done once each, whoever asks for them, by as many workers as one likes."""

import pytest

from experiments.figures import Run
from experiments.plan import Case, Experiment
from experiments.running import Laboratory, Request, Workers, requests_of
from simulator import Scenario

EXPERIMENT = Experiment(
    name="small",
    title="Small",
    question="?",
    policies=("a", "b"),
    metrics=("reward",),
    cases=(Case("few", {"rate": 2}), Case("many", {"rate": 9})),
)


def simulate(request: Request) -> Run:
    """Stands for the simulator: the reward says what was asked."""
    return Run({"reward": request.scenario.rate + request.seed / 10})


def test_every_policy_meets_every_case_with_every_seed() -> None:
    requests = requests_of(EXPERIMENT, {"intervals": 4}, seeds=3)
    assert list(requests) == [("few", "a"), ("few", "b"), ("many", "a"), ("many", "b")]
    assert requests["many", "b"][2] == Request(Scenario(intervals=4, rate=9), "b", 2)


def test_what_a_case_changes_wins_over_what_is_common() -> None:
    assert requests_of(EXPERIMENT, {"rate": 5}, seeds=1)["few", "a"][0].scenario.rate == 2


def test_policies_can_be_restricted() -> None:
    assert list(requests_of(EXPERIMENT, {}, seeds=1, only=("b", "unknown"))) == [("few", "b"), ("many", "b")]


@pytest.mark.parametrize("workers", [Workers(), Workers(2, "threading")])
def test_results_come_back_to_where_they_were_asked_for(workers: Workers) -> None:
    laboratory = Laboratory(simulate, workers)
    requests = requests_of(EXPERIMENT, {}, seeds=2)
    laboratory.run([request for by_seed in requests.values() for request in by_seed.values()], lambda: None)
    runs = laboratory.runs(requests).by_seed
    assert {cell: [run.figures["reward"] for run in by_seed.values()] for cell, by_seed in runs.items()} == {
        ("few", "a"): [2, 2.1],
        ("few", "b"): [2, 2.1],
        ("many", "a"): [9, 9.1],
        ("many", "b"): [9, 9.1],
    }


def test_the_same_simulation_is_done_only_once() -> None:
    laboratory = Laboratory(simulate, Workers(1, "threading"))
    first = Request(Scenario(rate=2, hosts=3), "a", 0)
    same = Request(Scenario(rate=2, hosts=3, intervals=100), "a", 0)
    other = Request(Scenario(rate=2, hosts=3), "a", 1)
    ended: list[None] = []
    assert laboratory.missing([first, same, other]) == [same, other]
    laboratory.run([first, same], lambda: ended.append(None))
    assert len(ended) == 1
    assert laboratory.missing([first, same, other]) == [other]


def test_a_simulation_that_was_not_done_is_not_made_up() -> None:
    with pytest.raises(KeyError):
        Laboratory(simulate).runs(requests_of(EXPERIMENT, {}, seeds=1))
