"""Nodes that beat and do not compute: who is to blame, for how long, and how they come back."""

from typing import Any

import pytest

from splitplace.messages.cluster import FragmentLoad, NodeVitals, RunningJob
from splitplace.messages.placing import StagePlacement
from splitplace.messages.task import StageReport, TaskPlaced
from splitplace.services.resource_monitor.core import ResourceMonitorCore
from splitplace.services.resource_monitor.work import (
    MAX_DOUBTS,
    MIN_LOADING_MS,
    SUSPENDED_MS,
    UNBEGUN_MS,
    WorkWatch,
)
from tests.support.message_examples import application
from tests.support.messages import BOOTS, finished, node_info, node_status, node_vitals

FRAGMENT = "f" * 64
IDLE: dict[str, Any] = {"queue_length": 0, "queue_ms": 0.0, "executed": 0}


def beat(node: str, **changes: Any) -> NodeVitals:
    return NodeVitals.model_validate(dict(node_vitals(node)) | IDLE | changes)


def running(age_ms: float, expected_ms: float = 10.0) -> RunningJob:
    return RunningJob(fragment=FRAGMENT, age_ms=age_ms, expected_ms=expected_ms)


def placed(*nodes: str, variant: str = "layer", **changes: Any) -> TaskPlaced:
    names = {"layer": ("front", "back"), "semantic": ("left", "right"), "whole": ("whole",)}[variant]
    stages = zip(names, nodes, strict=True)
    fields: dict[str, Any] = {
        "task": "c.1",
        "attempt": 1,
        "application": "digits",
        "variant": variant,
        "batch": 1,
        "micro_batch": 1,
        "policy": "random",
        "stages": tuple(StagePlacement(stage=stage, node=node, work_ms=1.0) for stage, node in stages),
        "predicted_ms": 10.0,
        "reason": "",
    }
    return TaskPlaced.model_validate(fields | changes)


def reports(*nodes: str) -> tuple[StageReport, ...]:
    return tuple(
        StageReport(stage=f"s{i}", node=node, queue_ms=0, compute_ms=1) for i, node in enumerate(nodes)
    )


class Cluster:
    """Nodes that beat every second; `work` grows the counters of some of them."""

    def __init__(self, *nodes: str) -> None:
        self.watch = WorkWatch()
        self.watch.add_application(application())
        self.executed = dict.fromkeys(nodes, 0)
        self.now_ms = 0.0
        self.beats(1)

    def beats(self, count: int, *working: str, **changes: Any) -> None:
        for _ in range(count):
            self.now_ms += 1000.0
            for node in self.executed:
                self.executed[node] += node in working
                self.watch.vitals(beat(node, executed=self.executed[node], **changes), self.now_ms)
            self.watch.judge(self.now_ms)

    def place(self, *nodes: str, **changes: Any) -> None:
        self.watch.placed(placed(*nodes, **changes), self.now_ms)

    def stalled(self) -> set[str]:
        return {node for node in self.executed if self.watch.stalled(node, self.now_ms)}


@pytest.mark.parametrize(("expected_ms", "age_ms", "stalls"), [
    (10.0, 2900.0, False),
    (10.0, 3100.0, True),
    (1000.0, 9000.0, False),
    (1000.0, 10_500.0, True),
    (1e12, 61_000.0, True),
])  # fmt: skip
def test_a_job_that_runs_many_times_as_long_as_expected_stalls_its_node(
    expected_ms: float, age_ms: float, *, stalls: bool
) -> None:
    watch = WorkWatch()
    watch.vitals(beat("n1", running=running(age_ms, expected_ms)), 0.0)
    assert bool(watch.stalled("n1", 0.0)) is stalls
    watch.vitals(beat("n1", executed=1), 1000.0)
    assert not watch.stalled("n1", 1000.0)
    assert watch.is_trusted("n1")


def test_a_node_that_begins_none_of_the_jobs_that_wait_is_stalled_until_it_does() -> None:
    cluster = Cluster("n1")
    cluster.beats(int(UNBEGUN_MS / 1000), queue_length=3)
    assert cluster.stalled() == set()
    cluster.beats(1, queue_length=3)
    assert cluster.stalled() == {"n1"}
    cluster.beats(1, "n1", queue_length=2)
    assert cluster.stalled() == set()


def test_a_node_that_waits_for_a_fragment_is_not_stalled() -> None:
    cluster = Cluster("n1")
    cluster.beats(60, queue_length=3, loading=1)
    assert cluster.stalled() == set()


def test_a_node_that_does_nothing_with_its_work_is_suspended_within_seconds() -> None:
    cluster = Cluster("n1", "n2")
    cluster.place("n1", variant="whole")
    cluster.beats(2)
    assert cluster.stalled() == {"n1"}
    assert not cluster.watch.is_trusted("n1")


def test_of_a_chain_the_first_node_that_did_nothing_is_to_blame() -> None:
    for silent, others in (("n1", ()), ("n2", ("n1",))):
        cluster = Cluster("n1", "n2")
        cluster.place("n1", "n2")
        cluster.beats(2, *others)
        assert cluster.stalled() == {silent}


def test_who_reads_a_stage_is_not_to_blame_while_one_of_its_replicas_did_nothing() -> None:
    shares = (("front", "n1", (0, 2)), ("front", "n2", (1,)), ("back", "n3", None))
    stages = tuple(
        StagePlacement(stage=stage, node=node, work_ms=1.0, micro_batches=numbers)
        for stage, node, numbers in shares
    )
    for working, silent in ((("n1",), {"n2"}), (("n1", "n2"), {"n3"}), ((), {"n1", "n2"})):
        cluster = Cluster("n1", "n2", "n3", "n4", "n5")
        cluster.place("n1", "n3", batch=3, stages=stages)
        cluster.beats(2, *working)
        assert cluster.stalled() == silent


def test_of_branches_each_node_that_did_nothing_is_to_blame() -> None:
    cluster = Cluster("n1", "n2")
    cluster.place("n1", "n2", variant="semantic")
    cluster.beats(2, "n2")
    assert cluster.stalled() == {"n1"}


def test_a_node_that_computes_or_loads_is_not_to_blame() -> None:
    for changes in ({"running": running(500.0)}, {"loading": 1}, {"queue_length": 1}):
        cluster = Cluster("n1")
        cluster.place("n1", variant="whole")
        cluster.beats(2, **changes)
        assert cluster.stalled() == set()


def test_a_long_prediction_is_given_its_time() -> None:
    cluster = Cluster("n1")
    cluster.place("n1", variant="whole", predicted_ms=2000.0)
    cluster.beats(5)
    assert cluster.stalled() == set()
    cluster.beats(2)
    assert cluster.stalled() == {"n1"}


def test_work_that_was_called_off_soon_blames_nobody() -> None:
    for expires in (True, False):
        cluster = Cluster("n1", "n2")
        cluster.place("n1", variant="whole")
        cluster.now_ms += 100.0
        if expires:
            cluster.watch.finished(finished("c.1", status="expired"), cluster.now_ms)
        else:
            cluster.place("n2", variant="whole", attempt=2)
        cluster.beats(1, "n2")
        cluster.watch.finished(finished("c.1", attempt=2, stages=reports("n2")), cluster.now_ms)
        cluster.beats(6)
        assert cluster.stalled() == set()


def test_the_attempt_that_stalled_is_judged_although_the_next_one_was_answered() -> None:
    cluster = Cluster("n1", "n2")
    cluster.place("n1", variant="whole")
    cluster.now_ms += 900.0
    cluster.place("n2", variant="whole", attempt=2)
    cluster.watch.finished(finished("c.1", attempt=2, stages=reports("n2")), cluster.now_ms + 5.0)
    cluster.beats(1, "n2")
    assert cluster.stalled() == {"n1"}


def test_tasks_with_short_deadlines_tell_too() -> None:
    cluster = Cluster("n1")
    cluster.place("n1", variant="whole")
    cluster.now_ms += 800.0
    cluster.watch.finished(finished("c.1", status="expired"), cluster.now_ms)
    cluster.beats(1)
    assert cluster.stalled() == {"n1"}


def test_a_suspended_node_is_tried_again_with_no_trust_and_each_suspension_is_twice_as_long() -> None:
    cluster = Cluster("n1")
    lengths = []
    for attempt in range(1, 4):
        cluster.place("n1", variant="whole", task=f"c.{attempt}")
        while not cluster.stalled():
            cluster.beats(1)
        began_ms = cluster.now_ms
        while cluster.stalled():
            cluster.beats(1)
        lengths.append(cluster.now_ms - began_ms)
        assert not cluster.watch.is_trusted("n1")
    assert lengths == [SUSPENDED_MS, 2 * SUSPENDED_MS, 4 * SUSPENDED_MS]


def test_work_lifts_a_suspension_and_an_answer_restores_the_trust() -> None:
    cluster = Cluster("n1")
    cluster.place("n1", variant="whole")
    cluster.beats(2)
    cluster.beats(1, "n1")
    assert cluster.stalled() == set()
    assert not cluster.watch.is_trusted("n1")
    cluster.watch.finished(finished("c.2", stages=reports("n1")), cluster.now_ms)
    assert cluster.watch.is_trusted("n1")


def test_a_node_that_claims_to_work_is_suspended_when_nothing_comes_of_it_again_and_again() -> None:
    cluster = Cluster("liar", "n2")
    for number in range(MAX_DOUBTS):
        assert cluster.stalled() == set()
        cluster.place("liar", variant="whole", task=f"c.{number}")
        cluster.beats(2, "liar", "n2")
    assert cluster.stalled() == {"liar"}


def test_answers_in_between_end_the_doubts() -> None:
    cluster = Cluster("n1")
    for number in range(3 * MAX_DOUBTS):
        cluster.place("n1", variant="whole", task=f"c.{number}")
        cluster.beats(2, "n1")
        if number % 2:
            cluster.watch.finished(finished(f"d.{number}", stages=reports("n1")), cluster.now_ms)
    assert cluster.stalled() == set()


def test_a_node_that_does_nothing_is_suspended_when_second_runs_answer_for_it_again_and_again() -> None:
    cluster = Cluster("liar", "n2")
    for number in range(MAX_DOUBTS):
        assert cluster.stalled() == set()
        cluster.place("liar", variant="whole", task=f"c.{number}")
        cluster.watch.finished(finished(f"c.{number}", stages=reports("n2")), cluster.now_ms)
        cluster.beats(2, "n2")
    assert cluster.stalled() == {"liar"}
    assert not cluster.watch.is_trusted("liar")
    cluster.beats(1, "liar", "n2")
    assert cluster.stalled() == set()


def test_a_node_that_works_is_not_suspended_because_second_runs_were_faster() -> None:
    cluster = Cluster("slow", "n2")
    for number in range(2 * MAX_DOUBTS):
        cluster.place("slow", variant="whole", task=f"c.{number}")
        cluster.watch.finished(finished(f"c.{number}", stages=reports("n2")), cluster.now_ms)
        cluster.beats(2, "slow", "n2")
    assert cluster.stalled() == set()


def test_of_a_chain_that_a_second_run_answered_the_first_node_that_did_nothing_is_doubted() -> None:
    cluster = Cluster("first", "second", "n3", "n4")
    for number in range(MAX_DOUBTS):
        cluster.place("first", "second", task=f"c.{number}")
        cluster.watch.finished(finished(f"c.{number}", stages=reports("n3", "n4")), cluster.now_ms)
        cluster.beats(2, "n3", "n4")
    assert cluster.stalled() == {"first"}


def test_nobody_is_blamed_for_what_a_service_lost() -> None:
    cluster = Cluster("n1")
    cluster.place("n1", variant="whole")
    cluster.watch.forget_placements()
    cluster.beats(6)
    assert cluster.stalled() == set()


def test_a_node_that_restarted_since_is_not_to_blame() -> None:
    cluster = Cluster("n1")
    cluster.place("n1", variant="whole")
    cluster.beats(6, boot=BOOTS[1])
    assert cluster.stalled() == set()


def test_a_silent_node_is_a_matter_of_its_heartbeat_alone() -> None:
    cluster = Cluster("n1")
    cluster.place("n1", variant="whole")
    for _ in range(60):
        cluster.now_ms += 100.0
        cluster.watch.judge(cluster.now_ms)
    assert cluster.stalled() == set()


def test_the_cluster_state_names_the_stalled_node_lowers_its_score_and_leaves_it_out_of_the_usable() -> None:
    core = ResourceMonitorCore()
    for name, score in (("fast", 500.0), ("slow", 20.0)):
        core.status(node_status(name), 0.0)
        core.info(node_info(name).model_copy(update={"score": score}), 0.0)
        core.vitals(beat(name), 0.0)
    assert core.tick(0.0) is False
    core.placed(placed("fast", variant="whole"), 10.0)
    for now_ms in range(100, 2100, 100):
        if now_ms % 1000 == 0:
            core.vitals(beat("fast"), float(now_ms))
            core.vitals(beat("slow"), float(now_ms))
        changed = core.tick(float(now_ms))
    assert changed is True
    state = core.cluster(1, 2000.0)
    assert [(node.node, bool(node.stalled), node.score) for node in state.nodes] == [
        ("fast", True, 20.0),
        ("slow", False, 20.0),
    ]
    assert [node.node for node in state.usable] == ["slow"]


def test_where_all_nodes_are_stalled_all_are_usable() -> None:
    core = ResourceMonitorCore()
    core.status(node_status("n1"), 0.0)
    core.info(node_info("n1"), 0.0)
    core.vitals(beat("n1", running=running(60_000.0)), 0.0)
    (state,) = core.cluster(1, 0.0).usable
    assert "has run for more than " in state.stalled


def test_why_a_node_stalls_is_no_news_with_each_heartbeat() -> None:
    watch = WorkWatch()
    reasons = set()
    for now_ms in (0.0, 1000.0, 20_000.0):
        watch.vitals(beat("n1", running=running(60_000.0 + now_ms)), now_ms)
        reasons.add(watch.stalled("n1", now_ms))
    assert len(reasons) == 1


def test_where_most_nodes_did_nothing_the_fault_lies_elsewhere_and_none_is_suspended() -> None:
    names = ("n1", "n2", "n3", "n4")
    for silent in range(1, 5):
        cluster = Cluster(*names)
        for node in names[:silent]:
            cluster.place(node, variant="whole", task=f"c.{node}")
        cluster.beats(2)
        assert cluster.stalled() == (set(names[:silent]) if silent <= 2 else set())
        assert all(cluster.watch.is_trusted(node) for node in names) is (silent > 2)


def test_a_node_that_loads_for_ever_counts_as_stalled_and_one_that_loads_is_not_blamed() -> None:
    watch = WorkWatch()
    watch.add_application(application())
    load = FragmentLoad(fragment=FRAGMENT, left_ms=2000.0)
    watch.vitals(beat("n1", loads=(load,), loading=1), 0.0)
    for number in range(2 * MAX_DOUBTS):
        watch.placed(placed("n1", variant="whole", task=f"c.{number}"), 1.0)
    for now_ms in range(1000, int(MIN_LOADING_MS), 1000):
        watch.vitals(beat("n1", loads=(load,), loading=1), float(now_ms))
        watch.judge(float(now_ms))
        assert watch.stalled("n1", float(now_ms)) == ""
    for later_ms in (MIN_LOADING_MS, MIN_LOADING_MS + 2000.0):
        watch.vitals(beat("n1", loads=(load,), loading=1), later_ms)
        reason = "fragment ffffffffffff has been loading for more than 60 s"
        assert watch.stalled("n1", later_ms) == reason
    watch.vitals(beat("n1"), MIN_LOADING_MS + 3000.0)
    assert watch.stalled("n1", MIN_LOADING_MS + 3000.0) == ""


def test_a_slow_link_may_load_for_as_long_as_the_node_expects() -> None:
    watch = WorkWatch()
    load = FragmentLoad(fragment=FRAGMENT, left_ms=MIN_LOADING_MS)
    watch.vitals(beat("n1", loads=(load,), loading=1), 0.0)
    watch.vitals(beat("n1", loads=(load,), loading=1), 5 * MIN_LOADING_MS)
    assert watch.stalled("n1", 5 * MIN_LOADING_MS) == ""
