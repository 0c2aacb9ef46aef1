"""The demo's figures are counted the strict way."""

import io
from typing import Any

import pytest
from rich.console import Console

from splitplace.commands.demo.summary import SensorTask, faults, summarise
from splitplace.commands.demo.table import table
from splitplace.messages.task import TaskDecided, TaskFinished
from tests.commands.sensor_tasks import sent


def finished(number: int, variant: str | None) -> TaskFinished:
    return TaskFinished(
        task=f"s.t{number}",
        attempt=1,
        application="mnist",
        batch=10,
        status="answered",
        reason="because",
        variant=variant,
        deadline_ms=100.0,
        response_ms=50.0,
        predicted_ms=None,
        on_time=True,
        accuracy=0.9,
        variant_accuracy=0.99,
    )


def refusal(number: int, status: str = "refused") -> SensorTask:
    return sent(number, status=status, on_time=False, right=0, response_ms=1.0, decision=None)


def decided(variant: str | None, reason: str) -> TaskDecided:
    return TaskDecided(
        task="s.t1",
        attempt=1,
        application="mnist",
        batch=1,
        slack_ms=1.0,
        policy="rule",
        variant=variant,
        reason=reason,
        predicted_ms=None,
        alternatives=(),
    )


def summary_of(tasks: list[SensorTask], accepted: set[int] | None = None) -> dict[str, Any]:
    numbers = set(range(len(tasks))) if accepted is None else accepted
    keys = frozenset(f"s.t{number}.0123abcd" for number in numbers)
    return summarise({"mnist": tasks}, keys, {}, {})


def test_a_task_that_was_refused_is_a_miss_with_reward_zero() -> None:
    summary = summary_of([sent(0, right=10), refusal(1)])
    assert summary["deadline_hit_rate"] == 0.5
    assert summary["reward"] == 0.5
    assert summary["accuracy"] == 1.0  # of what was answered


def test_a_late_answer_earns_its_accuracy_only() -> None:
    summary = summary_of([sent(0, on_time=False, right=8)])
    assert summary["tasks"]["late"] == 1
    assert (summary["deadline_hit_rate"], summary["reward"]) == (0.0, 0.4)


def test_a_partial_answer_is_an_answer_and_counted_as_partial() -> None:
    summary = summary_of([sent(0, right=4, partial=True), sent(1, right=10), refusal(2)])
    assert (summary["tasks"]["answered"], summary["tasks"]["partial"]) == (2, 1)
    assert summary["accuracy"] == 0.7


def test_accuracy_weighs_images_and_not_tasks() -> None:
    summary = summary_of([sent(0, batch=1, right=0), sent(1, batch=99, right=99)])
    assert summary["accuracy"] == 0.99


def test_an_on_time_flag_without_a_result_is_not_believed() -> None:
    assert summary_of([refusal(0).model_copy(update={"on_time": True})])["deadline_hit_rate"] == 0.0


def test_every_end_is_counted() -> None:
    ends = ["answered", "refused", "invalid", "expired", "failed"]
    tasks = summary_of([sent(number, status=end) for number, end in enumerate(ends)])["tasks"]
    assert [tasks[end] for end in ends] == [1, 1, 1, 1, 1]
    assert (tasks["sent"], tasks["accepted"], tasks["lost"]) == (5, 5, 0)


def test_an_accepted_task_without_an_answer_is_lost() -> None:
    silent = {
        "answers": 0,
        "status": None,
        "on_time": False,
        "right": 0,
        "response_ms": None,
        "elapsed_ms": None,
    }
    summary = summary_of([sent(0, **silent), sent(1, **silent), sent(2)], accepted={0, 2})
    assert (summary["tasks"]["lost"], summary["tasks"]["unanswered"]) == (1, 2)
    assert faults(summary) == ["1 accepted tasks without an answer", "2 tasks without an answer"]


def test_a_second_answer_is_a_fault_and_all_well_is_none() -> None:
    assert faults(summary_of([sent(0, answers=2)])) == ["1 tasks with more than one answer"]
    assert faults(summary_of([sent(0), refusal(1)])) == []


def test_decisions_are_those_of_the_services_and_all_three_are_named() -> None:
    tasks = [sent(number) for number in range(4)]
    events = {
        event.task: event
        for event in (finished(0, "layer"), finished(1, "layer"), finished(2, None), finished(9, "whole"))
    }
    summary = summarise({"mnist": tasks}, frozenset(), events, {})
    assert summary["decisions"] == {"whole": 0, "layer": 2, "semantic": 0}


def test_reasons_are_examples_of_each_decision() -> None:
    summary = summarise({"mnist": [sent(0)]}, frozenset(), {}, {"whole": decided("whole", "it fits")})
    assert summary["reasons"] == {"whole": "it fits"}


def test_quantiles_are_those_of_answered_tasks() -> None:
    tasks = [*(sent(number, response_ms=float(number)) for number in range(101)), refusal(101)]
    assert summary_of(tasks)["response_ms"] == {"p50": 50.0, "p95": 95.0}


def test_nothing_answered_has_no_figures_rather_than_zeros() -> None:
    summary = summary_of([refusal(0)])
    assert summary["accuracy"] is None
    assert summary["response_ms"] == {"p50": None, "p95": None}


def test_applications_are_told_apart() -> None:
    summary = summarise({"a": [sent(0)], "b": [refusal(1), refusal(2)]}, frozenset(), {}, {})
    assert summary["tasks"]["sent"] == 3
    assert {name: each["tasks"]["sent"] for name, each in summary["by_application"].items()} == {
        "a": 1,
        "b": 2,
    }


def test_a_report_with_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="status"):
        sent(0, status="eaten")


def test_the_table_fits_into_80_columns_with_every_heading_in_full() -> None:
    shown = io.StringIO()
    summary = summarise({"fashionmnist": [sent(number) for number in range(1000)]}, frozenset(), {}, {})
    Console(file=shown, width=80).print(table({**summary, "nodes": []}))
    assert "…" not in shown.getvalue()
    assert "answered" in shown.getvalue()
