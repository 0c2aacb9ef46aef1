import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.policies.correction import FADE, LEAST, MOST, NEWEST_WEIGHT, Correction
from splitplace.policies.state import Json, StateError


def test_without_experience_a_prediction_stands() -> None:
    assert Correction().corrected_ms("mnist", "whole", 50.0) == 50.0


def test_one_observation_moves_the_factor_by_its_weight() -> None:
    correction = Correction()
    correction.learn("mnist", "whole", 50.0, 100.0)
    assert correction.factor("mnist", "whole") == pytest.approx(2**NEWEST_WEIGHT)
    assert correction.factor("mnist", "layer") == 1.0
    assert correction.factor("fashion", "whole") == 1.0


def test_steady_observations_are_believed_in_the_end() -> None:
    correction = Correction()
    for _ in range(50):
        correction.learn("mnist", "whole", 50.0, 75.0)
    assert correction.corrected_ms("mnist", "whole", 50.0) == pytest.approx(75.0, rel=0.01)


def test_a_variant_that_is_not_chosen_any_more_gets_another_chance() -> None:
    correction = Correction()
    for _ in range(50):
        correction.learn("mnist", "whole", 10.0, 100.0)
    shunned = correction.factor("mnist", "whole")
    assert shunned > 3
    for _ in range(300):
        correction.learn("mnist", "layer", 10.0, 10.0)
    assert correction.factor("mnist", "whole") == pytest.approx(1 + (shunned - 1) * (1 - FADE) ** 300)
    assert correction.factor("mnist", "whole") < 1.2


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 1e9), st.floats(0, 1e9))))
def test_factors_stay_in_bounds_and_survive_json(seen: list[tuple[str, float, float]]) -> None:
    correction = Correction()
    for variant, predicted, actual in seen:
        correction.learn("mnist", variant, predicted, actual)
    for variant in "ab":
        assert LEAST <= correction.factor("mnist", variant) <= MOST
    restored = Correction()
    restored.restore(json.loads(json.dumps(correction.state())))
    assert restored.state() == correction.state()


@pytest.mark.parametrize(
    "broken",
    [{"mnist": 1.0}, {"mnist": {"whole": "2"}}, {"mnist": {"whole": 1e9}}, {"mnist": {"whole": True}}],
)
def test_a_broken_state_is_refused_and_changes_nothing(broken: dict[str, Json]) -> None:
    correction = Correction()
    correction.learn("mnist", "whole", 50.0, 100.0)
    before = correction.state()
    with pytest.raises(StateError):
        correction.restore(broken)
    assert correction.state() == before


def test_tasks_that_take_twice_and_half_as_long_in_turn_leave_predictions_in_the_middle() -> None:
    correction = Correction()
    for _ in range(100):
        correction.learn("mnist", "whole", 50.0, 100.0)
        correction.learn("mnist", "whole", 50.0, 25.0)
    assert correction.factor("mnist", "whole") == pytest.approx(1.0, abs=0.1)
