"""The paper's bandit, equation by equation, with numbers computed by hand."""

import json
from math import log, sqrt
from random import Random

import pytest

from splitplace.policies.splitting import Arm, SplitContext
from splitplace.policies.splitting.mab import Mab, MabParameters
from tests.support.split_examples import LAYER, SEMANTIC, context, outcome


def bandit(*, training: bool = False, seed: int = 0, **parameters: float | None) -> Mab:
    return Mab(Random(seed), training=training, parameters=MabParameters(**parameters))  # type: ignore[arg-type]


def run(mab: Mab, asked: SplitContext, variant: str, response_ms: float, **how: object) -> None:
    """A decision, and an outcome as if the given variant had been chosen."""
    mab.decide(asked)
    mab.learn(asked, outcome(asked, variant, response_ms, **how))  # type: ignore[arg-type]


def q_of(mab: Mab, variant: str) -> float:
    return mab.estimates("high")[variant][0]


def test_equation_2_weighs_the_newest_layer_response_by_phi() -> None:
    mab = bandit()
    run(mab, context(), "layer", 200.0)
    assert mab.response_ms("toy") == pytest.approx(0.9 * 200)
    run(mab, context(), "layer", 100.0)
    assert mab.response_ms("toy") == pytest.approx(0.9 * 100 + 0.1 * 180)


def test_equation_2_follows_only_layer_splits_of_the_same_application() -> None:
    mab = bandit()
    run(mab, context(), "semantic", 200.0)
    run(mab, context(application="other"), "layer", 300.0)
    assert mab.response_ms("toy") == 0.0
    assert mab.response_ms("other") == pytest.approx(270.0)


def test_without_a_layer_split_the_most_accurate_arm_takes_its_place() -> None:
    mab = bandit()
    asked = context(Arm("whole", "whole", 0.95, 10.0, ""), Arm("compressed", "compressed", 0.9, 5.0, ""))
    run(mab, asked, "compressed", 100.0)
    assert mab.response_ms("toy") == 0.0
    run(mab, asked, "whole", 100.0)
    assert mab.response_ms("toy") == pytest.approx(90.0)


def test_a_layer_split_without_an_answer_raises_the_estimate_but_never_lowers_it() -> None:
    mab = bandit()
    run(mab, context(), "layer", 500.0)
    run(mab, context(), "layer", 200.0, status="expired")
    assert mab.response_ms("toy") == pytest.approx(0.9 * 450 + 0.1 * 450)
    run(mab, context(), "layer", 1000.0, status="expired")
    assert mab.response_ms("toy") == pytest.approx(0.9 * 1000 + 0.1 * 450)


def test_the_response_runs_from_the_decision() -> None:
    mab = bandit()
    run(mab, context(deadline_ms=1000.0, slack_ms=700.0, attempt=2), "layer", 500.0)
    assert mab.response_ms("toy") == pytest.approx(0.9 * 200)


def test_a_deadline_equal_to_the_estimate_is_a_high_one_and_a_lower_one_a_low_one() -> None:
    mab = bandit()
    run(mab, context(), "layer", 1000.0)  # R = 900
    mab.decide(context(task="c.equal", deadline_ms=900.0))
    mab.decide(context(task="c.below", deadline_ms=899.0))
    assert sum(n for _, n in mab.estimates("high").values()) == 2
    assert sum(n for _, n in mab.estimates("low").values()) == 1


def test_the_context_is_that_of_the_decision_however_the_estimate_changes_until_the_end() -> None:
    mab = bandit(gamma=1.0)
    slow = context(task="c.slow", deadline_ms=500.0)
    mab.decide(slow)  # R is 0: a high deadline
    run(mab, context(), "layer", 1000.0)  # R is 900: now it would be a low one
    mab.learn(slow, outcome(slow, "layer", 400.0))
    assert q_of(mab, "layer") == pytest.approx(0.95)
    assert mab.estimates("low") == {}


def test_equations_3_to_5_average_the_rewards_of_an_interval_and_move_q_by_gamma() -> None:
    mab = bandit(interval_tasks=3, gamma=0.5)
    run(mab, context(task="c.1"), "semantic", 900.0)  # in time: (1 + .8) / 2
    run(mab, context(task="c.2"), "semantic", 1100.0)  # too late: (0 + .8) / 2
    assert q_of(mab, "semantic") == 0.0  # the interval has not ended
    run(mab, context(task="c.3"), "layer", 10.0, accuracy=1.0)  # (1 + 1) / 2
    assert q_of(mab, "semantic") == pytest.approx(0.5 * (0.9 + 0.4) / 2)
    assert q_of(mab, "layer") == pytest.approx(0.5 * 1.0)
    for task in ("c.4", "c.5", "c.6"):
        run(mab, context(task=task), "layer", 10.0)  # no semantic task left: its estimate stays
    assert q_of(mab, "semantic") == pytest.approx(0.325)
    assert q_of(mab, "layer") == pytest.approx(0.5 + 0.5 * (0.95 - 0.5))


def test_the_weights_of_deadline_and_accuracy_are_settings() -> None:
    mab = bandit(gamma=1.0, sla_weight=3.0, accuracy_weight=1.0)
    run(mab, context(), "layer", 900.0)
    assert q_of(mab, "layer") == pytest.approx((3 * 1 + 0.9) / 4)
    run(mab, context(), "layer", 1100.0)
    assert q_of(mab, "layer") == pytest.approx(0.9 / 4)


def test_a_task_without_an_answer_earns_nothing() -> None:
    mab = bandit(gamma=1.0)
    run(mab, context(), "layer", 900.0)
    run(mab, context(), "layer", 900.0, status="expired")
    assert q_of(mab, "layer") == 0.0


def test_without_gamma_q_is_the_sample_mean() -> None:
    mab = bandit(gamma=None)
    for response_ms in (900.0, 1100.0, 1100.0, 900.0, 900.0):
        run(mab, context(), "semantic", response_ms)
    assert q_of(mab, "semantic") == pytest.approx((3 * 0.9 + 2 * 0.4) / 5)


def test_in_training_an_arm_that_is_chosen_rarely_does_not_stay_behind() -> None:
    mab = bandit(training=True)
    for _ in range(30):
        run(mab, context(), "layer", 900.0)
    run(mab, context(), "semantic", 10.0)
    run(mab, context(), "semantic", 10.0)
    assert q_of(mab, "layer") == pytest.approx(0.95)
    assert q_of(mab, "semantic") == pytest.approx(0.9)  # rising from 0 by gamma, it would be .171


def test_in_training_gamma_weighs_the_newest_once_it_is_more_than_the_mean_would_give_it() -> None:
    mab = bandit(training=True, gamma=0.5)
    for response_ms in (900.0, 1100.0, 900.0):
        run(mab, context(), "semantic", response_ms)
    assert q_of(mab, "semantic") == pytest.approx(0.5 * (0.9 + 0.4) / 2 + 0.5 * 0.9)


def test_epsilon_ends_where_rho_exceeds_every_reward_however_long_the_training_is() -> None:
    mab = bandit(training=True)
    for situation in range(2000):
        asked = context(deadline_ms=2000.0 if situation % 2 else 50.0)
        run(mab, asked, "layer", 100.0)  # late in half of the cases
        run(mab, asked, "semantic", 10.0, accuracy=0.9)
    greatest = (0.95 + 0.45 + 0.95 + 0.95) / 4
    assert mab.rho > greatest
    assert 0.9**24 < mab.epsilon < 0.9**21


def test_equations_7_and_8_move_epsilon_and_rho_only_when_the_mean_reward_passes_rho() -> None:
    mab = bandit(training=True, k=0.2, gamma=1.0)
    assert (mab.epsilon, mab.rho) == (1.0, 0.2)
    asked = context()
    mab.decide(asked)
    mab.decide(context(task="c.other"))  # both arms are known once both were offered
    mab.learn(asked, outcome(asked, "layer", 900.0))  # O^MAB = .95 / 4 = .2375 > .2
    assert [mab.epsilon, mab.rho] == pytest.approx([0.8, 0.24])
    run(mab, asked, "layer", 900.0)  # .2375 is not above .24
    assert [mab.epsilon, mab.rho] == pytest.approx([0.8, 0.24])
    run(mab, asked, "semantic", 10.0)  # (.95 + .9) / 4 = .4625
    assert [mab.epsilon, mab.rho] == pytest.approx([0.64, 0.288])


def test_equation_6_draws_with_probability_epsilon_and_else_takes_the_best() -> None:
    mab = bandit(training=True, gamma=1.0)
    run(mab, context(), "layer", 900.0)
    run(mab, context(), "semantic", 10.0, accuracy=0.5)
    epsilon = mab.epsilon
    decisions = [mab.decide(context(task=f"c.{index}")) for index in range(4000)]
    explored = [decision for decision in decisions if decision.variant == "semantic"]
    assert len(explored) / 4000 == pytest.approx(epsilon / 2, abs=0.03)
    assert all(decision.explored for decision in explored)
    assert explored[0].propensity == pytest.approx(epsilon / 2)
    chosen = next(decision for decision in decisions if decision.variant == "layer")
    assert chosen.propensity == pytest.approx(1 - epsilon / 2)
    assert not chosen.explored
    assert chosen.scores == {"layer": pytest.approx(0.95), "semantic": pytest.approx(0.75)}


def test_equation_9_adds_the_width_of_the_confidence_bound() -> None:
    mab = bandit(gamma=1.0, c=0.5)
    for index, variant in enumerate(["layer", "semantic", "semantic"]):
        run(mab, context(task=f"c.{index}"), variant, 10.0)
    counts = {variant: n for variant, (_, n) in mab.estimates("high").items()}
    decision = mab.decide(context(task="c.next"))
    for variant, q in (("layer", 0.95), ("semantic", 0.9)):
        assert decision.scores[variant] == pytest.approx(q + 0.5 * sqrt(log(3) / counts[variant]))
    assert decision.variant == max(decision.scores, key=decision.scores.__getitem__)
    assert decision.propensity == 1.0


def test_untried_arms_come_first_and_waiting_for_an_outcome_is_not_untried() -> None:
    mab = bandit()
    arms = (SEMANTIC, Arm("whole", "whole", 0.95, 10.0, ""), LAYER)
    first = [mab.decide(context(*arms, task=f"c.{index}")).variant for index in range(3)]
    assert first == ["whole", "layer", "semantic"]


def test_an_arm_that_cannot_run_is_not_chosen_however_good() -> None:
    mab = bandit(gamma=1.0)
    run(mab, context(), "layer", 10.0)
    assert mab.decide(context(Arm("layer", "layer", 0.9, None, "too big"), SEMANTIC)).variant == "semantic"


def test_a_bandit_restored_from_json_decides_like_the_one_saved() -> None:
    mab = bandit(training=True)
    for index in range(50):
        asked = context(task=f"c.{index}", deadline_ms=100.0 + 20 * index)
        run(mab, asked, "layer" if index % 3 else "semantic", 500.0)
    again, running = bandit(), bandit()
    again.restore(json.loads(json.dumps(mab.state())))
    assert again.state() == mab.state()
    running.restore(mab.state())
    for deadline_ms in (50.0, 5000.0):
        assert again.decide(context(deadline_ms=deadline_ms)) == running.decide(
            context(deadline_ms=deadline_ms)
        )


def two_contexts(random: Random) -> SplitContext:
    """Deadlines half below and half above what a layer split takes (500 ms, against 50 of a semantic one)."""
    return context(task=f"c.{random.getrandbits(60)}", deadline_ms=random.choice([200.0, 1000.0]))


def regret(horizon: int, seed: int, mab: Mab) -> list[float]:
    """Expected reward lost in each step of the two-context problem, with noisy accuracies."""
    random = Random(seed)
    lost = []
    for _ in range(horizon):
        asked = two_contexts(random)
        variant = mab.decide(asked).variant
        expected = {"layer": (0.95 if asked.deadline_ms == 1000.0 else 0.45), "semantic": 0.85}
        assert variant is not None
        lost.append(max(expected.values()) - expected[variant])
        accuracy = random.gauss(0.9 if variant == "layer" else 0.7, 0.1)
        response_ms = random.gauss(500.0 if variant == "layer" else 50.0, 5.0)
        mab.learn(asked, outcome(asked, variant, response_ms, accuracy=min(1.0, max(0.0, accuracy))))
    return lost


def test_the_regret_of_the_confidence_bound_grows_like_the_logarithm_of_time() -> None:
    """Each tenfold of time adds about as much regret as the one before; linear regret would add ten times."""
    runs = [regret(8000, seed, bandit(gamma=None)) for seed in range(2)]
    after = {steps: sum(sum(run[:steps]) for run in runs) / 2 for steps in (80, 800, 8000)}
    first, second = after[800] - after[80], after[8000] - after[800]
    assert 0 < second < 2 * first
    assert after[8000] / 8000 < 0.3 * after[800] / 800


def test_training_learns_both_contexts_and_a_warm_start_loses_less_than_a_cold_one() -> None:
    trained = bandit(training=True, gamma=None)
    regret(1500, 7, trained)
    assert trained.epsilon < 0.2
    high, low = trained.estimates("high"), trained.estimates("low")
    assert high["layer"][0] == pytest.approx(0.95, abs=0.03)
    assert high["semantic"][0] == pytest.approx(0.85, abs=0.03)
    assert low["layer"][0] == pytest.approx(0.45, abs=0.1)
    assert trained.response_ms("toy") == pytest.approx(500.0, rel=0.05)
    warm = bandit(gamma=None)
    warm.restore(trained.state())
    assert sum(regret(300, 8, warm)) < 0.7 * sum(regret(300, 8, bandit(gamma=None)))


def test_after_a_drift_the_bandit_changes_its_mind() -> None:
    mab = bandit()
    regret(1000, 1, mab)

    def share_of_layer() -> float:
        chosen = []
        for index in range(400):
            asked = context(task=f"c.{index}", deadline_ms=1000.0)
            variant = mab.decide(asked).variant
            chosen.append(variant == "layer")
            mab.learn(asked, outcome(asked, variant, 1500.0 if variant == "layer" else 50.0))
        return sum(chosen[200:]) / 200

    assert mab.decide(context(task="c.before", deadline_ms=1000.0)).variant == "layer"
    assert share_of_layer() < 0.2
