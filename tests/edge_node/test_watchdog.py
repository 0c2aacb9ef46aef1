"""Work that hangs ends the process; a pause of the process, or slow work that is expected, does not."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from splitplace.edge_node.watchdog import (
    FACTOR,
    LONGEST_STEP_MS,
    MAX_LIMIT_MS,
    Activity,
    AwakeClock,
    Watchdog,
    describe,
    limit_ms,
)

FLOOR_MS = 20_000.0
FRAGMENT = "f" * 64


def test_time_in_which_the_process_stood_still_counts_as_one_step() -> None:
    clock = AwakeClock(0.0)
    for now_ms in (250.0, 500.0, 60_500.0, 60_750.0):
        clock.tick(now_ms)
    assert clock.read(60_800.0) == 500.0 + LONGEST_STEP_MS + 250.0 + 50.0


def test_the_time_awake_never_goes_back() -> None:
    clock = AwakeClock(100.0)
    clock.tick(50.0)
    assert clock.read(40.0) == 0.0


@pytest.mark.parametrize(
    ("expected_ms", "limit"),
    [(0.0, FLOOR_MS), (100.0, FLOOR_MS), (5000.0, FACTOR * 5000.0), (1e12, MAX_LIMIT_MS)],
)
def test_a_run_may_take_many_times_what_is_expected_and_no_expectation_makes_it_endless(
    expected_ms: float, limit: float
) -> None:
    assert limit_ms(Activity("run", 0.0, FRAGMENT, expected_ms), FLOOR_MS) == limit


def test_loading_and_the_event_loop_have_limits_too() -> None:
    assert FLOOR_MS < limit_ms(Activity("loop", 0.0), FLOOR_MS) < limit_ms(Activity("load", 0.0), FLOOR_MS)


def test_a_preparation_may_take_its_timeouts_and_as_long_again_as_loading() -> None:
    limit = limit_ms(Activity("prepare", 0.0, FRAGMENT, 1_200_000.0), FLOOR_MS)
    assert limit == 1_200_000.0 + limit_ms(Activity("load", 0.0), FLOOR_MS)


def test_what_hangs_is_named() -> None:
    assert FRAGMENT in describe(Activity("prepare", 3e6, FRAGMENT, 1e6))
    assert FRAGMENT in describe(Activity("run", 3e4, FRAGMENT, 10.0))
    assert FRAGMENT in describe(Activity("load", 3e4, FRAGMENT))
    assert "event loop" in describe(Activity("loop", 3e4))


@contextmanager
def watching(*activities: Activity, blame_hangs: bool = False) -> Iterator[tuple[threading.Event, list[str]]]:
    ended, blamed, never = threading.Event(), list[str](), threading.Event()

    def blame(fragment: str, reason: str) -> None:
        if blame_hangs:
            never.wait()
        blamed.append(f"{fragment}: {reason}")

    dog = Watchdog(floor_ms=FLOOR_MS, activities=lambda: activities, blame=blame, end=ended.set)
    dog.start()
    try:
        yield ended, blamed
    finally:
        never.set()
        dog.stop()


def test_a_run_that_hangs_is_blamed_and_then_the_process_ends() -> None:
    with watching(Activity("run", 1.0, "a"), Activity("run", FLOOR_MS, "b")) as (ended, blamed):
        assert ended.wait(10)
        assert [entry.partition(":")[0] for entry in blamed] == ["b"]


def test_a_disk_that_hangs_does_not_keep_the_process_alive() -> None:
    with watching(Activity("load", 1e6, "a"), blame_hangs=True) as (ended, _):
        assert ended.wait(20)


def test_work_within_its_limits_goes_on() -> None:
    with watching(Activity("run", FLOOR_MS - 1, "a"), Activity("loop", 0.0)) as (ended, _):
        assert not ended.wait(1.0)
