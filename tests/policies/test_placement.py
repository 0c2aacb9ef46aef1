from itertools import product
from math import inf
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitplace.messages.application import Application
from splitplace.messages.cluster import NodeState
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import (
    PLACEMENT_POLICIES,
    Infeasible,
    Placement,
    PlacementName,
    PlacementRequest,
    few_nodes,
    place,
    placement_policy,
)
from splitplace.policies.prediction import StageSchedule, predict
from splitplace.policies.stage_work import StageWork
from tests.policies.placements import placed, random_view
from tests.support.examples import (
    FEATURES,
    LOGITS,
    all_of,
    application,
    chain,
    cluster,
    fragment,
    node,
    request,
    three_ways,
)

NAMES = get_args(PlacementName)


def refused(found: Placement | Infeasible) -> Infeasible:
    assert isinstance(found, Infeasible), found
    return found


def earliest(
    app: Application, variant: str, batch: int, view: ClusterView, *, avoid: tuple[str, ...] = ()
) -> Placement | Infeasible:
    return placement_policy("earliest-finish").place(request(app, variant, batch, avoid=avoid), view, 0.0)


def test_every_name_makes_a_policy_of_that_name() -> None:
    assert set(NAMES) == set(PLACEMENT_POLICIES)
    assert [placement_policy(name).name for name in NAMES] == list(NAMES)


def test_a_single_stage_goes_to_the_fastest_node_until_that_is_busy() -> None:
    app = three_ways(image_ms=10)
    view = cluster(
        *(node(name, speed=speed, loaded=all_of(app)) for name, speed in (("slow", 1), ("fast", 2)))
    )
    assert placed(earliest(app, "whole", 10, view)).nodes == {"whole-0": "fast"}
    view.placed("c.other", 1, [StageWork("fast", app.fragments[0], 60.0)], 0.0)
    assert placed(earliest(app, "whole", 10, view)).nodes == {"whole-0": "slow"}


def test_a_node_that_has_the_fragment_loaded_wins_over_one_that_must_fetch_it() -> None:
    app = three_ways(image_ms=1)
    view = cluster(node("fast", speed=4), node("ready", loaded=all_of(app)))
    assert placed(earliest(app, "whole", 4, view)).nodes == {"whole-0": "ready"}
    assert placed(earliest(app, "whole", 400, view)).nodes == {"whole-0": "fast"}


def test_among_equals_the_least_loaded_wins_then_the_first_by_name() -> None:
    app = three_ways()
    view = cluster(*(node(name, loaded=all_of(app)) for name in "cab"))
    assert placed(earliest(app, "whole", 4, view)).nodes == {"whole-0": "a"}
    view = cluster(node("a", queue_ms=1, loaded=all_of(app)), node("b", loaded=all_of(app)))
    assert placed(earliest(app, "whole", 4, view)).nodes == {"whole-0": "b"}


def test_a_large_batch_is_spread_as_a_pipeline() -> None:
    app = three_ways(image_ms=6, micro_batch=2)
    view = cluster(*(node(name, loaded=all_of(app)) for name in "abc"))
    assert len(set(placed(earliest(app, "layer", 60, view)).nodes.values())) == 3


def test_branches_go_to_different_nodes() -> None:
    app = three_ways(image_ms=50)
    view = cluster(*(node(name, loaded=all_of(app)) for name in "ab"))
    assert set(placed(earliest(app, "semantic", 4, view)).nodes.values()) == {"a", "b"}


def test_greed_does_not_scatter_a_chain_that_one_node_finishes_sooner() -> None:
    """`a` is a little faster in the first stage, but its link makes leaving it dear."""
    first = fragment("first", image_ms=10, output=FEATURES)
    second = fragment("second", image_ms=10, source=FEATURES, output=LOGITS, megabytes=50)
    app = application([first, second], [chain("layer", [first, second])])
    view = cluster(
        node("a", speed=1.2, link=0.1, megabytes=10, loaded=all_of(app)),
        node("b", speed=1.0, link=100, loaded=all_of(app)),
    )
    assert placed(earliest(app, "layer", 1, view)).nodes == {"layer-0": "b", "layer-1": "b"}


def test_a_big_late_stage_gets_the_one_node_it_fits_although_an_early_one_wanted_it() -> None:
    first = fragment("first", image_ms=10, megabytes=50, output=FEATURES)
    second = fragment("second", image_ms=1, megabytes=80, source=FEATURES, output=LOGITS)
    app = application([first, second], [chain("layer", [first, second])])
    view = cluster(
        node("big", speed=4, megabytes=100, loaded=all_of(app)),
        node("small", megabytes=60, loaded=all_of(app)),
    )
    assert placed(earliest(app, "layer", 4, view)).nodes == {"layer-0": "small", "layer-1": "big"}


def test_a_stage_that_fits_nowhere_is_named_however_many_nodes_there_are() -> None:
    small = fragment("small", megabytes=10, output=FEATURES)
    large = fragment("large", megabytes=90, source=FEATURES, output=LOGITS)
    app = application([small, large], [chain("layer", [small, large])])
    nodes = [node(f"n{index}", megabytes=50, loaded=all_of(app)) for index in range(few_nodes.FEW_NODES + 1)]
    found = refused(earliest(app, "layer", 1, cluster(*nodes)))
    assert "stage layer-1 needs 85.8 MiB" in found.reason
    assert not found.temporary


def test_nodes_to_avoid_are_avoided_unless_nobody_else_can() -> None:
    app = three_ways()
    policy = placement_policy("earliest-finish")
    view = cluster(node("a", speed=9), node("b"))
    assert placed(place(policy, request(app, "whole", 1, avoid=["a"]), view, 0.0)).nodes == {"whole-0": "b"}
    assert refused(earliest(app, "whole", 1, view, avoid=("a", "b"))).temporary
    again = place(policy, request(app, "whole", 1, avoid=["a", "b"]), view, 0.0)
    assert placed(again).nodes == {"whole-0": "a"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("nodes", "reason", "temporary"),
    [
        ([], "no edge node is online", True),
        ([node("a", online=False)], "no edge node is online", True),
        ([node("a", speed=0), node("b", link=0)], "none has a speed and a link", True),
        (
            [node("a", megabytes=2), node("b", megabytes=1)],
            "needs 2.86 MiB of memory, the largest node (a) has 1.91 MiB",
            False,
        ),
    ],
)
def test_where_nothing_is_feasible_the_reason_says_what_is_missing(
    name: PlacementName, nodes: list[NodeState], reason: str, *, temporary: bool
) -> None:
    found = refused(placement_policy(name).place(request(three_ways(), "whole", 1), cluster(*nodes), 0.0))
    assert reason in found.reason
    assert found.temporary == temporary


@pytest.mark.parametrize("name", NAMES)
def test_before_the_cluster_is_known_waiting_can_help(name: PlacementName) -> None:
    found = placement_policy(name).place(request(three_ways(), "whole", 1), ClusterView(), 0.0)
    assert refused(found).temporary


@pytest.mark.parametrize("name", NAMES)
def test_memory_that_tasks_hold_comes_back(name: PlacementName) -> None:
    app = three_ways(megabytes=60)
    view = cluster(node("a"))
    view.placed("c.other", 1, [StageWork("a", fragment("other", megabytes=70), 5.0)], 0.0)
    found = refused(placement_policy(name).place(request(app, "whole", 1), view, 0.0))
    assert found.temporary
    assert "tasks that run leave 28.6 MiB at most" in found.reason
    view.finished("c.other", 1.0)
    placed(placement_policy(name).place(request(app, "whole", 1), view, 1.0))


@pytest.mark.parametrize("name", NAMES)
def test_a_variant_too_big_for_all_nodes_together_is_not_worth_waiting_for(name: PlacementName) -> None:
    found = placement_policy(name).place(
        request(three_ways(megabytes=30), "layer", 1), cluster(node("a", megabytes=20)), 0.0
    )
    assert not refused(found).temporary


def test_a_node_as_good_as_dead_is_not_used() -> None:
    app = three_ways()
    view = cluster(node("a", link=1e-9))
    found = refused(place(placement_policy("random"), request(app, "whole", 1), view, 0.0))
    assert found.reason == "whole would take more than 24 hours"


def test_random_placement_reaches_every_feasible_node_and_repeats_by_seed() -> None:
    app = three_ways(megabytes=30)
    view = cluster(*(node(name) for name in "abcd"), node("tiny", megabytes=5))
    policy = placement_policy("random", seed=3)
    seen = [placed(policy.place(request(app, "whole", 1), view, 0.0)).nodes["whole-0"] for _ in range(100)]
    assert set(seen) == set("abcd")
    again = placement_policy("random", seed=3)
    assert seen == [
        placed(again.place(request(app, "whole", 1), view, 0.0)).nodes["whole-0"] for _ in range(100)
    ]


@given(
    seed=st.integers(0, 10_000),
    name=st.sampled_from(NAMES),
    variant=st.sampled_from(["whole", "layer", "semantic"]),
    batch=st.integers(1, 40),
)
def test_every_placement_is_feasible_and_its_prediction_is_that_of_predict(
    seed: int, name: PlacementName, variant: str, batch: int
) -> None:
    app = three_ways(megabytes=30, image_ms=3, call_ms=0.2)
    view = random_view(seed, app)
    wanted = PlacementRequest("c.t", request(app, variant, batch).job, 5.0, 500.0, frozenset({"n0"}))
    found = placement_policy(name, seed=seed).place(wanted, view, 0.0)
    if isinstance(found, Infeasible):
        assert found.reason
        return
    assert list(found.nodes) == [stage.name for stage in app.variant(variant).stages]
    assert "n0" not in found.nodes.values()
    assert set(found.nodes.values()) <= view.nodes.keys()
    again = predict(view, wanted.job, found.nodes, 0.0, start_ms=5.0, due_ms=500.0)
    assert found.prediction == again
    assert 0 < again.response_ms < 1e9
    for chosen in set(found.nodes.values()):
        needed = {
            app.variant(variant).stages[index].fragment
            for index, stage in enumerate(found.nodes)
            if found.nodes[stage] == chosen
        }
        memory = sum(
            app.fragment(sha256).peak_memory_bytes for sha256 in needed if not view.reserves(chosen, sha256)
        )
        assert memory <= view.free_bytes(chosen)


@given(
    seed=st.integers(0, 10_000),
    variant=st.sampled_from(["whole", "layer", "semantic"]),
    batch=st.integers(1, 40),
)
def test_earliest_finish_is_never_worse_than_the_best_single_node(
    seed: int, variant: str, batch: int
) -> None:
    app = three_ways(megabytes=30, image_ms=3, call_ms=0.2)
    view = random_view(seed, app)
    wanted = request(app, variant, batch)
    found = placement_policy("earliest-finish").place(wanted, view, 0.0)
    for name, state in view.nodes.items():
        memory = sum(piece.peak_memory_bytes for piece in wanted.job.fragments.values())
        if memory <= view.free_bytes(name) and state.score and state.link_megabytes_per_second and state.up:
            alone = predict(view, wanted.job, dict.fromkeys(wanted.job.fragments, name), 0.0)
            assert placed(found).prediction.response_ms <= alone.response_ms + 1e-9


@given(seed=st.integers(0, 10_000), batch=st.integers(1, 40), due_ms=st.sampled_from([20.0, 300.0, inf]))
def test_earliest_finish_misses_no_node_on_which_a_stage_would_end_sooner(
    seed: int, batch: int, due_ms: float
) -> None:
    """What lets it leave most nodes unasked is a lower bound, so the answer is that of asking all."""
    app = three_ways(megabytes=30, image_ms=3, call_ms=0.2)
    view = random_view(seed, app)
    wanted = request(app, "whole", batch, start_ms=5.0, due_ms=due_ms)
    ends = [
        predict(view, wanted.job, {"whole-0": name}, 0.0, start_ms=5.0, due_ms=due_ms).response_ms
        for name, state in view.nodes.items()
        if view.free_bytes(name) >= 30_000_000 or view.reserves(name, app.fragments[0].sha256)
        if state.score and state.link_megabytes_per_second and state.up
    ]
    found = placement_policy("earliest-finish").place(wanted, view, 0.0)
    assert isinstance(found, Infeasible) == (not ends)
    if isinstance(found, Placement):
        assert found.prediction.response_ms == pytest.approx(min(ends), rel=1e-9)


def by_trying_all(wanted: PlacementRequest, view: ClusterView) -> float | None:
    """Least response of all feasible placements."""
    stages = wanted.job.variant.stages
    best: float | None = None
    for names in product(view.nodes, repeat=len(stages)):
        schedule = StageSchedule(view, wanted.job, 0.0, wanted.start_ms, wanted.due_ms)
        for stage, name in zip(stages, names, strict=True):
            state = view.nodes[name]
            if not (
                state.score and state.link_megabytes_per_second and state.up and schedule.fits(stage, name)
            ):
                break
            schedule.put(stage, schedule.offer(stage, name))
        else:
            response_ms = schedule.prediction().response_ms
            best = response_ms if best is None else min(best, response_ms)
    return best


@given(
    seed=st.integers(0, 10_000),
    variant=st.sampled_from(["whole", "layer", "semantic"]),
    batch=st.sampled_from([1, 7, 40]),
)
def test_few_nodes_are_chosen_as_many_would_be(seed: int, variant: str, batch: int) -> None:
    app = three_ways(megabytes=30, image_ms=3, call_ms=0.2)
    view = random_view(seed, app)
    wanted = request(app, variant, batch)
    found = {}
    for most in (0, 6):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(few_nodes, "FEW_NODES", most)
            found[most] = placement_policy("earliest-finish").place(wanted, view, 0.0)
    assert found[0] == found[6]


@given(seed=st.integers(0, 10_000), variant=st.sampled_from(["whole", "layer", "semantic"]))
@settings(max_examples=40)
def test_exact_is_as_good_as_trying_all(seed: int, variant: str) -> None:
    app = three_ways(megabytes=30, image_ms=3, call_ms=0.2)
    view = random_view(seed, app)
    wanted = request(app, variant, 12, start_ms=5.0)
    best = by_trying_all(wanted, view)
    found = placement_policy("exact").place(wanted, view, 0.0)
    assert isinstance(found, Infeasible) == (best is None)
    if isinstance(found, Placement):
        assert found.prediction.response_ms == pytest.approx(best)


def test_exact_gives_up_on_a_large_cluster_with_the_best_so_far() -> None:
    app = three_ways(image_ms=6, micro_batch=2)
    view = cluster(*(node(f"n{index}", speed=1 + index % 7, loaded=all_of(app)) for index in range(60)))
    wanted = request(app, "layer", 60)
    greedy, found = (
        placed(placement_policy(name).place(wanted, view, 0.0)) for name in ("earliest-finish", "exact")
    )
    assert found.prediction.response_ms <= greedy.prediction.response_ms


def test_genetic_beats_random_placement_and_repeats_by_seed() -> None:
    app = three_ways(image_ms=6, micro_batch=2)
    view = cluster(*(node(f"n{index}", speed=0.1 + index, loaded=all_of(app)) for index in range(8)))
    wanted = request(app, "layer", 60)
    responses = {
        name: [
            placed(placement_policy(name, seed=seed).place(wanted, view, 0.0)).prediction.response_ms
            for seed in range(5)
        ]
        for name in ("genetic", "random")
    }
    assert max(responses["genetic"]) < min(responses["random"])
    again = placed(placement_policy("genetic", seed=3).place(wanted, view, 0.0))
    assert again.prediction.response_ms == responses["genetic"][3]


def test_round_robin_takes_all_nodes_in_turn_and_passes_over_those_without_room() -> None:
    app = three_ways(megabytes=30)
    view = cluster(*(node(name) for name in "abc"), node("bb", megabytes=5))
    policy = placement_policy("round-robin")
    seen = [placed(policy.place(request(app, "whole", 1), view, 0.0)).nodes["whole-0"] for _ in range(5)]
    assert seen == ["a", "b", "c", "a", "b"]
    assert list(placed(policy.place(request(app, "layer", 1), view, 0.0)).nodes.values()) == ["c", "a", "b"]
