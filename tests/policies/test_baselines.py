"""The paper's baselines: model compression and Gillis."""

import json
from random import Random

import pytest

from splitplace.policies.splitting import Arm, split_policy
from splitplace.policies.splitting.gillis import (
    DISCOUNT,
    FIRST_VALUE,
    LAST_EPSILON,
    LEARNING_RATE,
    Gillis,
    situation_of,
)
from splitplace.policies.state import StateError
from tests.support.split_examples import LAYER, SEMANTIC, context, outcome

WHOLE = Arm("whole", "whole", 0.95, 200.0, "")
COMPRESSED = Arm("compressed", "compressed", 0.85, 60.0, "")
INT8 = Arm("compressed-int8", "compressed", 0.82, 30.0, "")


def mc(*arms: Arm, slack_ms: float) -> str | None:
    return split_policy("mc").decide(context(*arms, slack_ms=slack_ms)).variant


def test_compression_takes_the_whole_network_only_where_it_is_in_time() -> None:
    assert mc(WHOLE, LAYER, SEMANTIC, COMPRESSED, slack_ms=200.0) == "whole"
    assert mc(WHOLE, LAYER, SEMANTIC, COMPRESSED, slack_ms=199.0) == "compressed"


def test_compression_prefers_the_more_accurate_of_the_compressed_that_fit_else_the_fastest() -> None:
    assert mc(WHOLE, COMPRESSED, INT8, slack_ms=100.0) == "compressed"
    assert mc(WHOLE, COMPRESSED, INT8, slack_ms=50.0) == "compressed-int8"
    assert mc(WHOLE, COMPRESSED, INT8, slack_ms=1.0) == "compressed-int8"


def test_compression_makes_do_with_what_can_run_and_refuses_what_is_not_its_own() -> None:
    too_big = Arm("whole", "whole", 0.95, None, "too big")
    assert mc(too_big, COMPRESSED, slack_ms=1000.0) == "compressed"
    refusal = split_policy("mc").decide(context(LAYER, SEMANTIC))
    assert refusal.reason == "toy has neither a whole nor a compressed variant, only layer, semantic"
    waiting = split_policy("mc").decide(
        context(Arm("whole", "whole", 0.95, None, "no room", temporary=True), LAYER)
    )
    assert (waiting.variant, waiting.can_wait) == (None, True)


def gillis_after(*rewards: tuple[str, float]) -> Gillis:
    """A learner that saw these outcomes in one and the same state, one after the other."""
    made = Gillis(Random(0))
    for index, (variant, accuracy) in enumerate(rewards):
        asked = context(LAYER, COMPRESSED, task=f"c.{index}")
        made.decide(asked)
        made.learn(asked, outcome(asked, variant, 10.0, accuracy=accuracy))
    return made


def after(value: float, reward: float, following: float) -> float:
    """One step of Q-learning."""
    return value + LEARNING_RATE * (reward + DISCOUNT * following - value)


def test_gillis_updates_by_the_reward_and_the_value_of_the_state_that_followed() -> None:
    layer = after(FIRST_VALUE, 0.9, FIRST_VALUE)  # (1 + .8) / 2; the best action of its state is untried
    compressed = after(FIRST_VALUE, 0.75, FIRST_VALUE)
    again = after(layer, 0.6, max(layer, compressed))
    made = gillis_after(("layer", 0.8), ("compressed", 0.5), ("layer", 0.2))
    scores = made.decide(context(LAYER, COMPRESSED)).scores
    assert scores == {"layer": pytest.approx(again), "compressed": pytest.approx(compressed)}


def test_the_next_state_is_that_of_the_applications_next_decision() -> None:
    made = gillis_after(("layer", 0.8), ("compressed", 0.5))
    known = max(made.decide(context(LAYER, COMPRESSED)).scores.values())
    assert known < FIRST_VALUE
    elsewhere = context(LAYER, COMPRESSED, task="c.elsewhere", deadline_ms=100_000.0)
    made.decide(elsewhere)
    made.decide(context(LAYER, COMPRESSED, task="c.next"))  # in the state that is known
    made.learn(elsewhere, outcome(elsewhere, "layer", 10.0, accuracy=1.0))
    again = made.decide(context(LAYER, COMPRESSED, deadline_ms=100_000.0))
    assert again.scores["layer"] == pytest.approx(after(FIRST_VALUE, 1.0, known))


def test_states_are_octaves_of_slack_and_batch_and_shares_of_waiting_work() -> None:
    def situation(slack_ms: float, batch: int, load_ms: float) -> str:
        return situation_of(context(slack_ms=slack_ms, batch=batch, load_ms=load_ms))

    assert situation(1024.0, 16, 0.0) == "slack 10, batch 4, load 0"
    assert situation(1024.0, 16, 0.0) == situation(2000.0, 31, 100.0)
    assert situation(1000.0, 16, 500.0) == "slack 9, batch 4, load 2"
    assert situation(-5.0, 1, 1.0) == "slack 0, batch 0, load 3"


def test_gillis_chooses_only_between_layer_and_compressed() -> None:
    made = Gillis(Random(1))
    arms = (WHOLE, LAYER, SEMANTIC, COMPRESSED)
    assert {made.decide(context(*arms)).variant for _ in range(50)} == {"layer", "compressed"}
    assert made.decide(context(WHOLE, SEMANTIC)).variant is None
    assert made.decide(context(WHOLE, Arm("layer", "layer", 0.9, None, "no room", temporary=True))).can_wait


def test_gillis_learns_when_a_layer_split_is_too_slow_and_explores_less_and_less() -> None:
    made = Gillis(Random(2))
    random = Random(3)
    coarse = Arm("compressed", "compressed", 0.5, 60.0, "")
    for index in range(600):
        asked = context(LAYER, coarse, task=f"c.{index}", deadline_ms=random.choice([90.0, 900.0]))
        variant = made.decide(asked).variant
        made.learn(asked, outcome(asked, variant, 100.0 if variant == "layer" else 60.0))
    tight = [made.decide(context(LAYER, coarse, deadline_ms=90.0)) for _ in range(200)]
    wide = [made.decide(context(LAYER, coarse, deadline_ms=900.0)) for _ in range(200)]
    assert sum(decision.variant == "compressed" for decision in tight) > 180
    assert sum(decision.variant == "layer" for decision in wide) > 180
    assert {decision.propensity for decision in tight if decision.variant == "compressed"} == {
        1 - LAST_EPSILON / 2
    }


def test_gillis_restores_its_state_and_refuses_impossible_values() -> None:
    made = gillis_after(("layer", 0.8), ("compressed", 1.0))
    saved = json.loads(json.dumps(made.state()))
    again = Gillis(Random(0))
    again.restore(saved)
    assert again.state() == made.state()
    with pytest.raises(StateError, match="epsilon"):
        again.restore({**saved, "epsilon": 2.0})
    with pytest.raises(StateError, match="layer"):
        again.restore({**saved, "q": {"toy": {"state": {"layer": 1e300}}}})
