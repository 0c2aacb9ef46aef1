"""The placer of the simulator moves the stages of tasks that run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from typing_extensions import override

from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import ActiveJob, Rearranging, placement_policy
from splitplace.policies.placement.earliest_finish import EarliestFinish
from splitplace.policies.prediction import Job
from splitplace.simulator.rearranging import RearrangingPlacer
from tests.support.examples import all_of, node, snapshot, three_ways
from tests.support.messages import decided

APP = three_ways(image_ms=10)
ACTIVE = ActiveJob("c.t", Job(APP, APP.variant("whole"), 6), {"whole-0": "a"}, {"whole-0": 0.5}, 1000.0)


class EverythingTo(EarliestFinish, Rearranging):
    """Places as its base does, then wants every stage on one node."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self._target = target

    @override
    def rearrange(
        self, active: Sequence[ActiveJob], cluster: ClusterView, now_ms: float
    ) -> Mapping[str, Mapping[str, str]]:
        del cluster, now_ms
        return {job.task: dict.fromkeys(job.nodes, self._target) for job in active}


def test_the_ledger_follows_stages_that_are_to_move() -> None:
    view = ClusterView()
    moving = RearrangingPlacer(EverythingTo("b"), view)
    moving.add_application(APP)
    moving.cluster(snapshot(node("a", loaded=all_of(APP))), 0.0)
    placing = moving.place(decided(), 0.0)
    assert placing is not None
    moving.cluster(snapshot(node("a", loaded=all_of(APP)), node("b", loaded=all_of(APP))), 1.0)
    (moved,) = moving.rearrange([ACTIVE], 1.0)
    assert [stage.node for stage in moved.stages] == ["b"]
    assert moved.stages[0].work_ms == placing.placed.stages[0].work_ms / 2
    assert view.ready_ms("a", 1.0) == 1.0
    assert view.ready_ms("b", 1.0) == 1.0 + moved.stages[0].work_ms
    assert moving.rearrange([replace(ACTIVE, nodes={"whole-0": "b"})], 2.0) == []


def test_nothing_moves_under_a_policy_that_cannot_rearrange() -> None:
    still = RearrangingPlacer(placement_policy("earliest-finish"), ClusterView())
    still.add_application(APP)
    still.cluster(snapshot(node("a", loaded=all_of(APP)), node("b", loaded=all_of(APP))), 0.0)
    still.place(decided(), 0.0)
    assert still.rearrange([ACTIVE], 1.0) == []
