"""A stage stands on several nodes where that is predicted to answer sooner."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.messages.application import Application
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import Infeasible, Placement, PlacementRequest, placement_policy
from splitplace.policies.placement.earliest_finish import FINEST, LEAST_GAIN
from splitplace.policies.prediction import PlacedShare, StageSchedule, on_nodes, predict, scheduled
from tests.policies.placements import placed, random_view
from tests.support.examples import all_of, cluster, job, node, request, three_ways

VARIANTS = st.sampled_from(["whole", "layer", "semantic"])
REPLICAS = 4


def found(app: Application, view: ClusterView, variant: str = "whole", batch: int = 32) -> Placement:
    policy = placement_policy("earliest-finish", replicas=REPLICAS)
    return placed(policy.place(request(app, variant, batch), view, 0.0))


def alone(app: Application, view: ClusterView, variant: str = "whole", batch: int = 32) -> Placement:
    return placed(placement_policy("earliest-finish").place(request(app, variant, batch), view, 0.0))


def counts(placement: Placement) -> dict[str, int]:
    """Images of each node."""
    sizes = placement.job.micro_batches
    return {
        share.node: sum(sizes[number] for number in share.micro_batches or range(len(sizes)))
        for share in placement.shares
    }


def nodes_of_speeds(app: Application, *speeds: float) -> ClusterView:
    return cluster(
        *(node(f"n{index}", speed=speed, loaded=all_of(app)) for index, speed in enumerate(speeds))
    )


def test_two_equal_nodes_share_a_batch_evenly() -> None:
    app = three_ways(image_ms=5, call_ms=1, micro_batch=16)
    view = nodes_of_speeds(app, 1, 1)
    shared = found(app, view)
    assert counts(shared) == {"n0": 16, "n1": 16}
    assert shared.prediction.response_ms * 1.8 < alone(app, view).prediction.response_ms


def test_a_node_three_times_as_fast_gets_three_quarters() -> None:
    app = three_ways(image_ms=5, call_ms=1, micro_batch=16)
    view = nodes_of_speeds(app, 1, 3)
    shared = found(app, view)
    assert counts(shared) == {"n1": 24, "n0": 8}
    assert shared.job.micro_batch == 8  # 16 could not be dealt so
    assert shared.prediction.response_ms * 1.25 < alone(app, view).prediction.response_ms


def test_a_batch_that_is_one_micro_batch_is_cut_to_be_shared() -> None:
    app = three_ways(image_ms=20, micro_batch=16)
    shared = found(app, nodes_of_speeds(app, 1, 1), batch=16)
    assert counts(shared) == {"n0": 8, "n1": 8}
    assert len(shared.job.micro_batches) <= FINEST


@pytest.mark.parametrize("batch", [1, 32])
def test_what_gains_too_little_is_not_shared(batch: int) -> None:
    app = three_ways(image_ms=5 if batch == 1 else 0.05, call_ms=1, micro_batch=16)
    view = nodes_of_speeds(app, 1, 1)
    assert found(app, view, batch=batch) == alone(app, view, batch=batch)


def test_no_more_nodes_share_than_allowed_and_a_node_too_small_is_left_out() -> None:
    app = three_ways(image_ms=20, micro_batch=4, megabytes=3)
    assert len(counts(found(app, nodes_of_speeds(app, *[1] * 50)))) == REPLICAS
    big, small = (node(name, megabytes=size, loaded=all_of(app)) for name, size in (("a", 10), ("b", 2)))
    assert counts(found(app, cluster(big, small))) == {"a": 32}


def test_chains_and_branches_have_replicas_too() -> None:
    app = three_ways(image_ms=30, micro_batch=4)
    view = nodes_of_speeds(app, *[1] * 6)
    for variant in ("layer", "semantic"):
        shared = found(app, view, variant)
        assert len(shared.shares) > len(app.variant(variant).stages)
        before_ms = alone(app, view, variant).prediction.response_ms
        assert shared.prediction.response_ms < before_ms * (1 - LEAST_GAIN)


def test_nodes_to_avoid_get_no_share() -> None:
    app = three_ways(image_ms=20, micro_batch=4)
    asked = request(app, "whole", 32, avoid=["n1"])
    policy = placement_policy("earliest-finish", replicas=REPLICAS)
    shared = placed(policy.place(asked, nodes_of_speeds(app, 1, 1, 1), 0.0))
    assert set(counts(shared)) == {"n0", "n2"}


def test_the_ledger_holds_each_share_on_its_node() -> None:
    app = three_ways(image_ms=5, call_ms=1, micro_batch=16)
    view = nodes_of_speeds(app, 1, 3)
    shared = found(app, view)
    view.placed("c.t", 1, shared.stage_work(), 0.0)
    assert view.ready_ms("n0", 0.0) == pytest.approx(1 + 8 * 5)
    assert view.ready_ms("n1", 0.0) == pytest.approx((3 + 24 * 5) / 3)
    assert view.reserves("n0", app.fragments[0].sha256)
    view.finished("c.t", 1.0)
    assert view.ready_ms("n1", 1.0) == 1.0


@given(seed=st.integers(0, 10_000), variant=VARIANTS, batch=st.integers(1, 40), replicas=st.integers(2, 5))
def test_a_shared_placement_is_feasible_complete_and_predicted_as_it_stands(
    seed: int, variant: str, batch: int, replicas: int
) -> None:
    app = three_ways(megabytes=30, image_ms=3, call_ms=0.2)
    view = random_view(seed, app)
    wanted = PlacementRequest("c.t", request(app, variant, batch).job, 5.0, 500.0, frozenset({"n0"}))
    plain = placement_policy("earliest-finish").place(wanted, view, 0.0)
    answer = placement_policy("earliest-finish", replicas=replicas).place(wanted, view, 0.0)
    if isinstance(answer, Infeasible):
        assert plain == answer
        return
    assert answer.prediction.response_ms <= placed(plain).prediction.response_ms
    again = scheduled(view, answer.job, answer.shares, 0.0, start_ms=5.0, due_ms=500.0)
    assert again.shares == answer.shares
    assert again.prediction().response_ms == pytest.approx(answer.prediction.response_ms)
    every = list(range(len(answer.job.micro_batches)))
    needed: dict[str, set[str]] = {}
    for stage in app.variant(variant).stages:
        shares = [share for share in answer.shares if share.stage == stage.name]
        assert len({share.node for share in shares}) == len(shares) <= replicas
        numbers = [number for share in shares for number in share.micro_batches or every]
        assert sorted(numbers) == every
        for share in shares:
            assert view.nodes[share.node].online
            assert share.node != "n0"
            needed.setdefault(share.node, set()).add(stage.fragment)
    for name, fragments in needed.items():
        new = [app.fragment(sha256) for sha256 in fragments if not view.reserves(name, sha256)]
        assert sum(piece.peak_memory_bytes for piece in new) <= view.free_bytes(name)


@given(seed=st.integers(0, 10_000), variant=VARIANTS, batch=st.integers(1, 40))
def test_one_replica_is_predicted_as_a_stage_on_one_node(seed: int, variant: str, batch: int) -> None:
    app = three_ways(image_ms=3, call_ms=0.2)
    view = random_view(seed, app)
    names = [name for name, state in view.nodes.items() if state.score and state.link_megabytes_per_second]
    if not names:
        return
    wanted = job(app, variant, batch)
    nodes = {
        stage.name: names[(seed + index) % len(names)] for index, stage in enumerate(wanted.variant.stages)
    }
    schedule = StageSchedule(view, wanted, 0.0, 5.0)
    for stage in wanted.variant.stages:
        schedule.put(stage, schedule.offer_shared(stage, [nodes[stage.name]]))
    expected = scheduled(view, wanted, on_nodes(nodes), 0.0, start_ms=5.0)
    assert schedule.shares == expected.shares
    assert schedule.prediction().response_ms == pytest.approx(
        predict(view, wanted, nodes, 0.0, start_ms=5.0).response_ms
    )


def test_a_micro_batch_without_a_node_is_an_error() -> None:
    app = three_ways()
    shares = [PlacedShare("whole-0", "n0", 1.0, (0,)), PlacedShare("whole-0", "n1", 1.0, (1,))]
    view = nodes_of_speeds(app, 1, 1)
    with pytest.raises(KeyError):
        scheduled(view, job(app, "whole", 12), shares, 0.0, due_ms=inf)
