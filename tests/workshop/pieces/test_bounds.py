import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.workshop.pieces.bounds import LEAST_WEIGHT_BYTES, MOST_PIECES, SHARE, Segments, piece_bounds


def sums(values: list[float], bounds: tuple[int, ...]) -> list[float]:
    """The sum of each piece."""
    ends = [*(bound + 1 for bound in bounds), len(values)]
    return [sum(values[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def segments(milliseconds: list[float], weights: list[float], **fields: object) -> Segments:
    crossing = [1.0] * (len(milliseconds) - 1)
    return Segments(milliseconds, weights, **{"crossing_bytes": crossing, **fields})  # type: ignore[arg-type]


def test_a_large_network_gets_pieces_of_little_time_and_few_weights() -> None:
    times = [3.0] * 20 + [1.0] * 20
    weights = [1e6] * 20 + [4e6] * 20
    bounds = piece_bounds(segments(times, weights))
    assert 8 <= len(bounds) + 1 <= MOST_PIECES
    assert max(sums(times, bounds)) <= SHARE * sum(times) + 1e-9
    assert max(sums(weights, bounds)) <= SHARE * sum(weights) + 1e-9


def test_a_segment_that_cannot_be_cut_stands_alone() -> None:
    times = [1.0] * 30
    weights = [1e6] * 15 + [100e6] + [1e6] * 14
    bounds = piece_bounds(segments(times, weights))
    assert 100e6 in sums(weights, bounds)


def test_a_tiny_network_stays_whole() -> None:
    assert piece_bounds(segments([0.01] * 20, [1000.0] * 20)) == ()


def test_many_weights_make_pieces_of_a_network_that_takes_no_time() -> None:
    weights = [float(LEAST_WEIGHT_BYTES)] * 10
    bounds = piece_bounds(segments([0.001] * 10, weights))
    assert len(bounds) == 9


def test_of_bounds_that_fit_those_with_few_bytes_are_chosen() -> None:
    crossing = [9.0] * 39
    for place in (2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32, 35, 38):
        crossing[place] = 1.0
    bounds = piece_bounds(segments([2.0] * 40, [1e7] * 40, crossing_bytes=crossing))
    assert {crossing[bound] for bound in bounds} == {1.0}


def test_no_piece_is_larger_than_a_node_takes_however_many_that_makes() -> None:
    weights = [30e6] * 100
    bounds = piece_bounds(segments([1.0] * 100, weights, most_weight_bytes=100e6))
    assert len(bounds) + 1 == 34 > MOST_PIECES
    assert max(sums(weights, bounds)) <= 100e6


def test_required_places_are_bounds_also_of_a_tiny_network() -> None:
    assert piece_bounds(segments([0.01] * 20, [1000.0] * 20, required=[3, 12])) == (3, 12)


def test_lengths_must_fit() -> None:
    with pytest.raises(ValueError, match="2 segments with 1 weights"):
        piece_bounds(Segments([1.0, 2.0], [1.0], [1.0]))


values = st.lists(st.floats(min_value=0, max_value=1e9), min_size=1, max_size=40)


@given(values, st.data())
def test_bounds_are_ascending_places_and_few(times: list[float], data: st.DataObject) -> None:
    count = len(times)
    weights = data.draw(st.lists(st.floats(0, 1e9), min_size=count, max_size=count))
    required = data.draw(st.sets(st.integers(0, count - 2), max_size=3)) if count > 1 else set()
    bounds = piece_bounds(segments(times, weights, required=required))
    assert list(bounds) == sorted(set(bounds))
    assert all(0 <= bound < count - 1 for bound in bounds)
    assert len(bounds) < max(MOST_PIECES, len(required) + 1) + 1
    assert required <= set(bounds)
