"""Which results cannot be those of a task."""

from typing import Any

import pytest

from splitplace.messages.application import Application
from splitplace.messages.task import ClassScore, StageReport
from splitplace.services.gateway.fitting import misfit
from splitplace.services.gateway.task import Task
from tests.services.gateway.stimuli import part, placed, result, star, task
from tests.support.message_examples import application

TINY: Application = application(name="tiny")


def running(placement: Any = None) -> Task:
    made = Task(task(), 2)
    made.placed = placement or placed(attempt=2)
    return made


def reports(node: str) -> tuple[StageReport, ...]:
    return (StageReport(stage="s0", node=node, queue_ms=0.0, compute_ms=0.0),)


def test_a_result_of_the_placement_fits() -> None:
    assert misfit(result(attempt=2), running(), TINY) is None
    assert misfit(result(attempt=2).model_copy(update={"stages": reports("n1")}), running(), TINY) is None
    assert misfit(part(2, "camera.1"), running(star(attempt=2)), TINY) is None


def test_a_part_of_an_earlier_attempt_may_have_been_placed_otherwise() -> None:
    assert misfit(part(1, "camera.1"), running(), TINY) is None


def test_while_the_catalogue_is_unknown_the_placement_counts() -> None:
    assert misfit(result(attempt=2), running(), None) is None
    assert misfit(part(2, "camera.1"), running(), None) is not None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"application": "other"}, "application other"),
        ({"variant": "layer"}, "whole was placed"),
        ({"stages": reports("intruder")}, "s0 was not placed on intruder"),
        ({"scores": (ClassScore(index=4, confidence=1.0),) * 2}, "class 4 is none of the 4 classes"),
        ({"coverage": 0.5}, "has no branches"),
        ({"attempt": 1, "variant": "no-such"}, "no variant no-such"),
    ],
)
def test_a_contradiction_is_named(changes: dict[str, Any], why: str) -> None:
    problem = misfit(result(attempt=2).model_copy(update=changes), running(), TINY)
    assert problem is not None
    assert why in problem
