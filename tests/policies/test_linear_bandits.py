"""LinUCB and Thompson sampling over linear models of each arm's reward."""

import json
from random import Random

import numpy as np
import pytest

from splitplace.policies.splitting import Arm, SplitContext, SplitName, split_policy
from splitplace.policies.splitting.linear import (
    DISCOUNT,
    FEATURES,
    MAX_APPLICATIONS,
    RIDGE,
    Columns,
    LinearArm,
    features,
)
from splitplace.policies.splitting.linucb import ALPHA, LinUcb
from splitplace.policies.splitting.thompson import probability_of_highest
from splitplace.policies.state import Json, StateError
from tests.support.split_examples import LAYER, SEMANTIC, context, outcome

NAMES: list[SplitName] = ["linucb", "thompson"]


def test_the_features_say_how_the_slack_compares_with_the_prediction() -> None:
    columns = Columns()
    tight = features(context(slack_ms=50.0), 100.0, columns)
    even = features(context(slack_ms=100.0, load_ms=100.0, batch=1024), 100.0, columns)
    wide = features(context(slack_ms=200.0, application="other"), 100.0, columns)
    assert (
        tight[1] == pytest.approx(-wide[1]) == pytest.approx(-15 / 17)
    )  # tanh(2 ln 2) = (16 - 1) / (16 + 1)
    assert (even[1], even[2], even[3], even[4]) == (0.0, 1.0, 0.5, 0.0)
    assert (tight[5], tight[6], wide[5], wide[6]) == (1.0, 0.0, 0.0, 1.0)


def test_many_applications_share_the_last_column() -> None:
    columns = Columns()
    found = [columns.column(f"app-{index}") for index in range(MAX_APPLICATIONS + 3)]
    assert found == [*range(MAX_APPLICATIONS), *[MAX_APPLICATIONS - 1] * 3]


def test_the_model_is_discounted_ridge_regression() -> None:
    random = np.random.default_rng(0)
    xs, rewards = random.normal(size=(30, FEATURES)), random.random(30)
    arm = LinearArm()
    for x, reward in zip(xs, rewards, strict=True):
        arm = arm.after(x, reward)
    weights = DISCOUNT ** np.arange(29, -1, -1)
    gram = (xs.T * weights) @ xs + RIDGE * np.eye(FEATURES)
    coefficients = np.linalg.solve(gram, xs.T @ (weights * rewards))
    x = random.normal(size=FEATURES)
    mean, deviation = arm.estimate(x)
    assert mean == pytest.approx(x @ coefficients)
    assert deviation == pytest.approx(np.sqrt(x @ np.linalg.solve(gram, x)))


def test_what_was_not_seen_for_long_becomes_uncertain_again() -> None:
    x, y = np.eye(FEATURES)[:2]
    arm = LinearArm().after(x, 1.0)
    sure = arm.estimate(x)[1]
    for _ in range(1000):
        arm = arm.after(y, 1.0)
    assert sure < arm.estimate(x)[1] == pytest.approx(1.0, abs=0.01)


def test_linucb_adds_alpha_deviations_and_an_unseen_arm_starts_with_the_prior() -> None:
    policy = LinUcb()
    asked = context()
    policy.learn(asked, outcome(asked, "layer", 10.0))
    x = features(asked, 100.0, Columns())
    squared = float(x @ x)
    decision = policy.decide(asked)
    # One observation r at x: mean r x'x / (1 + x'x), variance x'x / (1 + x'x).
    assert decision.scores["layer"] == pytest.approx(
        0.95 * squared / (1 + squared) + ALPHA * np.sqrt(squared / (1 + squared))
    )
    y = features(asked, 40.0, Columns())
    assert decision.scores["semantic"] == pytest.approx(ALPHA * np.sqrt(y @ y))


def test_the_probability_of_the_highest_draw_is_right() -> None:
    assert probability_of_highest(0.5, 0.1, []) == pytest.approx(1.0, abs=1e-5)
    assert probability_of_highest(0.5, 0.1, [(0.5, 0.3)]) == pytest.approx(0.5)
    assert probability_of_highest(0.8, 0.3, [(0.5, 0.4)]) == pytest.approx(0.725747, abs=1e-5)  # Phi(.6)
    three = [(0.1, 0.2), (0.3, 0.1), (0.2, 0.3)]
    shares = [
        probability_of_highest(*belief, [other for other in three if other is not belief]) for belief in three
    ]
    assert sum(shares) == pytest.approx(1.0, abs=1e-4)


def test_thompson_draws_with_the_propensity_that_it_states() -> None:
    policy = split_policy("thompson", seed=3)
    for index in range(20):
        asked = context(task=f"c.{index}")
        policy.learn(asked, outcome(asked, "layer" if index % 2 else "semantic", 10.0))
    decisions = [policy.decide(context()) for _ in range(2000)]
    layer = [decision for decision in decisions if decision.variant == "layer"]
    assert 0.02 < layer[0].propensity < 0.98
    assert len(layer) / 2000 == pytest.approx(layer[0].propensity, abs=0.03)


def problem(random: Random) -> SplitContext:
    """Both arms are in time, or only the fast one, or none. A coin would lose .09 a task."""
    slack_ms = random.choice([20.0, 70.0, 500.0])
    return context(LAYER, SEMANTIC, task=f"c.{random.getrandbits(60)}", deadline_ms=slack_ms)


@pytest.mark.parametrize("name", NAMES)
def test_the_right_arm_is_learnt_for_each_slack(name: SplitName) -> None:
    random, policy = Random(4), split_policy(name, seed=4)
    lost = []
    for _ in range(600):
        asked = problem(random)
        rewards = {
            arm.variant: ((arm.predicted_ms or 0) <= asked.slack_ms) / 2 + arm.accuracy / 2
            for arm in asked.arms
        }
        variant = policy.decide(asked).variant
        assert variant is not None
        lost.append(max(rewards.values()) - rewards[variant])
        response_ms = next(arm.predicted_ms for arm in asked.arms if arm.variant == variant)
        policy.learn(asked, outcome(asked, variant, response_ms or 0.0))
    assert sum(lost[-200:]) / 200 < 0.02


@pytest.mark.parametrize("name", NAMES)
def test_a_drift_is_followed(name: SplitName) -> None:
    policy = split_policy(name, seed=5)

    def share_of_layer(response_ms: float) -> float:
        chosen = []
        for index in range(400):
            asked = context(task=f"c.{index}", deadline_ms=150.0)
            variant = policy.decide(asked).variant
            chosen.append(variant == "layer")
            policy.learn(asked, outcome(asked, variant, response_ms if variant == "layer" else 40.0))
        return sum(chosen[-100:]) / 100

    assert share_of_layer(100.0) > 0.6
    assert share_of_layer(300.0) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_learnt_state_survives_json_and_broken_state_is_refused(name: SplitName) -> None:
    policy, again = split_policy(name), split_policy(name)
    for index in range(10):
        asked = context(task=f"c.{index}", application=f"app-{index % 3}")
        policy.learn(asked, outcome(asked, "layer", 50.0 * index))
    saved = json.loads(json.dumps(policy.state()))
    again.restore(saved)
    assert again.decide(context()) == policy.decide(context())
    negative = json.loads(json.dumps((-np.eye(FEATURES)).tolist()))
    crooked: Json = {"layer": {"gram": negative, "moment": [0.0] * FEATURES}}
    with pytest.raises(StateError, match="layer is no sum of outer products"):
        again.restore({**saved, "arms": crooked})
    narrow: Json = {"layer": {"gram": [[1.0]], "moment": [0.0]}}
    with pytest.raises(StateError, match="gram"):
        again.restore({**saved, "arms": narrow})


def test_an_arm_that_could_not_run_when_it_was_decided_teaches_nothing() -> None:
    policy = LinUcb()
    asked = context(Arm("layer", "layer", 0.9, None, "too big"), SEMANTIC)
    policy.learn(asked, outcome(asked, "layer", 10.0))
    policy.learn(asked, outcome(asked, None, 10.0, status="refused"))
    assert policy.state()["arms"] == {}
