"""Every formula of the cost model gives arrays what it gives each of their numbers."""

from math import inf, isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.policies import cost

times = st.floats(0, 1e6)
unknown_times = times | st.just(nan)
rates = st.just(0.0) | st.floats(1e-3, 1e6)
nodes = st.lists(st.tuples(rates, rates, unknown_times, unknown_times, times), min_size=1, max_size=6)


@given(nodes, times, times, st.integers(1, 50), st.integers(1, 500))
def test_arrays_get_what_their_numbers_get(
    entries: list[tuple[float, float, float, float, float]],
    now_ms: float,
    described_ms: float,
    calls: int,
    images: int,
) -> None:
    scores, links, seen, arriving, busy = (np.array(column) for column in zip(*entries, strict=True))
    slow = cost.slowness(50.0, scores)
    call_ms = cost.call_ms(described_ms, slow)
    image_ms = cost.image_ms(described_ms, slow, seen)
    work_ms = cost.work_ms(calls, images, call_ms, image_ms)
    ahead_ms = cost.ahead_ms(busy, busy, now_ms)
    fetch_ms = cost.fetch_ms(described_ms, links, seen)
    for index, (score, link, seen_ms, arriving_ms, busy_ms) in enumerate(entries):
        slow_here = cost.slowness(50.0, score)
        call_here, image_here = (
            cost.call_ms(described_ms, slow_here),
            cost.image_ms(described_ms, slow_here, seen_ms),
        )
        assert slow[index] == slow_here
        assert call_ms[index] == call_here
        assert image_ms[index] == image_here
        assert work_ms[index] == cost.work_ms(calls, images, call_here, image_here)
        assert ahead_ms[index] == cost.ahead_ms(busy_ms, busy_ms, now_ms)
        assert cost.ready_ms(now_ms, busy, ahead_ms)[index] == cost.ready_ms(now_ms, busy_ms, ahead_ms[index])
        fetch_here = cost.fetch_ms(described_ms, link, seen_ms)
        assert fetch_ms[index] == fetch_here
        ready_ms = cost.fragment_ready_ms(now_ms, arriving, fetch_ms)[index]
        assert ready_ms == cost.fragment_ready_ms(now_ms, arriving_ms, fetch_here) >= now_ms
        assert cost.transfer_ms(images, links)[index] == cost.transfer_ms(images, link)
        assert not any(map(isnan, (call_here, image_here, fetch_here, ready_ms)))


@pytest.mark.parametrize("measured_ms", [nan, 3.0])
@pytest.mark.parametrize("described_ms", [0.0, 2.0])
def test_a_node_without_speed_takes_infinitely_long(described_ms: float, measured_ms: float) -> None:
    slow = cost.slowness(50.0, 0.0)
    assert cost.call_ms(described_ms, slow) == cost.image_ms(described_ms, slow, measured_ms) == inf


def test_a_call_is_scaled_by_the_score_until_the_node_has_measured_it() -> None:
    slow = cost.slowness(50.0, 25.0)
    assert cost.work_ms(2, 10, cost.call_ms(1.0, slow), cost.image_ms(3.0, slow, nan)) == 2 * 2 + 10 * 6
    assert cost.work_ms(2, 10, cost.call_ms(1.0, slow), cost.image_ms(3.0, slow, 5.0)) == 2 * 2 + 10 * 5


def test_loading_takes_what_the_node_has_seen_else_what_the_size_of_the_file_says() -> None:
    assert cost.fetch_ms(1e6, 10.0, nan) == cost.FETCH_MS + 100
    assert cost.fetch_ms(1e6, 10.0, 7.0) == 107
    assert cost.fetch_ms(1e6, 10.0, 7.0, is_missing=False) == 7
    assert cost.fetch_ms(1e6, 0.0, 7.0) == inf
    assert cost.fragment_ready_ms(5.0, nan, 7.0) == 12
    assert cost.fragment_ready_ms(5.0, 3.0, 7.0) == 5


def test_a_nodes_own_time_of_a_call_counts_instead_of_the_described_one() -> None:
    assert cost.call_ms(1.0, cost.slowness(50.0, 25.0), 7.0) == 7.0
    slow = cost.slowness(50.0, np.array([25.0, 25.0]))
    assert list(cost.call_ms(1.0, slow, np.array([nan, 7.0]))) == [2.0, 7.0]


@given(st.integers(1, 100), st.lists(st.tuples(st.integers(1, 16), st.floats(1, 16)), min_size=1))
def test_what_calls_gain_by_running_at_once_is_the_same_for_arrays(
    calls: int, nodes: list[tuple[int, float]]
) -> None:
    threads, together = (np.array(column, dtype=float) for column in zip(*nodes, strict=True))
    gains = cost.together_gain(calls, threads, together)
    for index, (each, gain) in enumerate(nodes):
        assert gains[index] == cost.together_gain(calls, float(each), gain) >= 1
    assert cost.together_gain(calls, 1.0, 1.0) == 1.0


def test_calls_gain_by_running_at_once_if_they_fill_the_threads() -> None:
    assert cost.together_gain(4, 4.0, 1.5) == cost.together_gain(8, 4.0, 1.5) == 1.5
    assert cost.together_gain(6, 4.0, 1.5) == 1.125
    assert cost.together_gain(1, 4.0, 1.5) == 1.0, "then it runs on all cores"
