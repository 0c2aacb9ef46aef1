"""Outcomes counted for dashboards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitplace.messages.metrics import TaskMetrics
from splitplace.messages.task import TaskFinished
from splitplace.services.result_aggregator.metrics import ALL, MAX_BOARDS, WINDOW, BoardKey, Scoreboard
from tests.support import messages
from tests.support.outputs import logits_application


def finished(number: int = 1, **changes: object) -> TaskFinished:
    """A task of ten labelled inputs that was answered in time."""
    fields: dict[str, object] = {
        "application": "app",
        "batch": 10,
        "deadline_ms": 100.0,
        "response_ms": 50.0,
        "accuracy": 0.8,
        "moved_bytes": 1000,
    }
    return messages.finished(f"sensor.{number}", **(fields | changes))


def boards(*tasks: TaskFinished) -> dict[BoardKey, TaskMetrics]:
    scoreboard = Scoreboard()
    for task in tasks:
        scoreboard.count(task)
    return dict(scoreboard.news())


EXPIRED = {"status": "expired", "on_time": False, "accuracy": None, "response_ms": 200.0}
REFUSED = {"status": "refused", "on_time": False, "accuracy": None, "variant": None, "variant_accuracy": None}


def test_before_anything_is_finished_counts_are_zero_and_ratios_are_unknown() -> None:
    metrics = boards()[ALL]
    assert (metrics.finished, metrics.inputs, metrics.moved_bytes) == (0, 0, 0)
    assert (metrics.hit_rate, metrics.reward, metrics.accuracy, metrics.response_p50_ms) == (None,) * 4


def test_every_terminal_status_is_counted_and_lowers_the_hit_rate_unless_on_time() -> None:
    metrics = boards(
        finished(1),
        finished(2, on_time=False, response_ms=150.0),
        finished(3, **EXPIRED),
        finished(4, **REFUSED),
        finished(5, **EXPIRED | {"status": "failed"}),
    )[ALL]
    counts = (metrics.finished, metrics.answered, metrics.on_time)
    assert counts == (5, 2, 1)
    assert (metrics.refused, metrics.expired, metrics.failed) == (1, 1, 1)
    assert metrics.hit_rate == pytest.approx(1 / 5)
    assert (metrics.inputs, metrics.moved_bytes) == (20, 5000)


def test_reward_takes_accuracy_from_labels_else_from_the_variant_and_nothing_without_a_result() -> None:
    metrics = boards(
        finished(1, accuracy=0.6),
        finished(2, accuracy=None),
        finished(3, on_time=False, accuracy=0.4),
        finished(4, **EXPIRED),
        finished(5, **REFUSED),
    )[ALL]
    assert metrics.reward == pytest.approx(((1 + 0.6) / 2 + (1 + 0.9) / 2 + 0.4 / 2) / 5)


def test_accuracy_is_of_labelled_inputs_and_variant_accuracy_of_answered_tasks() -> None:
    metrics = boards(
        finished(1, accuracy=1.0, batch=30),
        finished(2, accuracy=0.5, batch=10, variant_accuracy=0.7),
        finished(3, accuracy=None, batch=500, variant_accuracy=None),
        finished(4, **EXPIRED),
    )[ALL]
    assert metrics.accuracy == pytest.approx(35 / 40)
    assert metrics.variant_accuracy == pytest.approx(0.8)


def test_response_quantiles_are_of_the_most_recent_answered_tasks() -> None:
    old = [finished(number, response_ms=1e6) for number in range(500)]
    recent = [finished(500 + number, response_ms=float(number)) for number in range(WINDOW)]
    metrics = boards(*old, *recent, finished(99_999, **EXPIRED))[ALL]
    assert metrics.response_p50_ms == pytest.approx(499.5)
    assert metrics.response_p95_ms == pytest.approx(949.05)


def test_predictions_are_compared_with_the_time_since_the_decision() -> None:
    actual_ms = (50.0, 65.0, 100.0, 120.0, 150.0)
    tasks = [
        finished(number, predicted_ms=100.0, after_decision_ms=after_ms)
        for number, after_ms in enumerate(actual_ms)
    ]
    in_part = finished(10, predicted_ms=100.0, after_decision_ms=9000.0, coverage=0.5)
    unforeseen = finished(11, predicted_ms=None, after_decision_ms=9000.0)
    late = finished(12, predicted_ms=100.0, after_decision_ms=9000.0, **EXPIRED)
    metrics = boards(*tasks, in_part, unforeseen, late)[ALL]
    assert metrics.predicted_ratio_p50 == pytest.approx(1.0)
    assert metrics.predicted_within == pytest.approx(3 / 5)


def test_applications_and_decisions_have_boards_of_their_own() -> None:
    known = boards(
        finished(1),
        finished(2, application="other", variant="layer"),
        finished(3, variant="layer"),
        finished(4, **REFUSED),
    )
    assert {key: metrics.finished for key, metrics in known.items()} == {
        ALL: 4,
        ("application", "app"): 3,
        ("application", "other"): 1,
        ("decision", "whole"): 1,
        ("decision", "layer"): 2,
    }


def test_a_task_that_is_reported_twice_counts_once() -> None:
    assert boards(finished(1), finished(2), finished(1))[ALL].finished == 2


def test_only_boards_that_changed_are_news() -> None:
    scoreboard = Scoreboard()
    scoreboard.count(finished(1))
    scoreboard.count(finished(2, variant="layer"))
    assert len(list(scoreboard.news())) == 4
    assert list(scoreboard.news()) == []
    scoreboard.count(finished(3))
    assert {key for key, _ in scoreboard.news()} == {ALL, ("application", "app"), ("decision", "whole")}


def test_applications_and_their_variants_are_shown_before_anything_is_counted() -> None:
    scoreboard = Scoreboard()
    scoreboard.add_application(logits_application())
    shown = {key for key, _ in scoreboard.news()}
    decisions = {("decision", name) for name in ("whole", "chain", "star", "tree")}
    assert shown == {ALL, ("application", "app")} | decisions


def test_the_number_of_boards_is_bounded_but_every_task_counts() -> None:
    known = boards(*(finished(number, application=f"app-{number}") for number in range(2 * MAX_BOARDS)))
    assert len(known) == MAX_BOARDS
    assert known[ALL].finished == 2 * MAX_BOARDS


@given(
    st.lists(
        st.builds(
            finished,
            number=st.integers(0, 10**6),
            status=st.sampled_from(["answered", "expired", "failed", "refused"]),
            on_time=st.booleans(),
            accuracy=st.none() | st.floats(0, 1),
            variant_accuracy=st.none() | st.floats(0, 1),
            batch=st.integers(1, 1024),
            response_ms=st.floats(0, 1e12),
            moved_bytes=st.integers(0, 2**53),
        ),
        max_size=30,
    )
)
def test_whatever_the_gateway_reports_gives_valid_metrics(tasks: list[TaskFinished]) -> None:
    metrics = boards(*tasks)[ALL]
    assert metrics.finished == len({task.task for task in tasks})
    assert metrics.finished == metrics.answered + metrics.refused + metrics.expired + metrics.failed
