"""The placement that the splitter has found is used by the placer while nothing has changed."""

from collections.abc import Sequence

import pytest
from typing_extensions import override

from splitplace.messages.application import Application
from splitplace.messages.cluster import NodeState
from splitplace.messages.pieces import PieceRun
from splitplace.messages.placing import StagePlacement
from splitplace.messages.task import TaskDecided, TaskPlaced
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import Infeasible, Placement, PlacementRequest, placement_policy
from splitplace.policies.placement.earliest_finish import EarliestFinish
from splitplace.policies.placement.foreseen import foreseen_of
from splitplace.policies.splitting import split_policy
from splitplace.services.placer.core import PlacerCore
from splitplace.services.splitter.core import SplitterCore
from tests.support.examples import all_of, cluster, node, request, snapshot, three_ways
from tests.support.free_stages import free_application
from tests.support.messages import accepted

APP = three_ways(image_ms=10)
STRANGE = PieceRun(chain="x", first=0, end=2)


class Counting(EarliestFinish):
    """Counts how often it searches."""

    searches = 0

    @override
    def place(self, request: PlacementRequest, cluster: ClusterView, now_ms: float) -> Placement | Infeasible:
        self.searches += 1
        return super().place(request, cluster, now_ms)


def two() -> tuple[NodeState, ...]:
    return node("a", loaded=all_of(APP)), node("b", speed=2, loaded=all_of(APP))


def decide(nodes: Sequence[NodeState], app: Application = APP) -> TaskDecided:
    made = SplitterCore(split_policy("rule"), EarliestFinish(4))
    made.add_applications([app])
    made.cluster(snapshot(*nodes), 0.0)
    (decided,) = made.accepted(accepted(application=app.name, batch=8), 0.0)
    return decided


def placer(nodes: Sequence[NodeState], app: Application = APP) -> tuple[PlacerCore, Counting]:
    policy = Counting(4)
    made = PlacerCore(policy)
    made.add_application(app)
    made.cluster(snapshot(*nodes), 0.0)
    return made, policy


def placed_by(made: PlacerCore, decided: TaskDecided, now_ms: float = 1.0) -> TaskPlaced:
    placing = made.place(decided, now_ms)
    assert placing is not None
    return placing.placed


@pytest.mark.parametrize(
    ("app", "nodes"),
    [
        (APP, two()),
        (APP, (node("a", megabytes=1.5), node("b", megabytes=1.5), node("c", megabytes=1.5))),
        (free_application(), tuple(node(name, megabytes=8) for name in "abc")),
    ],
)
def test_a_hint_gives_the_placement_that_a_search_would_give(
    app: Application, nodes: Sequence[NodeState]
) -> None:
    decided = decide(nodes, app)
    assert decided.foreseen is not None
    searching, _ = placer(nodes, app)
    searched = placed_by(searching, decided.model_copy(update={"foreseen": None}))
    confirming, policy = placer(nodes, app)
    assert placed_by(confirming, decided) == searched
    assert policy.searches == 0


def test_a_hint_on_another_cluster_state_is_not_used() -> None:
    decided = decide(two())
    made, policy = placer(two())
    made.cluster(snapshot(*two()).model_copy(update={"sequence": 2}), 1.0)
    placed_by(made, decided)
    assert policy.searches == 1


def test_a_hint_is_not_used_where_another_task_has_taken_the_node() -> None:
    decided = decide(two())
    made, policy = placer(two())
    placed_by(made, decided.model_copy(update={"task": "c.first"}))
    assert policy.searches == 0
    placed_by(made, decided)
    assert policy.searches == 1


def test_a_hint_is_not_used_where_the_node_lacks_memory_now() -> None:
    nodes = (node("a", megabytes=3.5),)
    decided = decide(nodes)
    assert decided.foreseen is not None
    view = cluster(node("a", megabytes=1))
    wanted = request(APP, "whole", 8)
    assert EarliestFinish().confirm(wanted, decided.foreseen, view, 0.0) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"stages": (StagePlacement(stage="nonsense", node="b", work_ms=1.0),)},
        {"stages": (StagePlacement(stage="whole-0", node="nobody", work_ms=1.0),)},
        {"stages": (StagePlacement(stage="whole-0", node="b", work_ms=1.0, run=STRANGE),)},
        {"stages": (StagePlacement(stage="whole-0", node="b", work_ms=1.0, micro_batches=(0,)),)},
        {"micro_batch": 8},
    ],
)
def test_a_hint_that_makes_no_sense_is_not_used(changes: dict[str, object]) -> None:
    view = cluster(*two())
    wanted = request(APP, "whole", 8)
    found = EarliestFinish().place(wanted, view, 0.0)
    assert isinstance(found, Placement)
    hint = foreseen_of(found, view)
    assert hint is not None
    assert EarliestFinish().confirm(wanted, hint, view, 0.0) == found
    broken = hint.model_copy(update=changes)
    assert EarliestFinish().confirm(wanted, broken, view, 0.0) is None


def test_a_hint_that_shares_a_stage_among_more_nodes_than_allowed_is_not_used() -> None:
    view = cluster(*two())
    wanted = request(APP, "whole", 32)
    found = EarliestFinish(2).place(wanted, view, 0.0)
    assert isinstance(found, Placement)
    assert len(found.shares) == 2
    hint = foreseen_of(found, view)
    assert hint is not None
    again = EarliestFinish(2).confirm(wanted, hint, view, 0.0)
    assert again is not None
    assert (again.shares, again.prediction) == (found.shares, found.prediction)
    assert EarliestFinish(1).confirm(wanted, hint, view, 0.0) is None


def test_nodes_that_failed_the_task_are_not_taken_over() -> None:
    view = cluster(*two())
    found = EarliestFinish().place(request(APP, "whole", 8), view, 0.0)
    assert isinstance(found, Placement)
    hint = foreseen_of(found, view)
    assert hint is not None
    wanted = request(APP, "whole", 8, avoid=found.node_names)
    assert EarliestFinish().confirm(wanted, hint, view, 0.0) is None


@pytest.mark.parametrize("name", ["random", "round-robin", "exact", "daso"])
def test_other_policies_choose_for_themselves(name: str) -> None:
    view = cluster(*two())
    wanted = request(APP, "whole", 8)
    found = EarliestFinish().place(wanted, view, 0.0)
    assert isinstance(found, Placement)
    hint = foreseen_of(found, view)
    assert hint is not None
    assert placement_policy(name).confirm(wanted, hint, view, 0.0) is None  # type: ignore[arg-type]


def test_a_decision_on_no_cluster_has_no_hint() -> None:
    made = SplitterCore(split_policy("rule"), EarliestFinish())
    made.add_applications([APP])
    for decided in made.accepted(accepted(deadline_ms=10.0), 0.0):
        assert decided.foreseen is None
