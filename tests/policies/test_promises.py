"""What is promised with probability P comes true in a share P of the cases."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitplace.policies.promises import (
    BINS,
    FEWEST,
    LEVELS,
    WINDOW,
    Promises,
    largest_error,
    reliability,
    venn_abers,
)
from splitplace.policies.state import StateError

probabilities = st.floats(0, 1)
pairs = st.lists(st.tuples(probabilities, st.booleans()), max_size=60)


@settings(deadline=None)
@given(pairs, probabilities)
def test_a_corrected_probability_is_one(said: list[tuple[float, bool]], probability: float) -> None:
    assert 0.0 <= venn_abers(said, probability) <= 1.0


@settings(deadline=None)
@given(pairs, probabilities, probabilities)
def test_what_was_more_probable_stays_so(said: list[tuple[float, bool]], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert venn_abers(said, low) <= venn_abers(said, high) + 1e-9


@settings(deadline=None)
@given(pairs, probabilities)
def test_the_order_of_what_was_said_makes_no_difference(
    said: list[tuple[float, bool]], probability: float
) -> None:
    assert venn_abers(said, probability) == pytest.approx(venn_abers(said[::-1], probability))


@pytest.mark.parametrize("bent", ["too sure", "too careful", "right"])
def test_promises_are_kept_whatever_a_policy_computes(bent: str) -> None:
    """Every bin of 30 promises or more is within 5 points after the first hundred; raw ones are not."""
    random, promises = Random(3), Promises()
    corrected, raw = [], []
    for number in range(4000):
        true = random.random() ** 0.5
        said = {"too sure": true**0.4, "too careful": true**2.5, "right": true}[bent]
        came_true = random.random() < true
        if number >= 100:
            corrected.append((promises.corrected("app", said), came_true))
            raw.append((said, came_true))
        promises.learn("app", said, came_true=came_true)
    assert all(abs(row.promised - row.kept) < 0.05 for row in reliability(corrected) if row.tasks >= 30)
    if bent != "right":
        assert any(abs(row.promised - row.kept) > 0.1 for row in reliability(raw) if row.tasks >= 30)


def test_nothing_is_corrected_before_something_was_seen() -> None:
    promises = Promises()
    for number in range(FEWEST):
        assert promises.corrected("app", 0.7) == 0.7
        promises.learn("app", 0.7, came_true=number % 2 == 0)
    assert promises.corrected("app", 0.7) == pytest.approx(0.5, abs=0.05)


def test_a_new_application_has_the_correction_of_all_others() -> None:
    promises = Promises()
    for number in range(2 * FEWEST):
        promises.learn("old", 0.9, came_true=number % 2 == 0)
    assert promises.corrected("new", 0.9) == pytest.approx(0.5, abs=0.05)
    for _ in range(2 * FEWEST):
        promises.learn("new", 0.9, came_true=True)
    assert promises.corrected("new", 0.9) > 0.9
    assert promises.corrected("old", 0.9) == pytest.approx(0.5, abs=0.05)


def test_what_is_long_past_is_forgotten() -> None:
    promises = Promises()
    for _ in range(WINDOW):
        promises.learn("app", 0.9, came_true=False)
    for _ in range(WINDOW):
        promises.learn("app", 0.9, came_true=True)
    assert promises.corrected("app", 0.9) > 0.95


def test_the_work_of_a_correction_is_bounded_and_costs_no_precision() -> None:
    promises, random = Promises(), Random(5)
    said = [(p, random.random() < p**2) for p in (random.random() for _ in range(WINDOW))]
    for probability, came_true in said:
        promises.learn("app", probability, came_true=came_true)
    saved = promises.state()["app"]
    assert isinstance(saved, list)
    assert len({tuple(pair) for pair in saved}) <= 2 * (LEVELS + 1)  # type: ignore[arg-type]
    for probability in (0.0, 0.2, 0.5, 0.77, 1.0):
        exact = venn_abers(said, probability)
        assert promises.corrected("app", probability) == pytest.approx(exact, abs=0.03)


def test_a_saved_state_promises_the_same() -> None:
    promises, again = Promises(), Promises()
    random = Random(1)
    for _ in range(100):
        promises.learn("app", random.random(), came_true=random.random() < 0.5)
    again.restore(promises.state())
    assert again.corrected("app", 0.6) == promises.corrected("app", 0.6)
    with pytest.raises(StateError):
        again.restore({"app": [[2.0, True]]})


def test_a_reliability_table_has_a_row_for_each_bin_that_is_not_empty() -> None:
    rows = reliability([(0.1, False), (0.1, True), (0.99, True), (1.0, True)])
    assert [(row.promised, row.kept, row.tasks) for row in rows] == [(0.1, 0.5, 2), (0.995, 1.0, 2)]
    assert len(reliability((share / 100, True) for share in range(101))) == len(BINS) + 1


def test_the_largest_error_is_of_a_bin_with_enough_promises() -> None:
    few = [(0.1, True)] * 29
    assert largest_error(few) is None
    assert largest_error([*few, *[(0.95, True)] * 15, *[(0.95, False)] * 15]) == pytest.approx(0.45)
