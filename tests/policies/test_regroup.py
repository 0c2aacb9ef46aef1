"""Stages are chosen when a task is placed: checked against every grouping on every node."""

from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitplace.messages.application import Application
from splitplace.messages.groupings import grouped
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import Infeasible, Placement
from splitplace.policies.placement.earliest_finish import EarliestFinish
from splitplace.policies.prediction import predict
from splitplace.policies.stage_work import StageWork
from tests.support.examples import cluster, fragment, job, node, request, snapshot
from tests.support.free_stages import free_application

PIECES = 4


def place(app: Application, view: ClusterView, batch: int = 16) -> Placement:
    found = EarliestFinish().place(request(app, "layer", batch), view, 0.0)
    assert isinstance(found, Placement)
    return found


def best_of_all_ms(app: Application, view: ClusterView, batch: int, pieces: int) -> float:
    """Predict every grouping on all nodes that have room."""
    best_ms = np.inf
    for stages in range(1, pieces + 1):
        for cuts in combinations(range(1, pieces), stages - 1):
            again = job(app, "layer", batch).regrouped(grouped(app, app.variant("layer"), cuts))
            fragments = again.fragments.values()
            for names in permutations(view.nodes, stages):
                needed = [view.needed_bytes(name, part) for name, part in zip(names, fragments, strict=True)]
                if all(need <= view.free_bytes(name) for need, name in zip(needed, names, strict=True)):
                    nodes = dict(zip(again.fragments, names, strict=True))
                    best_ms = min(best_ms, predict(view, again, nodes, 0.0).response_ms)
    return best_ms


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), batch=st.sampled_from([1, 4, 16, 32]))
def test_no_grouping_on_any_nodes_is_predicted_to_be_faster(seed: int, batch: int) -> None:
    random = np.random.default_rng(seed)
    app = free_application(
        PIECES,
        image_ms=random.uniform(0.1, 5, PIECES).tolist(),
        crossing=random.integers(1, 20_000, PIECES - 1).tolist(),
    )
    view = cluster(
        *(
            node(
                f"n{index}",
                speed=random.uniform(0.3, 3),
                link=random.uniform(1, 100),
                up=random.uniform(1, 100),
                round_trip_ms=random.uniform(0, 20),
                load_ms=random.uniform(0, 100),
                loaded=[part.sha256 for part in app.fragments if random.random() < 0.5],
            )
            for index in range(3)
        )
    )
    if random.random() < 0.5:
        view.placed("c.u", 1, [StageWork("n0", fragment("x"), float(random.uniform(0, 60)))], 0.0)
    found = place(app, view, batch)
    # A call is charged for each stage, so sums of many small figures may differ a little.
    assert found.prediction.response_ms <= best_of_all_ms(app, view, batch, PIECES) * 1.001


def test_a_long_batch_becomes_a_pipeline_over_all_nodes() -> None:
    app = free_application(PIECES)
    everything = [grouped(app, app.variant("layer"), cuts) for cuts in ([], [1, 2, 3])]
    loaded = [part.sha256 for each in everything for part in each.fragments.values()]
    view = cluster(*(node(f"n{index}", loaded=loaded) for index in range(PIECES)))
    assert len(place(app, view, batch=64).shares) == PIECES
    assert len(place(app, view, batch=1).shares) == 1


def test_stages_are_cut_where_little_crosses() -> None:
    app = free_application(PIECES, crossing=(500_000, 100, 500_000))
    loaded = [part.sha256 for part in grouped(app, app.variant("layer"), [2]).fragments.values()]
    view = cluster(*(node(f"n{index}", link=10, loaded=loaded) for index in range(2)))
    assert [part.first for part in place(app, view, batch=64).job.fragments.values()] == [0, 2]


def test_a_network_that_no_node_can_hold_is_divided_as_memory_asks() -> None:
    app = free_application(8, weight_megabytes=10.0)
    small = [node(f"n{index}", megabytes=35.0) for index in range(4)]
    assert len(place(app, cluster(*small)).shares) == 4
    refused = EarliestFinish().place(request(app, "layer", 4), cluster(*small[:2]), 0.0)
    assert isinstance(refused, Infeasible)


def test_what_is_loaded_already_is_used_again() -> None:
    app = free_application(PIECES)
    odd = grouped(app, app.variant("layer"), [3])
    loaded = [part.sha256 for part in odd.fragments.values()]
    view = cluster(*(node(f"n{index}", loaded=loaded, load_ms=5000.0) for index in range(2)))
    found = place(app, view, batch=32)
    assert set(found.job.fragments) == set(odd.fragments)


def test_no_more_stages_are_made_than_the_variant_allows() -> None:
    app = free_application(PIECES, most_stages=2)
    view = cluster(*(node(f"n{index}", load_ms=0.0) for index in range(4)))
    assert len(place(app, view, batch=64).shares) == 2


def test_a_thousand_equal_nodes_are_a_kind() -> None:
    """The same placement as with fifty, and the candidates are as many."""
    app = free_application(8)
    few, many = (cluster(*(node(f"n{index:04}") for index in range(count))) for count in (50, 1000))
    assert place(app, many).shares == place(app, few).shares


@pytest.mark.parametrize("variant", ["whole", "layer"])
def test_fixed_stages_stay(variant: str) -> None:
    app = free_application(PIECES)
    fixed = app.model_copy(
        update={"variants": tuple(v.model_copy(update={"most_stages": None}) for v in app.variants)}
    )
    found = EarliestFinish().place(request(fixed, variant, 8), cluster(node("a"), node("b")), 0.0)
    assert isinstance(found, Placement)
    assert not found.job.runs


def test_a_grouping_is_used_for_a_while_and_its_stages_go_where_they_end_first() -> None:
    app = free_application(PIECES)
    policy, view = EarliestFinish(), cluster(*(node(f"n{index}", load_ms=1.0) for index in range(3)))
    first = policy.place(request(app, "layer", 64), view, 0.0)
    assert isinstance(first, Placement)
    assert len(first.shares) == 3
    faster = [node(f"n{index}", load_ms=1.0) for index in range(2)]
    view.apply(snapshot(*faster, node("n2", load_ms=1.0), node("new", speed=50, load_ms=1.0)), 500.0)
    soon = policy.place(request(app, "layer", 64, start_ms=500.0), view, 500.0)
    assert isinstance(soon, Placement)
    assert list(soon.job.fragments) == list(first.job.fragments)
    assert "new" in soon.node_names
    later = policy.place(request(app, "layer", 64, start_ms=1500.0), view, 1500.0)
    assert isinstance(later, Placement)
    assert later.node_names == ("new",)


def test_a_grouping_that_has_no_room_any_more_is_searched_at_once() -> None:
    app = free_application(8, weight_megabytes=10.0)
    policy, large = EarliestFinish(), [node(f"n{index}", megabytes=200.0) for index in range(4)]
    view = cluster(*large)
    assert isinstance(policy.place(request(app, "layer", 1), view, 0.0), Placement)
    view.apply(snapshot(*(node(f"n{index}", megabytes=35.0) for index in range(4))), 1.0)
    found = policy.place(request(app, "layer", 1, start_ms=1.0), view, 1.0)
    assert isinstance(found, Placement)
    assert len(found.shares) == 4


def test_a_refusal_names_the_largest_piece_and_a_task_waits_for_memory_that_is_in_use() -> None:
    """Pieces of 10 MB, which the manifest groups in stages of 20: a node of 15 holds one."""
    app = free_application(PIECES, weight_megabytes=10.0)
    view = cluster(*(node(f"n{index}", megabytes=15.0) for index in range(PIECES)))
    assert len(place(app, view).shares) == PIECES
    view.placed("c.u", 1, [StageWork("n0", fragment("x", megabytes=8.0), 60.0)], 0.0)
    waits = EarliestFinish().place(request(app, "layer", 1), view, 0.0)
    assert isinstance(waits, Infeasible)
    assert waits.temporary
    assert "layer: its largest piece needs" in waits.reason
    assert "tasks that run leave 14.3 MiB at most (on n1)" in waits.reason


def test_a_task_that_can_wait_loads_the_grouping_that_lasts() -> None:
    app = free_application(PIECES, image_ms=(10.0,) * PIECES, weight_megabytes=10.0)
    view = cluster(*(node(f"n{index}", load_ms=1000.0, megabytes=500.0) for index in range(PIECES)))
    stages = {}
    for due_ms in (2_500.0, 60_000.0):
        asked = replace(request(app, "layer", 1), due_ms=due_ms)
        found = EarliestFinish().place(asked, view, 0.0)
        assert isinstance(found, Placement)
        stages[due_ms] = len(found.shares)
    assert stages[60_000.0] == 1 < stages[2_500.0]
