"""Dividing measured segments into stages."""

from itertools import combinations, pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.balance import Target, choose_cuts

EVEN = Target(slowdown=1, link_bytes_per_ms=1e9, tolerance=0)


def _pace(segments: list[float], crossing: list[float], cuts: tuple[int, ...], target: Target) -> float:
    ends = [0, *(cut + 1 for cut in cuts), len(segments)]
    compute = [sum(segments[a:b]) * target.slowdown for a, b in pairwise(ends)]
    return max(*compute, *(crossing[cut] / target.link_bytes_per_ms for cut in cuts), 0.0)


def test_equal_segments_are_divided_equally() -> None:
    assert choose_cuts([1.0] * 6, [1.0] * 5, 3, EVEN) == (1, 3)


def test_one_heavy_segment_stands_alone() -> None:
    assert choose_cuts([1.0, 1.0, 9.0, 1.0, 1.0], [1.0] * 4, 3, EVEN) == (1, 2)


def test_a_slow_link_moves_the_cut_to_where_less_crosses() -> None:
    segments, crossing = [1.0, 1.0, 1.0, 1.0], [100.0, 1000.0, 10.0]
    assert choose_cuts(segments, crossing, 2, EVEN) == (1,)
    slow = Target(slowdown=1, link_bytes_per_ms=100, tolerance=0)
    assert choose_cuts(segments, crossing, 2, slow) == (2,)


def test_slower_devices_make_the_same_link_matter_less() -> None:
    segments, crossing = [1.0, 1.0, 1.0, 1.0], [100.0, 1000.0, 10.0]
    slow_devices = Target(slowdown=100, link_bytes_per_ms=100, tolerance=0)
    assert choose_cuts(segments, crossing, 2, slow_devices) == (1,)


def test_of_nearly_equal_cuts_the_one_that_sends_least_is_taken() -> None:
    segments, crossing = [1.0, 0.04, 1.0], [100.0, 10.0]
    assert choose_cuts(segments, crossing, 2, Target(1, 1e9, tolerance=0.05)) == (1,)
    crossing.reverse()
    assert choose_cuts(segments, crossing, 2, Target(1, 1e9, tolerance=0.05)) == (0,)


def test_one_stage_is_the_whole_and_as_many_stages_as_segments_cut_everywhere() -> None:
    assert choose_cuts([1.0, 2.0, 3.0], [1.0, 1.0], 1, EVEN) == ()
    assert choose_cuts([1.0, 2.0, 3.0], [1.0, 1.0], 3, EVEN) == (0, 1)


@pytest.mark.parametrize(("segments", "places", "stages"), [(3, 2, 4), (3, 2, 0), (3, 3, 2), (0, 0, 1)])
def test_what_cannot_be_divided_is_refused(segments: int, places: int, stages: int) -> None:
    with pytest.raises(ValueError, match="cannot make"):
        choose_cuts([1.0] * segments, [1.0] * places, stages, EVEN)


@given(
    st.lists(
        st.tuples(st.floats(0, 10, allow_subnormal=False), st.floats(0, 1000, allow_subnormal=False)),
        min_size=2,
        max_size=8,
    ),
    st.integers(1, 4),
    st.floats(0, 0.5),
)
def test_it_is_never_worse_than_trying_everything(
    pairs: list[tuple[float, float]], stages: int, tolerance: float
) -> None:
    stages = min(stages, len(pairs))
    segments, crossing = [time for time, _ in pairs], [size for _, size in pairs[1:]]
    target = Target(slowdown=2, link_bytes_per_ms=50, tolerance=tolerance)
    cuts = choose_cuts(segments, crossing, stages, target)
    assert len(set(cuts)) == stages - 1, "no stage is empty"
    everything = list(combinations(range(len(crossing)), stages - 1))
    allowed = min(_pace(segments, crossing, other, target) for other in everything) * (1 + tolerance)
    assert _pace(segments, crossing, cuts, target) <= allowed + 1e-9
    sent = [
        sum(crossing[cut] for cut in other)
        for other in everything
        if _pace(segments, crossing, other, target) <= allowed - 1e-9
    ]
    assert sum(crossing[cut] for cut in cuts) <= min(sent, default=inf) + 1e-6
