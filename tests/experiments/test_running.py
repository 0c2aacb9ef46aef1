"""Simulations are done once each, whoever asks for them, by as many workers as one likes."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from joblib.externals.loky import get_reusable_executor

from splitplace.experiments.figures import Run
from splitplace.experiments.plan import Case, Experiment, PolicyRow
from splitplace.experiments.running import (
    ALWAYS_THE_SAME,
    STATELESS,
    RunCache,
    SimulationRequest,
    TrainedPolicies,
    TrainingRun,
    Workers,
    requests_of,
)
from splitplace.simulator import Drift, Learnt, Scenario, run, train

EXPERIMENT = Experiment(
    name="small",
    title="Small",
    question="?",
    policies=("rule", "random"),
    metrics=("reward",),
    cases=(Case("few", {"rate": 2}), Case("many", {"rate": 9})),
)


@pytest.fixture(scope="module", autouse=True)
def _no_pool_is_left() -> Iterator[None]:
    """joblib keeps its pool of processes for the next call, until the interpreter ends."""
    yield
    get_reusable_executor().shutdown(wait=True)


def train_policies(training: TrainingRun) -> TrainedPolicies:
    """Stands for training: the learnt state says which scenario it is from."""
    return TrainedPolicies(Learnt({}, {}), {"rate": [training.scenario.rate]})


def simulate(request: SimulationRequest, trained: TrainedPolicies | None) -> Run:
    """Stands for the simulator: the reward says what was asked."""
    return Run({"reward": request.scenario.rate + request.seed / 10}, trained.series if trained else {})


@pytest.fixture(scope="module", autouse=True)
def _no_worker_left() -> Iterator[None]:
    """End the processes that joblib keeps for the next call."""
    yield
    get_reusable_executor().shutdown(wait=True)


def all_of(requests: Mapping[tuple[str, str], Mapping[int, SimulationRequest]]) -> list[SimulationRequest]:
    return [request for by_seed in requests.values() for request in by_seed.values()]


def test_every_policy_meets_every_case_with_every_seed() -> None:
    requests = requests_of(EXPERIMENT, {"intervals": 4}, seeds=3, first_seed=0)
    assert list(requests) == [("few", "rule"), ("few", "random"), ("many", "rule"), ("many", "random")]
    assert requests["many", "random"][2] == SimulationRequest(
        Scenario(intervals=4, rate=9), "random", 2, None
    )


def test_what_a_case_changes_wins_over_what_is_common() -> None:
    assert requests_of(EXPERIMENT, {"rate": 5}, seeds=1, first_seed=0)["few", "rule"][0].scenario.rate == 2


def test_policies_can_be_restricted() -> None:
    assert list(requests_of(EXPERIMENT, {}, seeds=1, only=("random", "unknown"), first_seed=0)) == [
        ("few", "random"),
        ("many", "random"),
    ]


@pytest.mark.parametrize("workers", [Workers(), Workers(2, "threading"), Workers(2, "loky")])
def test_results_come_back_to_where_they_were_asked_for(workers: Workers) -> None:
    cache = RunCache(train_policies, simulate, workers)
    requests = requests_of(EXPERIMENT, {}, seeds=2, first_seed=0)
    cache.run(all_of(requests), lambda: None)
    runs = cache.runs(requests).by_seed
    assert {cell: [run.figures["reward"] for run in by_seed.values()] for cell, by_seed in runs.items()} == {
        ("few", "rule"): [2, 2.1],
        ("few", "random"): [2, 2.1],
        ("many", "rule"): [9, 9.1],
        ("many", "random"): [9, 9.1],
    }


def test_the_same_simulation_is_done_only_once() -> None:
    cache = RunCache(train_policies, simulate, Workers(1, "threading"))
    first = SimulationRequest(Scenario(rate=2, hosts=3), "rule", 0)
    same = SimulationRequest(Scenario(rate=2, hosts=3, intervals=100), "rule", 0)
    other = SimulationRequest(Scenario(rate=2, hosts=3), "rule", 1)
    ended: list[None] = []
    assert cache.missing([first, same, other]) == ([], [same, other])
    cache.run([first, same], lambda: ended.append(None))
    assert len(ended) == 1
    assert cache.missing([first, same, other]) == ([], [other])


def test_a_policy_learns_once_for_all_cases_and_elsewhere_than_in_them() -> None:
    cache = RunCache(train_policies, simulate, Workers(1, "threading"))
    requests = requests_of(EXPERIMENT, {"rate": 6, "training_intervals": 9}, seeds=2, first_seed=0)
    trainings, runs = cache.missing(all_of(requests))
    assert len(trainings) == 2 * 2
    assert len(runs) == 2 * 2 * 2
    assert {training.scenario.training_intervals for training in trainings} == {9}
    ended: list[None] = []
    cache.run(all_of(requests), lambda: ended.append(None))
    assert len(ended) == 4 + 8
    trained_at = {
        run.series["rate"][0] for by_seed in cache.runs(requests).by_seed.values() for run in by_seed.values()
    }
    assert trained_at == {6}
    assert cache.missing(all_of(requests)) == ([], [])


def test_how_a_policy_decides_holds_for_its_training_too() -> None:
    experiment = replace(EXPERIMENT, cases=(Case("green", {"alpha": 0.9, "rate": 9}),))
    request = requests_of(experiment, {"training_intervals": 9}, seeds=1, first_seed=0)["green", "rule"][0]
    assert request.training is not None
    assert request.training.scenario == Scenario(alpha=0.9, training_intervals=9)
    assert request.scenario == Scenario(alpha=0.9, rate=9)


def test_a_row_with_arms_of_its_own_has_them_in_its_training_too_whatever_the_case_says() -> None:
    experiment = replace(
        EXPERIMENT,
        more=(PolicyRow("rule (one arm)", "rule", ("layer",)),),
        cases=(Case("two arms", {"arms": ("layer", "semantic")}),),
    )
    requests = requests_of(experiment, {"training_intervals": 9}, seeds=1, first_seed=0)
    assert list(requests) == [("two arms", "rule"), ("two arms", "random"), ("two arms", "rule (one arm)")]
    request = requests["two arms", "rule (one arm)"][0]
    assert request.training is not None
    assert (request.policy, request.scenario.arms, request.training.scenario.arms) == (
        "rule",
        ("layer",),
        ("layer",),
    )
    assert requests["two arms", "rule"][0].scenario.arms == ("layer", "semantic")


def test_rows_are_kept_by_their_name_or_by_their_policy() -> None:
    experiment = replace(EXPERIMENT, more=(PolicyRow("rule (one arm)", "rule", ("layer",)),))
    by_policy = requests_of(experiment, {}, seeds=1, only=["rule"], first_seed=0)
    assert [name for case, name in by_policy if case == "few"] == ["rule", "rule (one arm)"]
    by_name = requests_of(experiment, {}, seeds=1, only=["rule (one arm)"], first_seed=0)
    assert [name for case, name in by_name if case == "few"] == ["rule (one arm)"]


def test_arms_that_are_spelled_out_make_no_other_simulation_than_the_policys_own() -> None:
    own = Scenario(training_intervals=9)
    same = own.model_copy(update={"arms": ("semantic", "layer")})
    more = own.model_copy(update={"arms": ("semantic", "layer", "whole")})
    assert SimulationRequest(own, "mab+daso", 0).key == SimulationRequest(same, "mab+daso", 0).key
    assert TrainingRun(own, "mab+daso", 0).key == TrainingRun(same, "mab+daso", 0).key
    assert SimulationRequest(own, "mab+daso", 0).key != SimulationRequest(more, "mab+daso", 0).key
    assert SimulationRequest(own, "mc+gobi", 0).key != SimulationRequest(same, "mc+gobi", 0).key


def test_how_long_and_how_steady_a_simulation_is_does_not_matter_to_the_training_before() -> None:
    calm = Scenario(training_intervals=9)
    drifting = Scenario(training_intervals=9, intervals=7, drift=Drift(at_interval=3, factor=0.5))
    assert TrainingRun(calm, "mab+daso", 0).key == TrainingRun(drifting, "mab+daso", 0).key
    assert SimulationRequest(calm, "mab+daso", 0).key != SimulationRequest(drifting, "mab+daso", 0).key
    longer = Scenario(training_intervals=10)
    assert TrainingRun(calm, "mab+daso", 0).key != TrainingRun(longer, "mab+daso", 0).key


def test_the_folder_of_networks_counts_only_where_networks_are_read(tmp_path: Path) -> None:
    here, there = Scenario(), Scenario(stores=(tmp_path,))
    assert SimulationRequest(here, "mab+daso", 0).key == SimulationRequest(there, "mab+daso", 0).key
    stored = Scenario(profile="store", stores=(tmp_path,))
    elsewhere = Scenario(profile="store", stores=(tmp_path / "b",))
    assert (
        SimulationRequest(stored, "rule+random", 0).key != SimulationRequest(elsewhere, "rule+random", 0).key
    )


@pytest.mark.parametrize(
    ("policy", "trains"),
    [
        ("oracle+gobi", False),
        ("upper-bound+earliest-finish", False),
        ("semantic+earliest-finish", False),
        ("semantic+gobi", True),
        ("rule+earliest-finish", True),  # the splitter corrects its predictions
    ],
)
def test_what_has_nothing_to_learn_is_not_trained(policy: str, *, trains: bool) -> None:
    experiment = replace(EXPERIMENT, policies=(policy,))
    requests = requests_of(experiment, {"training_intervals": 9}, seeds=1, first_seed=0)
    assert (requests["few", policy][0].training is not None) == trains


@pytest.mark.parametrize("split", sorted(ALWAYS_THE_SAME))
@pytest.mark.parametrize("placement", sorted(STATELESS))
def test_training_would_change_nothing_where_it_is_left_out(split: str, placement: str) -> None:
    policy = f"{split}+{placement}"
    scenario = Scenario(hosts=6, rate=3, intervals=3, training_intervals=4, records=True)
    trained = run(scenario, policy, learnt=train(scenario, policy))
    untrained = run(scenario.model_copy(update={"training_intervals": 0}), policy)
    measured = {"decision_ms", "wall_s", "cpu_s"}
    assert trained.model_dump(exclude=measured) == untrained.model_dump(exclude=measured)


def test_a_simulation_that_was_not_done_is_not_made_up() -> None:
    with pytest.raises(KeyError):
        RunCache(train_policies, simulate).runs(requests_of(EXPERIMENT, {}, seeds=1, first_seed=0))
