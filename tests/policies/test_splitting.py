import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.messages.application import VARIANT_KINDS
from splitplace.policies.splitting import (
    SPLIT_POLICIES,
    Arm,
    Decision,
    SplitContext,
    SplitName,
    SplitPolicy,
    split_policy,
)
from splitplace.policies.state import StateError
from tests.support.split_examples import outcome

NAMES = get_args(SplitName)

FAST = Arm("semantic", "semantic", 0.8, 40.0, "n1, n2")
MIDDLE = Arm("layer", "layer", 0.9, 90.0, "n1, n2, n3")
SLOW = Arm("whole", "whole", 0.9, 100.0, "n1")
TOO_BIG = Arm("whole", "whole", 0.95, None, "needs 120 MB, the largest node has 64 MB")
NO_ROOM = Arm("whole", "whole", 0.95, None, "no room now", temporary=True)


def context(*arms: Arm, slack_ms: float = 1000.0, attempt: int = 1) -> SplitContext:
    return SplitContext("c.t", attempt, "toy", 4, 1000.0, slack_ms, arms)


def decide(name: SplitName, *arms: Arm, slack_ms: float = 1000.0, attempt: int = 1) -> Decision:
    return split_policy(name).decide(context(*arms, slack_ms=slack_ms, attempt=attempt))


def test_every_name_makes_a_policy_of_that_name() -> None:
    assert set(NAMES) == set(SPLIT_POLICIES)
    assert [split_policy(name).name for name in NAMES] == list(NAMES)


@pytest.mark.parametrize("name", ["whole", "layer", "semantic"])
def test_a_fixed_policy_chooses_its_variant_even_when_late(name: SplitName) -> None:
    assert decide(name, FAST, MIDDLE, SLOW, slack_ms=1.0).variant == name


def test_a_fixed_policy_refuses_with_what_is_missing() -> None:
    too_big = decide("whole", TOO_BIG, FAST)
    assert too_big.variant is None
    assert "needs 120 MB, the largest node has 64 MB" in too_big.reason
    assert not too_big.can_wait
    assert decide("whole", NO_ROOM, FAST).can_wait
    unknown = decide("layer", SLOW, FAST)
    assert unknown.reason == "toy has no variant layer, only whole, semantic"
    assert not unknown.can_wait


def test_random_draws_every_variant_that_can_run_and_no_other() -> None:
    policy = split_policy("random", seed=1)
    seen = {policy.decide(context(TOO_BIG, FAST, MIDDLE)).variant for _ in range(50)}
    assert seen == {"semantic", "layer"}


def test_random_repeats_by_seed() -> None:
    first, second = split_policy("random", seed=5), split_policy("random", seed=5)
    arms = context(FAST, MIDDLE, SLOW)
    assert [first.decide(arms) for _ in range(20)] == [second.decide(arms) for _ in range(20)]


@pytest.mark.parametrize("name", ["random", "rule"])
def test_where_nothing_can_run_the_task_is_refused_with_every_reason(name: SplitName) -> None:
    decision = decide(name, TOO_BIG, NO_ROOM)
    assert decision == Decision(
        None, "nothing can run now: needs 120 MB, the largest node has 64 MB; no room now", can_wait=True
    )
    assert not decide(name, TOO_BIG).can_wait


def test_the_rule_takes_the_most_accurate_in_time_and_the_faster_of_equals() -> None:
    assert decide("rule", FAST, MIDDLE, SLOW).variant == "layer"
    nearly = Arm("whole", "whole", 0.90005, 100.0, "n1")
    assert decide("rule", FAST, MIDDLE, nearly).variant == "layer"
    better = Arm("whole", "whole", 0.92, 100.0, "n1")
    assert decide("rule", FAST, MIDDLE, better).variant == "whole"


def test_the_rule_gives_up_accuracy_when_time_is_short() -> None:
    decision = decide("rule", FAST, MIDDLE, slack_ms=100.0)  # 90 ms times the margin of 1.2 is too much
    assert decision.variant == "semantic"
    assert "too slow: layer with 90 ms" in decision.reason


def test_the_margin_is_a_setting() -> None:
    policy = split_policy("rule", margin=1.0)
    assert policy.decide(context(FAST, MIDDLE, slack_ms=100.0)).variant == "layer"


def rule_after(ratio: float) -> SplitPolicy:
    """A rule that saw all predictions of `layer` exceeded by this factor."""
    policy = split_policy("rule")
    asked = context(FAST, MIDDLE)
    for _ in range(80):
        policy.learn(asked, outcome(asked, "layer", ratio * 90.0))
    return policy


def test_the_rule_learns_how_safe_predictions_are() -> None:
    tight, wide = context(FAST, MIDDLE, slack_ms=100.0), context(FAST, MIDDLE, slack_ms=150.0)
    assert rule_after(0.95).decide(tight).variant == "layer"
    assert split_policy("rule").decide(tight).variant == "semantic"
    assert split_policy("rule").decide(wide).variant == "layer"
    careful = rule_after(1.9).decide(wide)
    assert careful.variant == "semantic"
    assert "too slow: layer with 90 ms, 95% within 16" in careful.reason


def test_the_rule_tries_the_fastest_where_it_may_just_be_in_time() -> None:
    assert decide("rule", FAST, MIDDLE, slack_ms=41.0).variant == "semantic"
    assert decide("rule", FAST, MIDDLE, slack_ms=32.0).variant == "semantic"


def test_the_rule_refuses_what_is_hopeless_with_the_figures() -> None:
    decision = decide("rule", Arm("semantic", "semantic", 0.8, 82.0, ""), MIDDLE, slack_ms=40.0)
    assert decision.variant is None
    assert "fastest is semantic with 82 ms, 40 ms are left" in decision.reason
    assert not decision.can_wait


def test_on_a_later_attempt_the_rule_tries_while_any_time_is_left() -> None:
    assert decide("rule", FAST, MIDDLE, slack_ms=5.0, attempt=2).variant == "semantic"
    assert decide("rule", FAST, MIDDLE, slack_ms=0.0, attempt=2).variant is None


arms = st.builds(
    lambda kind, *rest: Arm(kind, kind, *rest),
    st.sampled_from(VARIANT_KINDS),
    st.floats(0, 1),
    st.none() | st.floats(0, 1e6),
    st.text(max_size=20),
    st.booleans(),
)


@given(
    st.sampled_from(NAMES),
    st.lists(arms, min_size=1, max_size=5, unique_by=lambda arm: arm.variant),
    st.floats(-1e6, 1e6),
    st.integers(1, 5),
)
def test_no_policy_chooses_what_cannot_run_and_each_gives_a_reason(
    name: SplitName, given_arms: list[Arm], slack_ms: float, attempt: int
) -> None:
    decision = decide(name, *given_arms, slack_ms=slack_ms, attempt=attempt)
    assert decision.reason
    if decision.variant is not None:
        assert not decision.can_wait
        chosen = next(arm for arm in given_arms if arm.variant == decision.variant)
        assert chosen.predicted_ms is not None


def test_every_policy_restores_its_own_state_and_refuses_any_other() -> None:
    for name in NAMES:
        policy, again = split_policy(name), split_policy(name)
        again.restore(json.loads(json.dumps(policy.state())))
        assert again.state() == policy.state()
        if policy.state():
            with pytest.raises(StateError):
                again.restore({"something": "else"})
