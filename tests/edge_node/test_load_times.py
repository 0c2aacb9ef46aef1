"""Times to load follow the size of files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.edge_node.load_times import LoadTimes


def test_nothing_is_known_before_the_first_load_and_one_tells_only_its_time() -> None:
    times = LoadTimes()
    assert times.line() is None
    times.add(2e6, 30.0)
    assert times.line() == (30.0, 0.0)


def test_loads_of_different_sizes_tell_what_a_megabyte_costs() -> None:
    times = LoadTimes()
    for megabytes in (1, 40, 3, 20, 0.1):
        times.add(megabytes * 1e6, 20.0 + 5.0 * megabytes)
    line = times.line()
    assert line is not None
    assert line == pytest.approx((20.0, 5.0))
    assert line.load_ms(100e6) == pytest.approx(520.0)


def test_a_device_that_becomes_slower_is_followed() -> None:
    times = LoadTimes()
    for factor in (1.0, 3.0):
        for megabytes in (1, 10, 2, 20) * 5:
            times.add(megabytes * 1e6, factor * (20.0 + 5.0 * megabytes))
    line = times.line()
    assert line is not None
    assert line.load_ms(10e6) == pytest.approx(210.0, rel=0.1)


@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1e6)), min_size=1, max_size=30))
def test_no_time_is_ever_negative(loads: list[tuple[float, float]]) -> None:
    times = LoadTimes()
    for size, took_ms in loads:
        times.add(size, took_ms)
    line = times.line()
    assert line is not None
    assert min(line) >= 0
