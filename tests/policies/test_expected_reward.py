"""Our own policy: expected reward under learnt distributions, less what others lose."""

import json
from dataclasses import replace
from random import Random

import pytest

from splitplace.policies.splitting import Arm, Decision, SplitContext, split_policy
from splitplace.policies.splitting.expected_reward import EXPLORATION, ExpectedReward
from splitplace.policies.splitting.ratios import PRIOR_TROUBLE
from splitplace.policies.state import StateError
from tests.support.kinds import kind_named
from tests.support.split_examples import context, outcome


def arm(
    variant: str, accuracy: float, predicted_ms: float | None, *, work_ms: float = 50.0, wait_ms: float = 0.0
) -> Arm:
    return Arm(
        variant,
        kind_named(variant),
        accuracy,
        predicted_ms,
        "",
        foreseen_ms=predicted_ms,
        wait_ms=wait_ms,
        work_ms=work_ms,
        burden_ms=work_ms,
    )


HEAVY = arm("layer", 0.9, 100.0, work_ms=400.0)
LIGHT = arm("semantic", 0.8, 40.0)


def policy(seed: int = 0) -> ExpectedReward:
    return ExpectedReward(Random(seed))


def live(
    made: ExpectedReward, asked: SplitContext, response_ms: float, *, late_status: str = "answered"
) -> Decision:
    """A decision and its outcome."""
    decision = made.decide(asked)
    if decision.variant is not None:
        late = response_ms > asked.deadline_ms
        made.learn(
            asked, outcome(asked, decision.variant, response_ms, status=late_status if late else "answered")
        )
    return decision


def test_with_time_enough_the_most_accurate_arm_is_taken_and_with_little_the_fast_one() -> None:
    assert policy().decide(context(HEAVY, LIGHT, deadline_ms=1000.0)).variant == "layer"
    assert policy().decide(context(HEAVY, LIGHT, deadline_ms=80.0)).variant == "semantic"


def test_the_score_is_the_expected_reward_of_equation_15() -> None:
    """At slack = prediction half of those without trouble are in time; half of the others are answered."""
    decision = policy().decide(context(HEAVY, deadline_ms=100.0))
    on_time = 0.5 * (1 - PRIOR_TROUBLE)
    assert decision.scores["layer"] == pytest.approx(on_time * 1.9 / 2 + (1 - on_time) * 0.5 * 0.9 / 2)
    assert "(100 ms are left), expected reward 0.57" in decision.reason


def test_predictions_that_prove_too_hopeful_are_not_believed_any_more() -> None:
    made = policy()
    asked = context(HEAVY, LIGHT, deadline_ms=150.0)
    assert made.decide(asked).variant == "layer"
    for _ in range(30):
        made.learn(asked, outcome(asked, "layer", 200.0))
        made.learn(asked, outcome(asked, "semantic", 40.0))
    assert made.decide(asked).variant == "semantic"
    assert made.decide(context(HEAVY, LIGHT, deadline_ms=400.0)).variant == "layer"


def test_predictions_that_prove_right_are_trusted_to_the_last_moment() -> None:
    made = policy()
    asked = context(HEAVY, LIGHT, deadline_ms=105.0)
    assert made.decide(asked).variant == "semantic"
    for _ in range(60):
        made.learn(asked, outcome(asked, "layer", 95.0))
        made.learn(asked, outcome(asked, "semantic", 38.0))
    assert made.decide(asked).variant == "layer"


def busy_system(made: ExpectedReward, *, load_ms: float) -> None:
    """Tasks that nearly miss their deadlines, each behind so much work."""
    for index in range(60):
        asked = context(LIGHT, task=f"c.{index}", deadline_ms=60.0, load_ms=load_ms)
        live(made, asked, 70.0 if index % 4 == 0 else 40.0)


def test_on_a_busy_system_the_light_arm_wins_although_the_heavy_one_would_be_in_time() -> None:
    calm, busy = policy(), policy()
    busy_system(calm, load_ms=0.0)
    busy_system(busy, load_ms=100.0)
    assert calm.decide(context(HEAVY, LIGHT, deadline_ms=5000.0)).variant == "layer"
    assert busy.decide(context(HEAVY, LIGHT, deadline_ms=5000.0, load_ms=20.0)).variant == "semantic"
    assert busy.decide(context(HEAVY, LIGHT, deadline_ms=5000.0, load_ms=0.0)).variant == "layer"


def test_what_others_lose_grows_with_the_work() -> None:
    works = {"semantic-0": 0.0, "semantic-1": 10.0, "semantic-2": 20.0}
    arms = [arm(name, 0.8, 40.0, work_ms=work_ms) for name, work_ms in works.items()]
    made = policy()
    busy_system(made, load_ms=100.0)
    scores = made.decide(context(*arms, deadline_ms=5000.0, load_ms=50.0)).scores
    free, some, twice = (scores[name] for name in works)
    assert free > some
    assert free - twice == pytest.approx(2 * (free - some))


def test_what_keeps_the_brokers_link_costs_others_as_work_does() -> None:
    made = policy()
    busy_system(made, load_ms=100.0)
    tensors = replace(LIGHT, burden_ms=400.0)
    scores = made.decide(context(HEAVY, tensors, deadline_ms=5000.0, load_ms=50.0)).scores
    assert 0.95 - scores["layer"] == pytest.approx(0.9 - scores["semantic"], abs=0.02)


def test_a_task_that_would_be_late_on_idle_nodes_too_is_no_reason_to_charge_others() -> None:
    made = policy()
    for index in range(60):
        live(made, context(LIGHT, task=f"c.{index}", deadline_ms=30.0, load_ms=100.0), 40.0)
    scores = made.decide(context(HEAVY, LIGHT, deadline_ms=5000.0, load_ms=100.0)).scores
    assert scores == {"layer": pytest.approx(0.95, abs=0.02), "semantic": pytest.approx(0.9, abs=0.02)}


def test_on_an_idle_system_even_a_hopeless_task_is_tried_and_on_a_busy_one_it_is_refused() -> None:
    hopeless = arm("layer", 0.9, 5000.0, work_ms=5000.0)
    made = policy()
    busy_system(made, load_ms=100.0)
    assert made.decide(context(hopeless, deadline_ms=100.0, load_ms=1.0)).variant == "layer"
    refusal = made.decide(context(hopeless, deadline_ms=100.0, load_ms=100.0))
    assert refusal.variant is None
    assert "others would lose" in refusal.reason
    assert refusal.scores["layer"] <= 0


def test_instead_of_being_refused_a_task_waits_for_an_arm_that_only_lacks_memory_now() -> None:
    hopeless = arm("layer", 0.9, 5000.0, work_ms=5000.0)
    lacking = arm("semantic", 0.8, None)
    made = policy()
    busy_system(made, load_ms=100.0)
    for temporary in (True, False):
        arms = hopeless, replace(lacking, temporary=temporary)
        refusal = made.decide(context(*arms, deadline_ms=100.0, load_ms=100.0))
        assert (refusal.variant, refusal.can_wait) == (None, temporary)


def test_whether_late_answers_still_count_is_learnt() -> None:
    asked = context(HEAVY, deadline_ms=10.0)
    kept, dropped = policy(), policy()
    for _ in range(60):
        live(kept, asked, 100.0, late_status="answered")
        live(dropped, asked, 100.0, late_status="expired")
    assert kept.decide(asked).scores["layer"] == pytest.approx(0.45, abs=0.02)
    assert dropped.decide(asked).scores["layer"] == pytest.approx(0.0, abs=0.02)


def test_of_arms_that_all_come_late_one_that_comes_within_the_grace_is_taken() -> None:
    slow, less_slow = arm("layer", 0.9, 2000.0), arm("semantic", 0.8, 400.0)
    decision = policy().decide(context(slow, less_slow, deadline_ms=100.0, grace_ms=500.0))
    assert decision.variant == "semantic"
    assert decision.scores["semantic"] == pytest.approx(0.5 * 0.8, abs=0.05)
    assert decision.scores["layer"] == pytest.approx(0.0, abs=0.02)


def test_where_answers_are_given_up_at_the_deadline_only_the_chance_to_be_in_time_counts() -> None:
    asked = context(HEAVY, deadline_ms=100.0, grace_ms=0.0)
    patient = context(HEAVY, deadline_ms=100.0, grace_ms=1e9)
    in_time = 0.5 * (1 - PRIOR_TROUBLE)  # HEAVY is predicted to take just as long
    given_up, waited = (policy().decide(each).scores["layer"] for each in (asked, patient))
    assert given_up == pytest.approx(in_time * (1 + 0.9) / 2, abs=0.01)
    assert waited == pytest.approx(in_time * 0.5 + 0.9 / 2, abs=0.01)


def test_only_arms_that_may_be_better_and_are_not_much_worse_are_explored() -> None:
    near = arm("semantic", 0.88, 60.0)
    made = policy(1)
    decisions = [made.decide(context(HEAVY, near, deadline_ms=160.0)) for _ in range(2000)]
    explored = [decision for decision in decisions if decision.explored]
    assert len(explored) / 2000 == pytest.approx(EXPLORATION, abs=0.02)
    assert explored[0].propensity == EXPLORATION
    assert next(decision for decision in decisions if not decision.explored).propensity == 1 - EXPLORATION
    far = arm("semantic", 0.3, 60.0)
    decisions = [made.decide(context(HEAVY, far, deadline_ms=1000.0)) for _ in range(500)]
    assert not any(decision.explored for decision in decisions)
    assert {decision.propensity for decision in decisions} == {1.0}


def test_exploration_ends_where_enough_is_known() -> None:
    made = policy(2)
    near = arm("semantic", 0.7, 60.0)
    asked = context(HEAVY, near, deadline_ms=400.0)
    for _ in range(150):
        made.learn(asked, outcome(asked, "layer", 100.0))
        made.learn(asked, outcome(asked, "semantic", 60.0))
    assert not any(made.decide(asked).explored for _ in range(300))


def test_an_arm_that_became_good_is_found_again() -> None:
    made = policy(3)
    asked = context(HEAVY, arm("semantic", 0.8, 60.0), deadline_ms=150.0)
    for index in range(20):
        made.learn(asked, outcome(asked, "layer", 400.0))
        live(made, context(*asked.arms, task=f"c.{index}", deadline_ms=150.0), 60.0)
    assert made.decide(asked).variant == "semantic"
    chosen = []
    for index in range(900):
        now = context(*asked.arms, task=f"d.{index}", deadline_ms=150.0)
        decision = made.decide(now)
        chosen.append(decision.variant)
        made.learn(now, outcome(now, decision.variant, 80.0 if decision.variant == "layer" else 60.0))
    assert chosen[-100:].count("layer") > 80


def test_learnt_state_survives_json_and_broken_state_is_refused() -> None:
    made, again = policy(4), policy(4)
    busy_system(made, load_ms=100.0)
    saved = json.loads(json.dumps(made.state()))
    again.restore(saved)
    asked = context(HEAVY, LIGHT, deadline_ms=1000.0, load_ms=100.0)
    mine, other = made.decide(asked).scores, again.decide(asked).scores
    assert other == {variant: pytest.approx(score, abs=1e-3) for variant, score in mine.items()}
    with pytest.raises(StateError, match="late tasks answered"):
        again.restore({**saved, "late_answered": 1e6})
    with pytest.raises(StateError, match="everywhere"):
        again.restore({**saved, "ratios": {}})
    with pytest.raises(StateError, match="lost"):
        again.restore({**saved, "congestion": {**saved["congestion"], "lost": -1.0}})


def test_the_registry_restricts_it_to_given_arms() -> None:
    made = split_policy("expected-reward", arms={"semantic"})
    assert made.decide(context(HEAVY, LIGHT)).variant == "semantic"
