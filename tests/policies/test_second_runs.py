"""Where what is overdue runs a second time: on free nodes that have no part in it, and only in time."""

from math import inf

import pytest

from splitplace.messages.cluster import NodeState
from splitplace.messages.limits import MAX_SECOND_PARTS
from splitplace.messages.placing import StagePlacement
from splitplace.messages.second_run import OverdueOutputs
from splitplace.messages.task import TaskPlaced
from splitplace.policies.placement import Placement, PlacementRequest
from splitplace.policies.placement.earliest_finish import EarliestFinish
from splitplace.policies.placement.second_runs import (
    OverdueWork,
    disturbs_others,
    is_in_time,
    laggards,
    outputs_through,
    overdue_work,
)
from tests.support.examples import all_of, cluster, node, three_ways
from tests.support.outputs import logits_application

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


def of(*numbers: int, branch: str | None = None) -> OverdueOutputs:
    return OverdueOutputs(branch=branch, micro_batches=numbers)


def stages_of(work: OverdueWork) -> list[str]:
    return [stage.name for stage in work.job.variant.stages]


def found_on(*nodes: NodeState, avoid: str = "slow", due_ms: float = inf) -> Placement | None:
    (work,) = overdue_work(APP, placed(("slow", None)), (of(2, 3),))
    request = PlacementRequest("c.t", work.job, 0.0, due_ms, frozenset({avoid}))
    view = cluster(*nodes)
    waits_ms = {name: view.ready_ms(name, 0.0) for name in view.nodes}
    found = EarliestFinish().place(request, view, 0.0)
    if (
        isinstance(found, Placement)
        and is_in_time(found, request, 0.0)
        and not disturbs_others(found, waits_ms)
    ):
        return found
    return None


@pytest.mark.parametrize(
    ("numbers", "sizes"),
    [((0, 1, 2, 3), (4, 4, 4, 2)), ((1,), (4,)), ((3,), (2,)), ((0, 3), (4, 2)), ((0, 2), (4, 4))],
)
def test_the_job_has_the_micro_batches_that_are_overdue(
    numbers: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    (work,) = overdue_work(APP, placed(("slow", None)), (of(*numbers),))
    assert (work.micro_batches, work.job.micro_batches) == (numbers, sizes)


BRANCHES = tuple(stage.name for stage in APP.variant("semantic").stages)
STAR = placed(("a", None), ("b", None), variant="semantic")


def test_each_branch_runs_again_with_its_own_micro_batches() -> None:
    first, second = overdue_work(APP, STAR, (of(0, 2, branch=BRANCHES[0]), of(3, branch=BRANCHES[1])))
    assert (stages_of(first), first.micro_batches) == ([BRANCHES[0]], (0, 2))
    assert (stages_of(second), second.micro_batches, second.job.batch) == ([BRANCHES[1]], (3,), 2)
    assert set(first.job.fragments) == {BRANCHES[0]}


def test_branches_that_share_a_stage_run_again_together() -> None:
    app = logits_application()
    first = placed(("a", None)).model_copy(update={"application": app.name, "variant": "tree"})
    (alone,) = overdue_work(app, first, (of(1, branch="right"),))
    assert stages_of(alone) == ["trunk", "middle", "right"]
    (both,) = overdue_work(app, first, (of(1, branch="right"), of(0, branch="left")))
    assert (len(stages_of(both)), both.micro_batches) == (4, (0, 1))


def test_more_branches_than_a_message_holds_do_not_run_again() -> None:
    known = APP.variant("semantic")
    names = [f"branch-{number}" for number in range(MAX_SECOND_PARTS + 1)]
    stages = tuple(known.stages[0].model_copy(update={"name": name}) for name in names)
    app = APP.model_copy(update={"variants": (known.model_copy(update={"stages": stages}),)})
    overdue = tuple(of(0, branch=name) for name in names)
    assert overdue_work(app, STAR, overdue) == ()
    assert len(overdue_work(app, STAR, overdue[1:])) == MAX_SECOND_PARTS


@pytest.mark.parametrize(
    ("first", "overdue"),
    [
        (STAR, of(0)),
        (STAR, of(0, branch="no-branch")),
        (STAR, of(4, branch=BRANCHES[0])),
        (placed(("a", None)), of(0, branch="whole-0")),
        (placed(("a", None)).model_copy(update={"variant": "gone"}), of(0)),
    ],
)
def test_what_was_not_placed_is_not_run_again(first: TaskPlaced, overdue: OverdueOutputs) -> None:
    assert overdue_work(APP, first, (overdue,)) == ()


def test_nodes_that_overdue_outputs_come_through_may_be_the_slow_ones() -> None:
    shared = placed(("a", (0, 1)), ("b", (2, 3)))
    assert laggards(APP, shared, (of(2),)) == {"b"}
    assert laggards(APP, shared, (of(1, 2),)) == {"a", "b"}
    chain = placed(("a", None), ("b", None), ("c", None), variant="layer")
    assert laggards(APP, chain, (of(3),)) == {"a", "b", "c"}


def test_nodes_whose_branches_have_come_are_not_slow() -> None:
    assert laggards(APP, STAR, (of(0, 1, branch=BRANCHES[0]),)) == {"a"}
    assert laggards(APP, STAR, tuple(of(0, branch=name) for name in BRANCHES)) == {"a", "b"}


def test_what_a_replica_still_owed_is_known_by_its_micro_batches() -> None:
    shared = placed(("a", (0, 1)), ("b", (2, 3)))
    assert outputs_through(APP, shared, (of(1, 2, 3),), "a") == (of(1),)
    assert outputs_through(APP, shared, (of(2, 3),), "a") == ()
    assert outputs_through(APP, STAR, tuple(of(0, branch=name) for name in BRANCHES), "b") == (
        of(0, branch=BRANCHES[1]),
    )


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
