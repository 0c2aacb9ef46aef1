"""A task is overdue after a multiple of its predicted time that follows how right predictions are."""

from math import inf
from random import Random

import pytest

from splitplace.policies.lagging import (
    EXTRA_MS,
    LEAST,
    MAX_WATCHED,
    MOST,
    ONLY,
    SHARE,
    USUAL,
    Lagging,
    Overdue,
)

VARIANT = ("app", "whole")


def awaiting(count: int = 4, *, attempt: int = 1, now_ms: float = 0.0) -> Lagging:
    lagging = Lagging()
    lagging.await_outputs("c.t", attempt, VARIANT, micro_batches=count, expected_ms=100.0, now_ms=now_ms)
    return lagging


DUE_MS = 100 * USUAL + EXTRA_MS


def test_what_has_not_come_is_overdue_once() -> None:
    lagging = awaiting()
    lagging.came("c.t", 1, 2)
    assert lagging.next_due_ms == DUE_MS
    assert lagging.overdue(DUE_MS - 1) == []
    assert lagging.overdue(DUE_MS) == [Overdue("c.t", 1, {ONLY: (0, 1, 3)})]
    assert lagging.overdue(DUE_MS + 1000) == []
    assert lagging.next_due_ms == inf


def test_of_several_branches_those_are_named_that_are_missing() -> None:
    lagging = Lagging()
    lagging.await_outputs(
        "c.t", 1, VARIANT, micro_batches=3, branches=("b1", "b2", "b3"), expected_ms=100.0, now_ms=0.0
    )
    for number in range(3):
        lagging.came("c.t", 1, number, "b2")
    lagging.came("c.t", 1, 0, "b1")
    lagging.came("c.t", 1, 0, "b3")
    lagging.came("c.t", 1, 1, "no-branch")
    assert lagging.overdue(DUE_MS) == [Overdue("c.t", 1, {"b1": (1, 2), "b3": (1, 2)})]
    for branch in ("b1", "b3"):
        for number in (1, 2):
            assert lagging.multiple(VARIANT) == USUAL
            lagging.came("c.t", 1, number, branch)
    assert lagging.multiple(VARIANT) > USUAL, "learnt once all outputs have come"


def test_a_task_whose_outputs_have_all_come_is_never_overdue() -> None:
    lagging = awaiting(2)
    for number in (0, 1, 1):
        lagging.came("c.t", 1, number)
    assert lagging.next_due_ms == inf
    assert lagging.overdue(inf) == []


def test_a_task_that_has_ended_is_never_overdue() -> None:
    lagging = awaiting()
    lagging.forget("c.t")
    assert lagging.overdue(inf) == []


def test_a_new_attempt_replaces_the_old_one_and_nothing_else_does() -> None:
    lagging = awaiting(attempt=2)
    lagging.await_outputs("c.t", 1, VARIANT, micro_batches=9, expected_ms=1.0, now_ms=0.0)
    lagging.await_outputs("c.t", 2, VARIANT, micro_batches=9, expected_ms=1.0, now_ms=0.0)
    assert lagging.next_due_ms == DUE_MS
    lagging.came("c.t", 1, 0)
    lagging.await_outputs("c.t", 3, VARIANT, micro_batches=1, expected_ms=100.0, now_ms=50.0)
    assert lagging.overdue(DUE_MS) == []
    assert lagging.overdue(DUE_MS + 50.0) == [Overdue("c.t", 3, {ONLY: (0,)})]


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5, 2.5])
def test_few_tasks_are_overdue_in_the_long_run_however_wrong_predictions_are(scale: float) -> None:
    lagging, late, random = Lagging(), 0, Random(1)
    tasks, counted = 3000, 1000
    for number in range(tasks):
        task, took_ms = f"c.{number}", 100 * scale * random.lognormvariate(0, 0.2)
        lagging.await_outputs(task, 1, VARIANT, micro_batches=1, expected_ms=100.0, now_ms=0.0)
        found = lagging.overdue(took_ms)
        late += bool(found) and number >= tasks - counted
        lagging.came(task, 1, 0)
    assert LEAST <= lagging.multiple(VARIANT) <= MOST
    assert late <= 2 * SHARE * counted


def test_each_variant_has_its_own_multiple() -> None:
    lagging = Lagging()
    for number in range(50):
        lagging.await_outputs(f"c.{number}", 1, VARIANT, micro_batches=1, expected_ms=1.0, now_ms=0.0)
        lagging.overdue(inf)
        lagging.came(f"c.{number}", 1, 0)
    assert lagging.multiple(VARIANT) > USUAL
    assert lagging.multiple(("app", "layer")) == USUAL


def test_memory_is_bounded() -> None:
    lagging = Lagging()
    for number in range(2 * MAX_WATCHED + 10):
        lagging.await_outputs(f"c.{number}", 1, VARIANT, micro_batches=1, expected_ms=1.0, now_ms=0.0)
        if number % 2:
            lagging.came(f"c.{number}", 1, 0)
    assert len(lagging.overdue(inf)) <= MAX_WATCHED
