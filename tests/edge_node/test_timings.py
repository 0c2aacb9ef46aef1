"""A node's own times: they follow the batch size, the cores in use, and changes of its speed."""

from random import Random

import pytest

from splitplace.edge_node.gains import ONE_THREAD, Gains
from splitplace.edge_node.timings import Line, Timings
from splitplace.messages.cluster import MAX_FRAGMENTS_LISTED

F = "f" * 64
TWO = Gains(2, alone=1.6, together=1.9)


def line(timings: Timings, fragment: str = F, gains: Gains = TWO) -> Line:
    found = timings.line(fragment, gains)
    assert found is not None
    return found


def test_nothing_is_known_before_the_first_call() -> None:
    timings = Timings()
    assert timings.line(F) is None
    assert timings.report() == ()
    assert timings.gains(F, TWO) == TWO


def test_different_batch_sizes_tell_what_a_call_costs_and_what_an_image() -> None:
    timings, random = Timings(lambda _: 100.0), Random(1)
    for _ in range(50):
        images = random.choice([1, 4, 16])
        timings.add(F, images, (3.0 + 0.5 * images) * random.uniform(0.98, 1.02), all_cores=True)
    assert line(timings) == pytest.approx((3.0, 0.5), rel=0.1)


def test_with_one_batch_size_the_described_time_of_a_call_is_taken() -> None:
    timings = Timings(lambda _: 2.0)
    timings.add(F, 8, 10.0, all_cores=True)
    assert line(timings) == (2.0, 1.0)
    timings = Timings(lambda _: 2.0)
    timings.add(F, 8, 1.5, all_cores=True)
    assert line(timings) == (1.5, 0.0), "a call that takes less than described"


def test_no_part_is_negative_whatever_was_measured() -> None:
    timings, random = Timings(lambda _: 1.0), Random(2)
    for _ in range(200):
        timings.add(F, random.randint(1, 32), random.choice([0.0, random.uniform(0, 50)]))
        found = line(timings)
        assert min(found) >= 0
    for timing in timings.report(TWO):
        assert timing.milliseconds_per_image >= 0


def test_new_times_replace_old_ones() -> None:
    timings = Timings()
    for _ in range(60):
        timings.add(F, 16, 16.0, all_cores=True)
    for _ in range(60):
        timings.add(F, 16, 48.0, all_cores=True)
    assert line(timings).of(16) == pytest.approx(48.0, rel=0.01)


def test_calls_beside_others_tell_what_all_cores_would_give_until_that_was_measured() -> None:
    timings = Timings(lambda _: 0.0)
    timings.add(F, 4, 16.0)
    assert line(timings).of(4) == pytest.approx(16.0 / 1.6)
    timings.add(F, 4, 15.0, all_cores=True)
    assert line(timings).of(4) == pytest.approx(15.0)
    assert timings.gains(F, TWO).alone == pytest.approx(16 / 15)
    (report,) = timings.report(TWO)
    assert report.milliseconds_per_image == pytest.approx(15 / 4)
    assert report.together == pytest.approx(1.9 / (16 / 15))


def test_a_speed_that_was_measured_again_applies_to_what_has_not_run_since_the_time_before() -> None:
    timings = Timings()
    timings.add(F, 1, 10.0)
    timings.measured_again(1.0)
    timings.add("e" * 64, 1, 10.0)
    timings.measured_again(2.0)
    assert line(timings).of(1) == pytest.approx(20 / 1.6)
    assert line(timings, "e" * 64).of(1) == pytest.approx(10 / 1.6), "it ran while the speed changed"
    timings.measured_again(0.5)
    assert line(timings).of(1) == pytest.approx(10 / 1.6)


def test_only_a_bounded_number_of_fragments_is_reported() -> None:
    timings = Timings()
    for number in range(MAX_FRAGMENTS_LISTED + 5):
        timings.add(f"{number:064x}", 1, 1.0)
    reported = timings.report()
    assert len(reported) == MAX_FRAGMENTS_LISTED
    assert reported[-1].fragment == f"{MAX_FRAGMENTS_LISTED + 4:064x}"


def _after_a_throttle(*took_ms: float, images: int = 8) -> float:
    """Return what a call on 8 images is taken for, after twenty of 80 ms and then others."""
    timings = Timings()
    for _ in range(20):
        timings.add(F, 8, 80.0)
    for each in took_ms:
        timings.add(F, images, each)
    return line(timings, gains=ONE_THREAD).of(8)


def test_when_a_throttle_is_over_two_calls_are_enough_to_know_it() -> None:
    assert _after_a_throttle(8.0, 8.0) == pytest.approx(8.0)
    assert _after_a_throttle(8.0, 8.4, 8.2, 8.0) == pytest.approx(8.2, rel=0.05)


def test_one_fast_call_among_others_changes_little() -> None:
    assert _after_a_throttle(8.0) > 70.0
    assert _after_a_throttle(8.0, 80.0, 8.0) > 60.0
    assert _after_a_throttle(50.0, 50.0) > 70.0, "not so much faster that something must be over"


def test_calls_of_a_much_smaller_size_say_nothing_of_a_throttle() -> None:
    timings = Timings()
    for _ in range(20):
        timings.add(F, 32, 320.0)
    for _ in range(2):
        timings.add(F, 1, 1.0)
    assert line(timings, gains=ONE_THREAD).of(32) > 250.0


def test_a_node_that_slows_down_is_not_taken_for_slow_at_once() -> None:
    timings = Timings()
    for took_ms in [8.0] * 20 + [80.0] * 2:
        timings.add(F, 8, took_ms)
    assert 12.0 < line(timings, gains=ONE_THREAD).of(8) < 40.0
