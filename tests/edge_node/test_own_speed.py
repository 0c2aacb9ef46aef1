"""What a node says of its speed, and when it measures it again."""

import math

import pytest

from splitplace.edge_node.gains import ONE_THREAD, Gains
from splitplace.edge_node.own_speed import (
    BUSY_LOOK_EVERY_MS,
    LOOK_EVERY_MS,
    OwnSpeed,
    SpeedWatch,
)

FOUR = Gains(4, alone=2.5, together=3.75)


def test_a_node_counts_as_fast_as_it_does_one_job_on_all_cores() -> None:
    message = OwnSpeed(20.0, FOUR).message
    assert (message.score, message.threads, message.speed_up) == (50.0, 4, 2.5)
    assert message.together == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("share", "score", "together"),
    [(math.inf, 50.0, 1.5), (3.0, 50.0, 1.2), (2.0, 40.0, 1.0), (0.25, 5.0, 1.0)],
)
def test_a_quota_bounds_both_ways_of_working(share: float, score: float, together: float) -> None:
    speed = OwnSpeed(20.0, FOUR, share)
    assert speed.score == pytest.approx(score)
    assert speed.message.together == pytest.approx(together)


def test_threads_that_slow_a_job_down_are_not_used_for_it() -> None:
    message = OwnSpeed(20.0, Gains(2, alone=0.6, together=1.4)).message
    assert (message.score, message.speed_up, message.together) == (20.0, 1.0, 1.4)


class Device:
    """A processor whose speed changes."""

    def __init__(self, score: float) -> None:
        self.score = score
        self.noise = 1.0
        self.looks = self.measurements = 0

    def look(self) -> float:
        self.looks += 1
        return self.score * self.noise

    def measure(self) -> tuple[float, Gains]:
        self.measurements += 1
        return self.score, ONE_THREAD

    def watch(self) -> SpeedWatch:
        return SpeedWatch(
            OwnSpeed(self.score, ONE_THREAD, 0.5), look=self.look, measure=self.measure, now_ms=0.0
        )


def test_a_throttled_node_says_so_and_so_does_one_that_has_cooled_down() -> None:
    device = Device(20.0)
    watch = device.watch()
    device.score = 10.0
    assert watch.look(1.0) == pytest.approx(2.0)
    assert watch.speed.score == pytest.approx(5.0), "within its share"
    device.score = 20.0
    assert watch.look(2.0) == pytest.approx(0.5)
    assert watch.speed.score == pytest.approx(10.0)


def test_small_and_passing_differences_change_nothing() -> None:
    device = Device(20.0)
    watch = device.watch()
    device.score = 18.0
    assert watch.look(1.0) == 1.0
    assert device.measurements == 0
    device.score, device.noise = 20.0, 0.5
    assert watch.look(2.0) == 1.0
    assert device.measurements == 1, "a look that differs is made sure of"
    assert watch.speed.thread_score == 20.0


def test_an_idle_node_looks_more_often_than_a_busy_one() -> None:
    watch = Device(20.0).watch()
    assert not watch.is_due(LOOK_EVERY_MS - 1, idle=True)
    assert watch.is_due(LOOK_EVERY_MS, idle=True)
    assert not watch.is_due(LOOK_EVERY_MS, idle=False)
    assert watch.is_due(BUSY_LOOK_EVERY_MS, idle=False)
    watch.look(LOOK_EVERY_MS)
    assert not watch.is_due(LOOK_EVERY_MS + 1, idle=True)
