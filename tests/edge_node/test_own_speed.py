"""What a node says of its speed, and when it measures it again."""

import math

import pytest

from splitplace.edge_node.gains import ONE_THREAD, Gains
from splitplace.edge_node.own_speed import (
    BUSY_LOOK_EVERY_MS,
    DOUBTFUL_LOOK_EVERY_MS,
    DOUBTS,
    GAINS_EVERY_MS,
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


def test_a_throttled_node_says_so_after_some_looks_and_so_does_one_that_has_cooled_down() -> None:
    watch = SpeedWatch(OwnSpeed(20.0, ONE_THREAD, 0.5), 0.0)
    assert [watch.looked(10.0, 1.0) for _ in range(DOUBTS)] == [1.0] * (DOUBTS - 1) + [2.0]
    assert watch.speed.score == pytest.approx(5.0), "within its share"
    assert [watch.looked(20.0, 1.0) for _ in range(DOUBTS)] == [1.0] * (DOUBTS - 1) + [0.5]
    assert watch.speed.score == pytest.approx(10.0)


def test_small_and_passing_differences_change_nothing() -> None:
    watch = SpeedWatch(OwnSpeed(20.0, ONE_THREAD), 0.0)
    for look in (18.0, 22.0, 10.0, 10.0, 20.0, 10.0, 10.0, 40.0, 40.0, 10.0, 10.0):
        assert watch.looked(look, 1.0) == 1.0
    assert watch.speed.thread_score == 20.0


def test_of_several_looks_the_least_disturbed_counts() -> None:
    watch = SpeedWatch(OwnSpeed(20.0, ONE_THREAD), 0.0)
    for look in (9.0, 10.0, 5.0):
        watch.looked(look, 1.0)
    assert watch.speed.thread_score == 10.0


def test_an_idle_node_looks_more_often_than_a_busy_one_and_at_once_when_in_doubt() -> None:
    watch = SpeedWatch(OwnSpeed(20.0, ONE_THREAD), 0.0)
    assert watch.due(LOOK_EVERY_MS - 1, idle=True) is None
    assert watch.due(LOOK_EVERY_MS, idle=True) == "look"
    assert watch.due(LOOK_EVERY_MS, idle=False) is None
    assert watch.due(BUSY_LOOK_EVERY_MS, idle=False) == "look"
    watch.looked(20.0, LOOK_EVERY_MS)
    assert watch.due(LOOK_EVERY_MS + DOUBTFUL_LOOK_EVERY_MS, idle=True) is None
    watch.looked(10.0, 2 * LOOK_EVERY_MS)
    assert watch.due(2 * LOOK_EVERY_MS + DOUBTFUL_LOOK_EVERY_MS, idle=True) == "look"
    watch.put_off(2 * LOOK_EVERY_MS + DOUBTFUL_LOOK_EVERY_MS)
    assert watch.due(2 * LOOK_EVERY_MS + DOUBTFUL_LOOK_EVERY_MS, idle=True) is None


def test_what_threads_gain_is_measured_again_once_the_node_is_idle_and_seldom_after_that() -> None:
    watch = SpeedWatch(OwnSpeed(20.0, Gains(2, alone=0.8, together=1.0, spinning=True)), 0.0)
    assert watch.due(LOOK_EVERY_MS, idle=False) is None
    assert watch.due(LOOK_EVERY_MS, idle=True) == "gains"
    watch.gained(Gains(2, alone=1.6, together=1.9), LOOK_EVERY_MS)
    assert watch.speed.score == pytest.approx(32.0)
    assert watch.speed.gains == Gains(2, alone=1.6, together=1.9, spinning=True), "sessions stay as they are"
    assert watch.due(LOOK_EVERY_MS, idle=True) == "look"
    watch.looked(20.0, GAINS_EVERY_MS)
    watch.looked(20.0, LOOK_EVERY_MS + GAINS_EVERY_MS)
    assert watch.due(LOOK_EVERY_MS + GAINS_EVERY_MS, idle=True) == "gains"
