"""The statistics agree with figures worked out by hand or printed in textbooks."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.experiments.statistics import Estimate, compare, estimate, holm, judge


def test_the_interval_is_the_quantile_of_t_times_the_standard_error() -> None:
    # mean 3, standard deviation sqrt(2.5), t(.975, 4) = 2.7764451
    found = estimate([1, 2, 3, 4, 5])
    assert found.mean == 3
    assert found.margin == pytest.approx(2.7764451 * math.sqrt(2.5 / 5))
    assert found.low == pytest.approx(1.036757)
    assert found.high == pytest.approx(4.963243)


def test_a_higher_confidence_widens_the_interval() -> None:
    # t(.995, 4) = 4.6040949
    assert estimate([1, 2, 3, 4, 5], confidence=0.99).margin == pytest.approx(4.6040949 * math.sqrt(0.5))


def test_of_a_single_run_only_the_mean_is_known() -> None:
    found = estimate([7.0])
    assert (found.mean, found.margin, found.count) == (7.0, None, 1)
    assert (found.low, found.high) == (-math.inf, math.inf)


def test_no_runs_give_no_mean() -> None:
    with pytest.raises(ValueError, match="no values"):
        estimate([])


def test_a_comparison_looks_at_the_differences_of_each_pair() -> None:
    # differences 1, 2, 3, 4, 5: t = 3 / sqrt(.5) = 4.2426 with 4 degrees of freedom, p = .013236
    found = compare([11, 22, 33, 44, 55], [10, 20, 30, 40, 50])
    assert found.difference.mean == 3
    assert found.t_test == pytest.approx(0.013236, abs=1e-5)
    assert found.wilcoxon == pytest.approx(2 / 2**5)  # all five of one sign: the smallest that five can give


def test_equal_runs_are_no_evidence_of_a_difference() -> None:
    found = compare([1, 2, 3], [1, 2, 3])
    assert (found.difference.mean, found.t_test, found.wilcoxon) == (0, 1.0, 1.0)


def test_the_same_difference_every_time_is_certain() -> None:
    assert compare([2, 3, 4], [1, 2, 3]).t_test == 0.0


def test_a_single_pair_tests_nothing() -> None:
    found = compare([2], [1])
    assert (found.difference.mean, found.t_test, found.wilcoxon) == (1, None, None)


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="zip"):
        compare([1, 2], [1])


def test_holm_multiplies_the_smallest_by_all_and_never_lets_the_order_change() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_ends_at_one() -> None:
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_only_raises_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(before <= after <= 1 for before, after in zip(p_values, adjusted, strict=True))
    ranked = [after for _, after in sorted(zip(p_values, adjusted, strict=True))]
    assert ranked == sorted(ranked)


@pytest.mark.parametrize(
    ("mean", "margin", "verdict"),
    [(4.0, 0.5, "holds"), (3.2, 0.5, "undecided"), (2.0, 0.5, "fails"), (4.0, None, "undecided")],
)
def test_at_least_three_points_needs_the_whole_interval_above_three(
    mean: float, margin: float | None, verdict: str
) -> None:
    assert judge(Estimate(mean, margin, 5), 3, math.inf) == verdict


@pytest.mark.parametrize(
    ("mean", "margin", "verdict"),
    [(0.5, 1.0, "holds"), (1.5, 1.0, "undecided"), (3.5, 1.0, "fails"), (-3.5, 1.0, "fails")],
)
def test_within_two_points_needs_the_whole_interval_between_both_bounds(
    mean: float, margin: float, verdict: str
) -> None:
    assert judge(Estimate(mean, margin, 5), -2, 2) == verdict


def test_no_difference_at_all_neither_shows_nor_refutes_a_higher_value() -> None:
    assert judge(estimate([0.0, 0.0, 0.0]), 0, math.inf) == "undecided"
