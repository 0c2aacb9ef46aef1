"""Dividing measured segments into stages."""

from itertools import combinations, pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.workshop.cutting.balance import Chain, Device, PartitionError, Target, partition


def target(*nodes: Device, tolerance: float = 0.0) -> Target:
    return Target(nodes or (Device(slowdown=1, link_bytes_per_ms=1e9),), tolerance)


def node(slowdown: float = 1, link: float = 1e9, memory: float = inf) -> Device:
    return Device(slowdown, link, memory)


def test_equal_segments_are_divided_equally() -> None:
    assert partition(Chain([1.0] * 6, [1.0] * 5), 3, target()).cuts == (1, 3)


def test_one_heavy_segment_stands_alone() -> None:
    assert partition(Chain([1.0, 1.0, 9.0, 1.0, 1.0], [1.0] * 4), 3, target()).cuts == (1, 2)


def test_a_slow_link_moves_the_cut_to_where_less_crosses() -> None:
    chain = Chain([1.0, 1.0, 1.0, 1.0], [100.0, 1000.0, 10.0])
    assert partition(chain, 2, target()).cuts == (1,)
    assert partition(chain, 2, target(node(link=100))).cuts == (2,)


def test_slower_devices_make_the_same_link_matter_less() -> None:
    chain = Chain([1.0, 1.0, 1.0, 1.0], [100.0, 1000.0, 10.0])
    assert partition(chain, 2, target(node(slowdown=100, link=100))).cuts == (1,)


def test_a_slower_node_gets_less_of_the_work() -> None:
    chain = Chain([1.0] * 6, [1.0] * 5)
    assert partition(chain, 2, target(node(slowdown=2), node())).cuts == (1,)
    assert partition(chain, 2, target(node(), node(slowdown=2))).cuts == (3,)


def test_only_the_link_behind_a_stage_slows_its_output() -> None:
    chain = Chain([1.0, 1.0, 1.0, 1.0], [10.0, 1000.0, 10.0])
    slow_link = node(link=100)
    assert partition(chain, 2, target(slow_link, node())).cuts == (0,)
    assert partition(chain, 2, target(node(), slow_link)).cuts == (1,)


def test_a_stage_that_does_not_fit_into_memory_is_made_smaller() -> None:
    chain = Chain([1.0] * 4, [1.0] * 3, weight_bytes=[1, 1, 1, 7], activation_bytes=[1, 1, 1, 1])
    assert partition(chain, 2, target()).cuts == (1,)
    assert partition(chain, 2, target(node(memory=8))).cuts == (2,)


def test_activations_count_once_at_their_greatest() -> None:
    chain = Chain([1.0] * 4, [1.0] * 3, activation_bytes=[5, 3, 4, 5])
    assert partition(chain, 2, target(node(memory=5))).cuts == (1,)


def test_what_fits_nowhere_is_refused() -> None:
    chain = Chain([1.0] * 4, [1.0] * 3, weight_bytes=[1, 1, 1, 9])
    with pytest.raises(PartitionError, match="memory"):
        partition(chain, 2, target(node(memory=8)))


def test_of_nearly_equal_cuts_the_one_that_sends_least_is_taken() -> None:
    segments = [1.0, 0.04, 1.0]
    chosen = partition(Chain(segments, [100.0, 10.0]), 2, target(tolerance=0.05))
    assert (chosen.cuts, chosen.pace_ms, chosen.least_pace_ms) == ((1,), 1.04, 1.04)
    chosen = partition(Chain([1.0, 0.04, 1.01], [10.0, 100.0]), 2, target(tolerance=0.05))
    assert (chosen.cuts, chosen.least_pace_ms) == ((0,), 1.04)
    assert chosen.pace_ms == pytest.approx(1.05)


def test_one_stage_is_the_whole_and_as_many_stages_as_segments_cut_everywhere() -> None:
    chain = Chain([1.0, 2.0, 3.0], [1.0, 1.0])
    assert partition(chain, 1, target()).cuts == ()
    assert partition(chain, 3, target()).cuts == (0, 1)


@pytest.mark.parametrize(("segments", "places", "stages"), [(3, 2, 4), (3, 2, 0), (3, 3, 2), (0, 0, 1)])
def test_what_cannot_be_divided_is_refused(segments: int, places: int, stages: int) -> None:
    with pytest.raises(PartitionError, match="cannot make"):
        partition(Chain([1.0] * segments, [1.0] * places), stages, target())


def test_as_many_nodes_as_stages_must_be_given() -> None:
    with pytest.raises(ValueError, match="2 nodes are given for 3 stages"):
        partition(Chain([1.0] * 4, [1.0] * 3), 3, target(node(), node()))


NUMBERS = st.floats(0, 1000, allow_subnormal=False)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Chain, Target, int]:
    count = draw(st.integers(2, 7))
    stages = draw(st.integers(1, min(4, count)))
    milliseconds, weights, activations = (
        draw(st.lists(NUMBERS, min_size=count, max_size=count)) for _ in range(3)
    )
    crossing = draw(st.lists(NUMBERS, min_size=count - 1, max_size=count - 1))
    nodes = st.builds(Device, st.floats(0.5, 8), st.floats(1, 1000), st.floats(500, 5000) | st.just(inf))
    chosen = draw(st.lists(nodes, min_size=stages, max_size=stages))
    tolerance = draw(st.floats(0, 0.5))
    return Chain(milliseconds, crossing, weights, activations), Target(tuple(chosen), tolerance), stages


def _pace(chain: Chain, cuts: tuple[int, ...], target: Target) -> float:
    slowest = 0.0
    for (first, end), node in zip(
        pairwise([0, *(cut + 1 for cut in cuts), len(chain.milliseconds)]), target.nodes, strict=True
    ):
        compute = sum(chain.milliseconds[first:end]) * node.slowdown
        send = chain.crossing_bytes[end - 1] / node.link_bytes_per_ms if end <= chain.places else 0.0
        memory = sum(chain.weight_bytes[first:end]) + max(chain.activation_bytes[first:end])
        slowest = max(slowest, compute, send) if memory <= node.memory_bytes else inf
    return slowest


@given(problems())
def test_it_is_never_worse_than_trying_everything(problem: tuple[Chain, Target, int]) -> None:
    chain, target, stages = problem
    everything = list(combinations(range(chain.places), stages - 1))
    least = min(_pace(chain, other, target) for other in everything)
    if least == inf:
        with pytest.raises(PartitionError, match="memory"):
            partition(chain, stages, target)
        return
    found = partition(chain, stages, target)
    assert found.least_pace_ms == pytest.approx(least, abs=1e-6)
    assert found.pace_ms == pytest.approx(_pace(chain, found.cuts, target), abs=1e-6)
    assert found.pace_ms <= least * (1 + target.tolerance) + 1e-6
    sent = [
        sum(chain.crossing_bytes[cut] for cut in other)
        for other in everything
        if _pace(chain, other, target) <= least * (1 + target.tolerance) - 1e-6
    ]
    assert sum(chain.crossing_bytes[cut] for cut in found.cuts) <= min(sent, default=inf) + 1e-6
