from collections.abc import Sequence
from math import inf
from typing import Literal

import numpy as np
import pytest

from splitplace.messages.task import StageReport, TaskFinished
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import (
    ActiveJob,
    Infeasible,
    PeriodOutcome,
    Placement,
    PlacementName,
    PlacementRequest,
    Rearranging,
    placement_policy,
)
from splitplace.policies.placement.daso import LEAST_SAMPLES, SurrogatePlacement
from splitplace.policies.placement.objective import Charged, charged, objective, response_share
from splitplace.policies.placement.surrogate import SHAPES
from splitplace.policies.placement.weights import pretrained_weights
from splitplace.policies.scoring import reward_of
from splitplace.policies.stage_work import StageWork
from splitplace.policies.state import StateError
from tests.support.examples import all_of, cluster, job, node, request, three_ways

APP = three_ways(image_ms=10, megabytes=30)
OUTCOME = PeriodOutcome(tasks=1, reward=0.9, energy=0.4, response=0.3)
SURROGATES: tuple[PlacementName, ...] = ("gobi", "daso")


def surrogate(name: str = "daso", *, seed: int = 0) -> SurrogatePlacement:
    return SurrogatePlacement(
        pretrained_weights(name), np.random.default_rng(seed), decision_aware=name == "daso"
    )


def nodes_of_speed(*speeds: float) -> ClusterView:
    return cluster(
        *(node(f"n{place}", speed=speed, loaded=all_of(APP)) for place, speed in enumerate(speeds))
    )


def wanted(task: str = "c.t", variant: str = "whole", due_ms: float = 800.0) -> PlacementRequest:
    return PlacementRequest(task, job(APP, variant, 40), 5.0, due_ms)


def finished(
    task: str = "c.t",
    *,
    variant: str = "whole",
    response_ms: float = 400.0,
    compute_ms: float = 300.0,
    queue_ms: float = 0.0,
    status: Literal["answered", "failed"] = "answered",
) -> TaskFinished:
    return TaskFinished(
        task=task,
        attempt=1,
        application="toy",
        batch=40,
        status=status,
        reason="",
        variant=variant,
        deadline_ms=800.0,
        response_ms=response_ms,
        predicted_ms=None,
        on_time=response_ms <= 800.0,
        accuracy=None,
        variant_accuracy=0.9,
        stages=(StageReport(stage="whole-0", node="n0", queue_ms=queue_ms, compute_ms=compute_ms),),
    )


def seen(policy: SurrogatePlacement, count: int) -> None:
    """Let it place and see the end of some tasks; later ones took longer."""
    view = nodes_of_speed(1, 1, 2)
    for number in range(count):
        assert isinstance(policy.place(wanted(f"c.{number}"), view, 0.0), Placement)
        policy.learn(finished(f"c.{number}", response_ms=300.0 + 10 * number, compute_ms=200.0 + number))


def test_equation_10_by_hand() -> None:
    assert objective(0.9, 0.4, 0.3, alpha=0.25) == pytest.approx(0.9 - 0.25 * 0.4 - 0.75 * 0.3)
    assert response_share(800.0, 800.0) == 0.5
    assert response_share(0.0, 0.0) == 0.0


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("variant", ["whole", "layer", "semantic"])
def test_a_fast_idle_node_is_preferred_to_slow_and_to_busy_ones(name: PlacementName, variant: str) -> None:
    view = nodes_of_speed(0.25, 4, 0.25, 4)
    view.placed("c.other", 1, [StageWork("n3", APP.fragments[0], 5000.0)], 0.0, due_ms=100.0)
    found = placement_policy(name).place(wanted(variant=variant, due_ms=900.0), view, 0.0)
    assert isinstance(found, Placement)
    assert set(found.nodes.values()) == {"n1"}


@pytest.mark.parametrize("name", SURROGATES)
def test_placements_repeat_by_seed(name: PlacementName) -> None:
    view = nodes_of_speed(1, 1, 2, 2, 2)
    once, twice = (
        [placement_policy(name, seed=4).place(wanted(variant="layer"), view, 0.0) for _ in range(3)]
        for _ in range(2)
    )
    assert once == twice


def test_where_the_first_choice_has_no_room_the_next_best_is_taken() -> None:
    view = cluster(
        node("fast", speed=8, megabytes=35, loaded=all_of(APP)),
        node("slow", loaded=all_of(APP)),
        node("tiny", megabytes=5),
    )
    other = APP.fragment(APP.variant("layer").stages[0].fragment)
    view.placed("c.other", 1, [StageWork("fast", other, 1.0)], 0.0)
    found = surrogate().place(wanted(), view, 0.0)
    assert isinstance(found, Placement)
    assert found.nodes == {"whole-0": "slow"}
    small = cluster(node("small", megabytes=12), node("tiny", megabytes=5))
    assert isinstance(surrogate().place(wanted(variant="layer"), small, 0.0), Infeasible)


def test_targets_are_shares_of_equation_10_and_their_mean_is_the_whole() -> None:
    policy = surrogate()
    seen(policy, 10)
    policy.end_period(OUTCOME)
    targets = [sample.target for sample in policy.samples]
    rewards = [0.95 if 300 + 10 * number <= 800 else 0.45 for number in range(10)]
    shares = [response_share(300.0 + 10 * number, 800.0) for number in range(10)]
    assert np.mean(targets) == pytest.approx(np.mean(rewards) - 0.5 * OUTCOME.energy - 0.5 * np.mean(shares))
    dear = (200.0 + 9) / (200.0 + 4.5)  # the last one's computing time over the mean
    assert targets[-1] == pytest.approx(rewards[-1] - 0.5 * OUTCOME.energy * dear - 0.5 * shares[-1])


def test_a_task_without_an_answer_has_no_reward() -> None:
    policy = surrogate()
    policy.place(wanted(), nodes_of_speed(1, 1), 0.0)
    policy.learn(finished(status="failed"))
    policy.end_period(OUTCOME)
    assert policy.samples[0].target == pytest.approx(
        0 - 0.5 * OUTCOME.energy - 0.5 * response_share(400.0, 800.0)
    )


def test_waiting_is_charged_once_more_since_others_waited_as_long() -> None:
    outcome = finished(response_ms=400.0, queue_ms=600.0)
    assert charged(outcome, 2) == Charged(reward_of(outcome), response_share(700.0, 800.0))
    late = charged(outcome, 1)  # 1000 ms in all, where 800 are allowed
    assert late.response == response_share(1000.0, 800.0)
    assert late.reward == pytest.approx(reward_of(outcome) - 0.5)
    nothing = finished(status="failed", queue_ms=600.0)
    assert charged(nothing, 1).reward == 0


def test_tasks_it_did_not_place_or_that_ran_otherwise_teach_nothing() -> None:
    policy = surrogate()
    policy.learn(finished("c.unknown"))
    policy.place(wanted(), nodes_of_speed(1, 1), 0.0)
    policy.learn(finished(variant="layer"))
    policy.end_period(OUTCOME)
    assert policy.samples == ()


def test_what_another_policy_places_teaches_the_same_as_what_it_places_itself() -> None:
    view = nodes_of_speed(1, 2, 3)
    active, watching = surrogate(), surrogate()
    found = active.place(wanted(variant="layer"), view, 0.0)
    assert isinstance(found, Placement)
    watching.observe(wanted(variant="layer"), found.nodes, view, 0.0)
    for policy in (active, watching):
        policy.learn(finished(variant="layer"))
        policy.end_period(OUTCOME)
    assert np.array_equal(active.samples[0].features, watching.samples[0].features)
    assert active.samples[0].target == watching.samples[0].target


def test_training_touches_nothing_until_it_is_adopted() -> None:
    policy = surrogate()
    seen(policy, LEAST_SAMPLES)
    before = policy.state()
    training = policy.end_period(OUTCOME)
    assert training is not None
    adopt = training()
    assert policy.state() == before
    adopt()
    assert policy.state() != before


def test_with_few_samples_or_nothing_new_there_is_no_training() -> None:
    policy = surrogate()
    seen(policy, 5)
    assert policy.end_period(OUTCOME) is None
    seen(policy, LEAST_SAMPLES)
    assert policy.end_period(OUTCOME) is not None
    assert policy.end_period(OUTCOME) is None


def test_learning_from_what_happens_brings_predictions_nearer_to_it() -> None:
    """Everything takes far longer than in what the surrogate was trained on."""
    policy, view = surrogate(), nodes_of_speed(1, 1, 2)

    def error(policy: SurrogatePlacement) -> float:
        return float(np.mean([(policy.expected(sample) - sample.target) ** 2 for sample in policy.samples]))

    for number in range(2 * LEAST_SAMPLES):
        policy.place(wanted(f"c.{number}"), view, 0.0)
        policy.learn(finished(f"c.{number}", response_ms=4000.0))
    training = policy.end_period(OUTCOME)
    assert training is not None
    before = error(policy)
    training()()
    assert error(policy) < 0.7 * before


def active_job(task: str, nodes: Sequence[str], *, remaining: float = 1.0) -> ActiveJob:
    layers = job(APP, "layer", 40)
    names = [stage.name for stage in layers.variant.stages]
    return ActiveJob(
        task, layers, dict(zip(names, nodes, strict=True)), dict.fromkeys(names, remaining), 1500.0
    )


def ledger(view: ClusterView, active: Sequence[ActiveJob]) -> None:
    for running in active:
        works = [
            StageWork(name, running.job.fragments[stage], 133.0) for stage, name in running.nodes.items()
        ]
        view.placed(running.task, 1, works, 0.0, due_ms=running.due_ms)


@pytest.mark.parametrize("name", SURROGATES)
def test_tasks_that_crowd_a_slow_node_are_moved_to_idle_fast_ones(name: PlacementName) -> None:
    view = nodes_of_speed(0.25, 4, 4, 4)
    active = [active_job(f"c.{number}", ["n0"] * 3) for number in range(4)]
    ledger(view, active)
    policy = placement_policy(name)
    assert isinstance(policy, Rearranging)
    moves = policy.rearrange(active, view, 0.0)
    assert moves.keys() == {running.task for running in active}
    moved = [name for nodes in moves.values() for name in nodes.values()]
    assert set(moved) <= {"n1", "n2", "n3"}
    assert len(moved) >= 10


@pytest.mark.parametrize("name", SURROGATES)
def test_what_is_done_or_well_placed_or_on_a_lost_node_stays(name: PlacementName) -> None:
    view = nodes_of_speed(0.25, 4)
    policy = placement_policy(name)
    assert isinstance(policy, Rearranging)
    assert policy.rearrange([], view, 0.0) == {}
    assert policy.rearrange([active_job("c.done", ["n0"] * 3, remaining=0.0)], view, 0.0) == {}
    assert policy.rearrange([active_job("c.lost", ["gone"] * 3)], view, 0.0) == {}
    well = [active_job("c.well", ["n1"] * 3)]
    ledger(view, well)
    assert policy.rearrange(well, view, 0.0) == {}


def test_nothing_moves_to_a_node_without_room() -> None:
    view = cluster(
        node("slow", speed=0.1, loaded=all_of(APP)), node("full", speed=8, megabytes=5, loaded=all_of(APP))
    )
    active = [active_job("c.t", ["slow"] * 3)]
    ledger(view, active)
    assert surrogate().rearrange(active, view, 0.0) == {}


def test_its_state_survives_and_a_foreign_one_is_refused() -> None:
    policy = surrogate()
    seen(policy, LEAST_SAMPLES)
    training = policy.end_period(OUTCOME)
    assert training is not None
    training()()
    again = surrogate()
    again.restore(policy.state())
    assert again.state() == policy.state() != surrogate().state()
    with pytest.raises(StateError, match="w1"):
        again.restore({})


def test_the_shipped_weights_are_those_of_a_surrogate() -> None:
    for name in SURROGATES:
        assert {key: values.shape for key, values in pretrained_weights(name).items()} == SHAPES


def test_a_task_without_a_deadline_can_be_placed() -> None:
    found = surrogate().place(request(APP, "layer", 4, due_ms=inf), nodes_of_speed(1, 2), 0.0)
    assert isinstance(found, Placement)
