"""Where what is overdue runs a second time: on free nodes that have no part in it, and only in time."""

from math import inf

import pytest

from splitplace.messages.cluster import NodeState
from splitplace.messages.placing import StagePlacement
from splitplace.messages.task import TaskPlaced
from splitplace.policies.placement import Placement, PlacementRequest
from splitplace.policies.placement.earliest_finish import EarliestFinish
from splitplace.policies.placement.second_runs import laggards, overdue_job, second_placement
from tests.support.examples import all_of, cluster, node, three_ways

APP = three_ways(image_ms=10)


def placed(
    *shares: tuple[str, tuple[int, ...] | None], batch: int = 14, variant: str = "whole"
) -> TaskPlaced:
    names = [stage.name for stage in APP.variant(variant).stages]
    stages = names if len(names) == len(shares) else names * len(shares)
    return TaskPlaced(
        task="c.t",
        attempt=1,
        application=APP.name,
        variant=variant,
        batch=batch,
        micro_batch=4,
        policy="test",
        stages=tuple(
            StagePlacement(stage=stage, node=name, work_ms=1.0, micro_batches=numbers)
            for stage, (name, numbers) in zip(stages, shares, strict=True)
        ),
        predicted_ms=100.0,
        reason="",
    )


def ready(name: str, queue_ms: float = 0.0) -> NodeState:
    return node(name, loaded=all_of(APP), queue_ms=queue_ms)


def found_on(*nodes: NodeState, avoid: str = "slow", due_ms: float = inf) -> Placement | None:
    job = overdue_job(APP, placed(("slow", None)), (2, 3))
    assert job is not None
    request = PlacementRequest("c.t", job, 0.0, due_ms, frozenset({avoid}))
    return second_placement(EarliestFinish(), request, cluster(*nodes), 0.0)


@pytest.mark.parametrize(
    ("numbers", "sizes"),
    [((0, 1, 2, 3), (4, 4, 4, 2)), ((1,), (4,)), ((3,), (2,)), ((0, 3), (4, 2)), ((0, 2), (4, 4))],
)
def test_the_job_has_the_micro_batches_that_are_overdue(
    numbers: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    job = overdue_job(APP, placed(("slow", None)), numbers)
    assert job is not None
    assert job.micro_batches == sizes


def test_variants_with_branches_have_partial_answers_instead() -> None:
    assert overdue_job(APP, placed(("a", None), ("b", None), variant="semantic"), (0,)) is None


def test_nodes_that_micro_batches_pass_may_be_the_slow_ones() -> None:
    assert laggards(placed(("a", (0, 1)), ("b", (2, 3))), (2,)) == {"b"}
    assert laggards(placed(("a", (0, 1)), ("b", (2, 3))), (1, 2)) == {"a", "b"}
    assert laggards(placed(("a", None), ("b", None), ("c", None), variant="layer"), (3,)) == {"a", "b", "c"}


def test_it_runs_on_a_free_node() -> None:
    found = found_on(ready("slow"), ready("free"))
    assert found is not None
    assert found.node_names == ("free",)


def test_it_does_not_run_on_the_slow_node() -> None:
    assert found_on(ready("slow")) is None


def test_it_does_not_run_where_it_would_be_late() -> None:
    assert found_on(ready("slow"), ready("free"), due_ms=50.0) is None
    assert found_on(ready("slow"), ready("free"), due_ms=100.0) is not None


def test_it_does_not_run_behind_others_so_a_busy_cluster_runs_nothing_twice() -> None:
    assert found_on(ready("slow"), ready("busy", queue_ms=40.0)) is None
    assert found_on(ready("slow"), ready("busy", queue_ms=5.0)) is not None
