"""What is promised with probability P comes true in a share P of the cases."""

from math import nan
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitplace.policies.promises import (
    BINS,
    FEWEST,
    Promises,
    largest_error,
    reliability,
)
from splitplace.policies.state import StateError

probabilities = st.floats(0, 1)
pairs = st.lists(st.tuples(probabilities, st.booleans()), max_size=60)


def after(said: list[tuple[float, bool]]) -> Promises:
    promises = Promises()
    for probability, came_true in said:
        promises.learn("app", probability, came_true=came_true)
    return promises


@settings(deadline=None)
@given(pairs, probabilities)
def test_a_corrected_probability_is_one(said: list[tuple[float, bool]], probability: float) -> None:
    assert 0.0 < after(said).corrected("app", probability) < 1.0


@pytest.mark.parametrize("bent", ["too sure", "too careful", "right"])
def test_promises_are_kept_whatever_a_policy_computes(bent: str) -> None:
    """Every bin of 100 promises or more is within 5 points after the first hundred; raw ones are not."""
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
    assert all(abs(row.promised - row.kept) < 0.05 for row in reliability(corrected) if row.tasks >= 100)
    if bent != "right":
        assert any(abs(row.promised - row.kept) > 0.1 for row in reliability(raw) if row.tasks >= 100)


def test_what_is_said_rightly_is_not_spoilt_by_few_outcomes() -> None:
    """Most tasks are said to be in time for certain, and are; a rare one, said to be open, is so."""
    promises = after([(0.995, True)] * 100)
    assert promises.corrected("app", 0.6) == pytest.approx(0.6, abs=0.15)
    assert promises.corrected("app", 0.98) > 0.97


def test_nothing_is_corrected_before_something_was_seen() -> None:
    promises = Promises()
    assert promises.corrected("app", 0.7) == pytest.approx(0.7)
    assert promises.corrected("app", 1.0) < 1.0
    for number in range(FEWEST):
        promises.learn("app", 0.7, came_true=number % 2 == 0)
    assert promises.corrected("app", 0.7) == pytest.approx(0.5, abs=0.05)


def test_a_new_application_has_the_correction_of_all_others() -> None:
    promises = Promises()
    for number in range(2 * FEWEST):
        promises.learn("old", 0.9, came_true=number % 2 == 0)
    assert promises.corrected("new", 0.9) == pytest.approx(0.5, abs=0.07)
    for _ in range(2 * FEWEST):
        promises.learn("new", 0.9, came_true=True)
    assert promises.corrected("new", 0.9) > 0.9
    assert promises.corrected("old", 0.9) == pytest.approx(0.5, abs=0.07)


def test_what_is_long_past_is_forgotten() -> None:
    promises = Promises()
    for _ in range(400):
        promises.learn("app", 0.9, came_true=False)
    for _ in range(1000):
        promises.learn("app", 0.9, came_true=True)
    assert promises.corrected("app", 0.9) > 0.95


def test_a_saved_state_promises_the_same() -> None:
    promises, again = Promises(), Promises()
    random = Random(1)
    for _ in range(100):
        promises.learn("app", random.random(), came_true=random.random() < 0.5)
    again.restore(promises.state())
    assert again.corrected("app", 0.6) == promises.corrected("app", 0.6)
    again.restore({})
    assert again.corrected("app", 0.6) == pytest.approx(0.6)


def broken(**changes: float) -> dict[str, object]:
    saved: Any = Promises().state()
    return {**saved, "together": saved["together"] | changes}


@pytest.mark.parametrize(
    "state",
    [{"app": [[0.5, True]]}, broken(slope=nan), broken(offset_precision=-1.0), broken(shared_precision=9.0)],
)
def test_a_state_that_is_none_is_refused(state: Any) -> None:
    with pytest.raises(StateError):
        Promises().restore(state)


def test_a_reliability_table_has_a_row_for_each_bin_that_is_not_empty() -> None:
    rows = reliability([(0.1, False), (0.1, True), (0.99, True), (1.0, True)])
    assert [(row.promised, row.kept, row.tasks) for row in rows] == [(0.1, 0.5, 2), (0.995, 1.0, 2)]
    assert len(reliability((share / 100, True) for share in range(101))) == len(BINS) + 1


def test_the_largest_error_is_of_a_bin_with_enough_promises() -> None:
    few = [(0.1, True)] * 29
    assert largest_error(few) is None
    assert largest_error([*few, *[(0.95, True)] * 15, *[(0.95, False)] * 15]) == pytest.approx(0.45)
