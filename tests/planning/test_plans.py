"""Forecasts, verdicts and changes that help, on clusters whose answer is known beforehand."""

import pytest

from splitplace.planning.advice import changes, verdict
from splitplace.planning.forecast import Figure, forecast
from splitplace.planning.question import OutOfReachError, check_reach
from splitplace.planning.standing import standing
from tests.support.questions import CALIBRATION, CHECK, REACH, SPEED, cluster, kind, question


def test_an_idle_node_answers_in_the_time_of_its_network_and_five_hops() -> None:
    found = forecast(question(rate=0.2))
    assert found.hit_rate == Figure(1.0, 1.0, 1.0)
    assert found.p50_ms is not None
    assert found.p50_ms.value == pytest.approx(80.0 + 5 * 2.5, rel=0.02)
    assert found.decisions == (("whole", 1.0),)
    assert verdict(found, 0.95) == "yes"


def test_a_deadline_shorter_than_the_network_cannot_be_met() -> None:
    found = forecast(question(deadline_ms=50.0))
    assert found.hit_rate.high == 0.0
    assert verdict(found, 0.95) == "no"


def test_more_tasks_than_a_node_can_compute_are_not_all_in_time() -> None:
    few, many = forecast(question(rate=1.0)), forecast(question(rate=30.0))
    assert few.hit_rate.value > 0.95
    assert many.hit_rate.value < 0.8


def test_a_speed_in_doubt_widens_the_interval() -> None:
    sure, doubted = (
        forecast(question(cluster=cluster(doubt=doubt), rate=4.0, deadline_ms=110.0)) for doubt in (0.0, 0.4)
    )
    assert doubted.hit_rate.high - doubted.hit_rate.low > sure.hit_rate.high - sure.hit_rate.low + 0.2


def test_what_the_calibration_got_wrong_widens_every_interval() -> None:
    plain = forecast(question(rate=4.0, deadline_ms=200.0))
    wrong = forecast(
        question(rate=4.0, deadline_ms=200.0, calibration=CALIBRATION.model_copy(update={"check": CHECK}))
    )
    assert wrong.hit_rate.low == pytest.approx(plain.hit_rate.low - 0.04)
    assert plain.p50_ms is not None
    assert wrong.p50_ms is not None
    assert wrong.p50_ms.high == pytest.approx(1.2 * plain.p50_ms.high)
    assert wrong.p50_ms.low == pytest.approx(plain.p50_ms.low)


def test_the_interval_of_slow_answers_is_never_below_that_of_common_ones() -> None:
    erred = CHECK.model_copy(update={"live_p50_ms": 9 * CHECK.simulated_p50_ms, "live_p95_ms": 1.0})
    found = forecast(question(calibration=CALIBRATION.model_copy(update={"check": erred})))
    assert found.p50_ms is not None
    assert found.p95_ms is not None
    assert found.p95_ms.low >= found.p50_ms.low
    assert found.p95_ms.high >= found.p50_ms.high


def test_the_same_question_has_the_same_answer() -> None:
    assert forecast(question(rate=5.0)) == forecast(question(rate=5.0))


def test_a_longer_deadline_is_found_and_proposed_first() -> None:
    asked = question(deadline_ms=60.0, rate=0.5, cluster=cluster(price=10.0))
    found = forecast(asked)
    helpful = changes(asked, found, {})
    assert helpful[0].words.startswith("a deadline of")
    proposed_ms = float(helpful[0].words.split()[3])
    assert 80.0 + 5 * 2.5 <= proposed_ms <= 200.0
    assert helpful[0].hit_rate >= 0.95


def test_the_cheapest_node_that_helps_is_proposed() -> None:
    """Only a faster node is in time: one more slow one is not."""
    asked = question(deadline_ms=70.0, rate=0.5)
    helpful = changes(
        asked, forecast(asked), {"slow": kind(price=5.0), "fast": kind(speed=2 * SPEED, price=50.0)}
    )
    assert [each.words for each in helpful if each.price] == ["one more fast"]


def test_a_plan_beyond_the_calibration_is_refused_with_what_to_do() -> None:
    for asked, why in (
        (question(cluster=cluster(speed=SPEED / 10)), "GFLOP/s; the nodes of the calibration had"),
        (question(batch=100), "100 inputs"),
        (question(calibration=CALIBRATION.model_copy(update={"tasks": 12})), "12 tasks"),
        (question(calibration=CALIBRATION.model_copy(update={"reach": None})), "at least 30"),
    ):
        with pytest.raises(OutOfReachError, match=why) as refused:
            check_reach(asked)
        assert "splitplace calibrate" in str(refused.value)
    check_reach(question(cluster=cluster(speed=REACH.node_scores.greatest)))


def test_arms_that_the_application_does_not_have_are_an_error() -> None:
    with pytest.raises(ValueError, match="only whole, layer"):
        check_reach(question(arms=frozenset({"semantic"})))


def test_stages_stand_where_they_fit_and_what_does_not_fit_says_why() -> None:
    """Four pieces of 1 MB: a node of 2.5 MB holds two of them."""
    whole, layer = standing(question(arms=None, cluster=cluster(2, memory=2.5)))
    assert (whole.variant, whole.stages, whole.predicted_ms) == ("whole", (), None)
    assert "the largest node" in whole.reason
    assert "2.38 MiB" in whole.reason  # 2.5 MB
    assert layer.variant == "layer"
    assert {node for stage in layer.stages for node in stage.nodes} == {"shed-1", "shed-2"}
    assert all(0 < stage.memory_bytes <= 2_500_000 for stage in layer.stages)
    assert layer.predicted_ms is not None
    assert layer.predicted_ms > 80.0


def test_the_prediction_for_idle_nodes_is_what_the_forecast_finds_there() -> None:
    asked = question(rate=0.2)
    (whole,) = standing(asked)
    found = forecast(asked)
    assert found.p50_ms is not None
    assert whole.predicted_ms == pytest.approx(found.p50_ms.value, rel=0.02)
