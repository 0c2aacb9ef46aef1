"""The time of a hop follows from what ended tasks took beside their work."""

from typing import Any

import pytest

from splitplace.messages.cluster import NodeState
from splitplace.messages.placing import StagePlacement
from splitplace.messages.task import StageReport, TaskFinished, TaskPlaced
from splitplace.services.resource_monitor.hops import FEWEST, HOPS_BESIDE_STAGES, HopMeter
from tests.support import messages
from tests.support.examples import PIXELS, node, three_ways

WORK_MS = 20.0
APP = three_ways()


class Story:
    """Tasks that end after a given time, on nodes with given links."""

    def __init__(self, link: float = 1e9, round_trip_ms: float = 0.0) -> None:
        self.meter = HopMeter()
        self.meter.add_application(APP)
        self.nodes: dict[str, NodeState] = {
            name: node(name, link=link, round_trip_ms=round_trip_ms) for name in "ab"
        }

    def task(self, variant: str, took_ms: float, *, batch: int = 1, **changes: Any) -> None:
        stages = [stage.name for stage in APP.variant(variant).stages]
        on = dict(zip(stages, "aba", strict=False))
        placement = TaskPlaced(
            task="c.1",
            attempt=1,
            application=APP.name,
            variant=variant,
            batch=batch,
            micro_batch=4,
            policy="random",
            stages=tuple(StagePlacement(stage=stage, node=on[stage], work_ms=1.0) for stage in stages),
            predicted_ms=10.0,
            reason="",
        )
        reports = tuple(
            StageReport(stage=stage, node=on[stage], queue_ms=WORK_MS / 4, compute_ms=3 * WORK_MS / 4)
            for stage in stages
        )
        fields: dict[str, Any] = {
            "variant": variant,
            "batch": batch,
            "after_decision_ms": took_ms,
            "stages": reports,
        }
        ended: TaskFinished = messages.finished("c.1", **(fields | changes))
        self.meter.placed(placement)
        self.meter.finished(ended, self.nodes)


def test_nothing_is_said_before_some_tasks_have_ended() -> None:
    story = Story()
    for _ in range(FEWEST - 1):
        story.task("whole", WORK_MS + (1 + HOPS_BESIDE_STAGES) * 4.0)
    assert story.meter.hop_ms is None
    story.task("whole", WORK_MS + (1 + HOPS_BESIDE_STAGES) * 4.0)
    assert story.meter.hop_ms == pytest.approx(4.0, abs=0.01)


def test_chains_and_single_stages_agree_and_a_slow_task_changes_little() -> None:
    story = Story()
    for took_ms in (3.0, 4.0, 5.0):
        story.task("layer", 3 * WORK_MS + (3 + HOPS_BESIDE_STAGES) * took_ms)
        story.task("whole", WORK_MS + (1 + HOPS_BESIDE_STAGES) * took_ms)
    story.task("whole", 60_000.0)
    assert story.meter.hop_ms == pytest.approx(4.5, abs=0.6)


def test_transfers_and_the_way_to_nodes_are_not_counted() -> None:
    story = Story(link=PIXELS.bytes_per_image / 10_000, round_trip_ms=6.0)  # an image takes 10 ms
    for _ in range(FEWEST):
        story.task("whole", 10.0 + 6.0 + WORK_MS + (1 + HOPS_BESIDE_STAGES) * 2.0)
    assert story.meter.hop_ms == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch": 9},
        {"variant": "semantic"},
        {"attempt": 2},
        {"status": "expired", "on_time": False},
        {"coverage": 0.5},
        {"after_decision_ms": None},
        {"stages": ()},
    ],
)
def test_tasks_whose_time_says_little_are_left_out(changes: dict[str, Any]) -> None:
    story = Story()
    variant = changes.pop("variant", "whole")
    for _ in range(2 * FEWEST):
        story.task(variant, 100.0, **changes)
    assert story.meter.hop_ms is None


def test_nodes_that_are_gone_and_unknown_placements_are_left_out() -> None:
    story = Story()
    story.nodes.clear()
    for _ in range(2 * FEWEST):
        story.task("whole", 100.0)
        story.meter.finished(messages.finished("c.other", after_decision_ms=50.0), {})
    assert story.meter.hop_ms is None
