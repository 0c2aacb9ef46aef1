"""What is learnt of actual / predicted."""

import json
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.policies.splitting import Arm
from splitplace.policies.splitting.ratios import (
    BINS,
    NEWS,
    PRIOR_TASKS,
    PRIOR_TROUBLE,
    WINDOW_TASKS,
    Belief,
    Ratios,
    Vector,
    load_of,
    posterior,
)
from splitplace.policies.state import Json, StateError
from tests.support.split_examples import LAYER, SEMANTIC, context, outcome

STRAIGHT = np.linspace(1.0, 0.0, BINS + 1)
"""A prior of ratios that are as probable in each bin."""


def counts(seen: dict[int, float], censored: dict[int, float] | None = None) -> Vector:
    made = np.zeros((2, BINS))
    made[0, list(seen)] = list(seen.values())
    made[1, list(censored or {})] = list((censored or {}).values())
    return made


def teach(
    ratios: Ratios,
    ratio: float,
    *,
    arm: Arm = LAYER,
    application: str = "toy",
    answered: bool = True,
    load_ms: float = 0.0,
) -> None:
    asked = context(arm, application=application, deadline_ms=1e6, load_ms=load_ms)
    assert arm.predicted_ms
    status = "answered" if answered else "expired"
    ratios.learn(asked, outcome(asked, arm.variant, ratio * arm.predicted_ms, status=status))


def believed(ratios: Ratios, arm: Arm, application: str = "toy", *, load_ms: float = 0.0) -> Belief:
    return ratios.belief(context(arm, application=application, load_ms=load_ms), arm)


def test_before_anything_is_seen_ratios_are_spread_around_1_with_a_little_trouble() -> None:
    belief = believed(Ratios(), LAYER)
    assert belief.probability(1.0) == pytest.approx(0.5 * (1 - PRIOR_TROUBLE))
    assert belief.probability(2.0) == pytest.approx(1 - PRIOR_TROUBLE * 5 / 6, abs=0.01)
    assert belief.quantile(0.5 * (1 - PRIOR_TROUBLE)) == pytest.approx(1.0, rel=0.01)
    assert belief.quantile(1 - PRIOR_TROUBLE / 2) == pytest.approx(8.0, rel=0.01)
    assert (belief.probability(0.0), belief.probability(100.0)) == (0.0, 1.0)
    assert belief.own_tasks == 0


def test_with_censored_tasks_the_estimate_is_that_of_kaplan_and_meier() -> None:
    """Five are at risk: two end in bin 10; one drops out in 20; one of the last two ends in bin 30."""
    survival, tasks = posterior(counts({10: 2, 30: 1}, {20: 1, 40: 1}), STRAIGHT, np.array(0.0))
    assert tasks == 5
    assert survival[10] == pytest.approx(1.0)
    assert survival[11] == survival[30] == pytest.approx(3 / 5)
    assert survival[31] == survival[BINS] == pytest.approx(3 / 5 * 1 / 2)


def test_without_censoring_the_posterior_mixes_prior_and_what_was_seen() -> None:
    survival, tasks = posterior(counts({10: 15.0}), STRAIGHT, np.array(1000.0))
    assert tasks == PRIOR_TASKS + 15
    assert survival[11:] == pytest.approx(PRIOR_TASKS * STRAIGHT[11:] / (PRIOR_TASKS + 15))


def test_many_distributions_are_computed_as_one_by_one() -> None:
    both = np.stack([counts({10: 2, 30: 1}, {20: 1}), counts({5: 1})])
    priors = np.stack([STRAIGHT, STRAIGHT**2])
    together, _ = posterior(both, priors, np.array([2.0, 3.0]))
    assert together[0] == pytest.approx(posterior(both[0], priors[0], np.array(2.0))[0])
    assert together[1] == pytest.approx(posterior(both[1], priors[1], np.array(3.0))[0])


def test_a_variant_is_judged_by_itself_once_it_ran_and_by_its_like_elsewhere_before() -> None:
    ratios = Ratios()
    for _ in range(100):
        teach(ratios, 2.0)
    assert believed(ratios, LAYER).quantile(0.5) == pytest.approx(2.0, rel=0.1)
    assert believed(ratios, LAYER, "other").quantile(0.5) == pytest.approx(2.0, rel=0.1)
    assert believed(ratios, LAYER, "other").tasks == PRIOR_TASKS
    assert believed(ratios, SEMANTIC).survival == pytest.approx(believed(Ratios(), SEMANTIC).survival)
    for _ in range(30):
        teach(ratios, 1.0, application="other")
    assert believed(ratios, LAYER, "other").probability(1.2) > 0.8
    assert believed(ratios, LAYER).probability(1.2) < 0.1


def test_what_happens_under_load_is_learnt_apart() -> None:
    assert [load_of(context(load_ms=load_ms), 100.0) for load_ms in (0.0, 4.0, 5.0, 24.0, 25.0)] == [
        0,
        0,
        1,
        1,
        2,
    ]
    ratios = Ratios()
    for _ in range(50):
        teach(ratios, 1.0)
        teach(ratios, 3.0, load_ms=60.0)
    assert believed(ratios, LAYER).probability(1.5) > 0.9
    assert believed(ratios, LAYER, load_ms=60.0).probability(1.5) < 0.1


def test_tasks_that_never_answer_make_an_answer_in_time_improbable() -> None:
    ratios = Ratios()
    hopeful = believed(ratios, LAYER)
    for _ in range(40):
        teach(ratios, 1.2, answered=False)
    belief = believed(ratios, LAYER)
    assert (hopeful.probability(1.1) > 0.5, belief.probability(1.1) < 0.1) == (True, True)
    assert (hopeful.probability(1.3) > 0.8, belief.probability(1.3) < 0.5) == (True, True)


def test_what_was_long_ago_is_forgotten_and_uncertainty_comes_back() -> None:
    ratios = Ratios()
    for _ in range(100):
        teach(ratios, 4.0)
    known = believed(ratios, LAYER).own_tasks
    for _ in range(3 * WINDOW_TASKS):
        teach(ratios, 1.0, arm=SEMANTIC)
    assert believed(ratios, LAYER).own_tasks < 0.1 * known
    for _ in range(20):
        teach(ratios, 1.0)
    assert believed(ratios, LAYER).probability(1.5) > 0.6


def test_a_distribution_is_computed_again_once_a_twentieth_of_what_it_rests_on_is_new() -> None:
    ratios = Ratios()
    for number in range(1, 41):  # while few are known, each outcome counts at once
        teach(ratios, 1.0)
        if number < 1 / NEWS:
            assert believed(ratios, LAYER).own_tasks == pytest.approx(number, rel=0.1)
    before = believed(ratios, LAYER)
    teach(ratios, 8.0)
    assert believed(ratios, LAYER).own_tasks == before.own_tasks
    for _ in range(int(40 * NEWS)):
        teach(ratios, 8.0)
    assert believed(ratios, LAYER).probability(2.0) < before.probability(2.0)


def test_what_a_new_variant_teaches_counts_at_once() -> None:
    ratios = Ratios()
    for _ in range(100):
        teach(ratios, 1.0)
    assert believed(ratios, LAYER).own_tasks > 0
    teach(ratios, 4.0, arm=SEMANTIC)
    assert believed(ratios, SEMANTIC).own_tasks == 1


def test_a_question_leaves_no_trace() -> None:
    ratios = Ratios()
    teach(ratios, 2.0)
    before = ratios.state()
    believed(ratios, SEMANTIC)
    believed(ratios, LAYER, "other")
    assert ratios.state() == before


def test_a_task_without_variant_or_prediction_teaches_nothing() -> None:
    ratios = Ratios()
    asked = context()
    ratios.learn(asked, outcome(asked, None, 10.0, status="refused"))
    ratios.learn(asked, outcome(asked, "unknown", 10.0))
    unable = context(Arm("layer", "layer", 0.9, None, "too big"))
    ratios.learn(unable, outcome(unable, "layer", 10.0))
    assert believed(ratios, LAYER).tasks == PRIOR_TASKS


def test_the_estimate_finds_a_distribution_although_much_of_it_is_cut_off() -> None:
    """Log-normal ratios; only those below 1.5 are ever answered."""
    random = Random(1)
    ratios = Ratios()
    for _ in range(400):
        ratio = random.lognormvariate(0.2, 0.3)
        teach(ratios, min(ratio, 1.5), answered=ratio < 1.5)
    belief = believed(ratios, LAYER)
    assert belief.probability(1.0) == pytest.approx(0.2525, abs=0.06)
    assert belief.probability(1.4) == pytest.approx(0.6757, abs=0.06)


@given(st.lists(st.tuples(st.floats(0, 200), st.booleans(), st.sampled_from(["a", "b"])), max_size=30))
def test_every_belief_is_a_distribution_and_survives_json(
    story: list[tuple[float, bool, str]],
) -> None:
    ratios = Ratios()
    for ratio, answered, application in story:
        teach(ratios, ratio, answered=answered, application=application)
    again = Ratios()
    again.restore(json.loads(json.dumps(ratios.state())))
    for application in ("a", "b"):
        belief = believed(ratios, LAYER, application)
        assert np.all(np.diff(belief.survival) <= 1e-12)
        assert belief.survival[0] == 1.0
        assert belief.survival[-1] >= 0.0
        assert 0 <= belief.probability(1.3) <= belief.probability(1.4) <= 1
        assert np.allclose(believed(again, LAYER, application).survival, belief.survival, atol=1e-3)


def test_a_broken_state_is_refused() -> None:
    nothing: Json = {"bins": [], "seen": [], "censored": []}
    outside: Json = {"bins": [BINS], "seen": [1.0], "censored": [0.0]}
    uneven: Json = {"bins": [1, 2], "seen": [1.0], "censored": [0.0]}
    with pytest.raises(StateError, match=r"everywhere\.layer\.0\.bins"):
        Ratios().restore({"everywhere": {"layer": [outside, nothing, nothing]}, "applications": {}})
    with pytest.raises(StateError, match=r"everywhere.*: .* not as many bins as counts"):
        Ratios().restore({"everywhere": {"layer": [nothing, nothing, uneven]}, "applications": {}})
    with pytest.raises(StateError, match=r"applications\.toy\.layer"):
        Ratios().restore({"everywhere": {}, "applications": {"toy": {"layer": [nothing]}}})
