"""Whether jobs run one by one on all cores or several at once, and what a queue takes."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.edge_node.gains import ONE_THREAD, Gains
from splitplace.edge_node.lanes import all_cores_pay, together_gain

TWO = Gains(2, alone=1.8, together=1.95)
TINY = Gains(4, alone=1.1, together=3.8)
"""A network too small for its threads to share the work."""

gains = st.builds(Gains, st.integers(2, 16), st.floats(1.01, 16), st.floats(1.01, 16))


def test_a_short_queue_gets_all_cores_for_each_job_and_a_long_one_a_core_for_each() -> None:
    assert [all_cores_pay(waiting, TWO) for waiting in (1, 2, 3)] == [True, True, True]
    assert not all_cores_pay(50, TWO)


def test_small_networks_run_at_once_as_soon_as_two_wait() -> None:
    assert all_cores_pay(1, TINY)
    assert not all_cores_pay(2, TINY)


def test_one_core_and_threads_that_gain_nothing_are_no_use() -> None:
    assert not all_cores_pay(1, ONE_THREAD)
    assert not all_cores_pay(1, Gains(4, alone=0.9, together=3.5))


@given(gains, st.integers(1, 60))
def test_the_lower_mean_time_to_the_end_of_a_job_wins(gains: Gains, waiting: int) -> None:
    one_by_one = [number / gains.alone for number in range(1, waiting + 1)]
    slower = gains.threads / gains.together
    at_once = [slower * ceil(number / gains.threads) for number in range(1, waiting + 1)]
    if sum(one_by_one) != pytest.approx(sum(at_once), rel=1e-9):
        assert all_cores_pay(waiting, gains) == (sum(one_by_one) < sum(at_once))


def test_what_a_queue_takes_follows_from_its_length() -> None:
    assert together_gain(0, TWO) == together_gain(1, TWO) == 1.0
    assert together_gain(100, TWO) == pytest.approx(1.95 / 1.8)
    assert together_gain(4, TINY) == pytest.approx(3.8 / 1.1)
    assert together_gain(5, TINY) == pytest.approx(3.8 / 1.1 * 5 / 8)
    assert together_gain(7, ONE_THREAD) == 1.0
