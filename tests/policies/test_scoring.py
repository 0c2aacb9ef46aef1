import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.policies.scoring import (
    accuracy_of,
    is_on_time,
    jain_fairness,
    mean,
    mean_reward,
    quantile,
    reward,
    reward_of,
    violation_rate,
)
from tests.support.split_examples import context, outcome

ratios = st.floats(0, 1)


def test_an_answer_exactly_at_the_deadline_is_on_time() -> None:
    assert is_on_time(100.0, 100.0)
    assert not is_on_time(100.1, 100.0)


def test_equation_15_gives_half_for_time_and_half_for_accuracy() -> None:
    assert reward(on_time=True, accuracy=0.9) == pytest.approx(0.95)
    assert reward(on_time=False, accuracy=0.9) == pytest.approx(0.45)
    assert mean_reward([(True, 0.9), (False, 0.9), (False, 0.0)]) == pytest.approx((0.95 + 0.45 + 0) / 3)


def test_a_finished_task_earns_by_its_measured_accuracy_else_its_variants_and_nothing_without_answer() -> (
    None
):
    asked = context()
    assert reward_of(outcome(asked, "layer", 10.0, accuracy=0.5)) == 0.75
    assert reward_of(outcome(asked, "layer", 10.0)) == pytest.approx(0.95)
    assert reward_of(outcome(asked, "layer", 5000.0)) == pytest.approx(0.45)
    expired = outcome(asked, "layer", 5000.0, status="expired")
    assert (accuracy_of(expired), reward_of(expired)) == (0.0, 0.0)


def test_equation_14_counts_what_was_late() -> None:
    assert violation_rate([True, False, False, True]) == 0.5


def test_there_is_no_figure_of_nothing() -> None:
    assert mean_reward([]) is None
    assert violation_rate([]) is None
    assert mean([]) is None
    assert jain_fairness([]) is None
    assert quantile([], 0.5) is None


@given(st.lists(st.tuples(st.booleans(), ratios), min_size=1))
def test_reward_stays_between_none_and_all(tasks: list[tuple[bool, float]]) -> None:
    value = mean_reward(tasks)
    assert value is not None
    assert 0 <= value <= 1


def test_fairness_by_hand() -> None:
    assert jain_fairness([1, 1, 1, 1]) == pytest.approx(1)
    assert jain_fairness([1, 0, 0, 0]) == pytest.approx(0.25)
    assert jain_fairness([1, 3]) == pytest.approx(16 / 20)
    assert jain_fairness([0, 0]) == 1


@given(st.lists(st.floats(0, 1e300), min_size=1))
def test_fairness_lies_between_one_has_all_and_all_have_the_same(shares: list[float]) -> None:
    value = jain_fairness(shares)
    assert value is not None
    assert 1 / len(shares) - 1e-9 <= value <= 1 + 1e-9


def test_quantiles_interpolate_between_neighbours() -> None:
    assert quantile([4, 1, 3, 2], 0.5) == pytest.approx(2.5)
    assert quantile([1, 2, 3], 0.95) == pytest.approx(2.9)
    with pytest.raises(ValueError, match="95"):
        quantile([1], 95)
