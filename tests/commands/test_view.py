"""What `splitplace watch` draws fits a terminal, and nothing from outside can steer it."""

from io import StringIO

import pytest
from rich.console import Console

from splitplace.commands.watch.observation import Observation
from splitplace.commands.watch.view import line, page
from splitplace.messages.metrics import TaskMetrics
from splitplace.messages.task import TaskDecided
from tests.support.examples import node
from tests.support.messages import finished

EVIL = "in time \x1b]0;title\x07 [red]\x9b31m"


def decided(reason: str) -> TaskDecided:
    return TaskDecided(
        task="sensor.1",
        attempt=1,
        application="mnist",
        batch=4,
        slack_ms=250.0,
        policy="rule",
        variant="semantic",
        reason=reason,
        predicted_ms=100.0,
        alternatives=(),
    )


def drawn(observation: Observation, width: int = 80) -> str:
    file = StringIO()
    Console(file=file, width=width, force_terminal=True, color_system=None).print(page(observation, "title"))
    return file.getvalue()


@pytest.fixture
def observation() -> Observation:
    seen = Observation()
    seen.nodes = {name: node(name) for name in ("pi-1", "pi-2")}
    seen.tasks = TaskMetrics(
        finished=1000,
        answered=1000,
        on_time=900,
        refused=0,
        expired=0,
        failed=0,
        hit_rate=0.9,
        reward=0.95,
        accuracy=0.99,
        variant_accuracy=0.99,
        response_p50_ms=1234.0,
        response_p95_ms=5678.0,
        inputs=1000,
        moved_bytes=0,
    )
    seen.apply(decided(EVIL))
    return seen


def test_no_heading_or_figure_is_cut_at_80_columns(observation: Observation) -> None:
    shown = drawn(observation)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert [
        word for word in ("GFLOP/s", "memory MB", "accepted", "accuracy", "5678") if word not in shown
    ] == []


def test_a_reason_from_outside_is_shown_without_control_characters_and_markup(
    observation: Observation,
) -> None:
    shown = drawn(observation, width=200)
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert "]0;title [red]31m" in shown


def test_the_same_is_said_in_one_line(observation: Observation) -> None:
    assert line(observation).startswith("2 nodes, 0 tasks accepted, 0 finished, hit rate ·")
    assert line(Observation()).startswith("0 nodes, 0 tasks")
    for name in list(observation.nodes)[1:]:
        del observation.nodes[name]
    assert line(observation).startswith("1 node, 0 tasks")


def test_late_and_refused_tasks_are_marked(observation: Observation) -> None:
    observation.apply(finished("sensor.2", on_time=False, response_ms=1500.0))
    observation.apply(finished("sensor.3", status="refused", on_time=False, reason="no node has 6 MB"))
    shown = drawn(observation)
    assert [mark for mark in ("LATE", "1500 of 1000", "REFUSED") if mark not in shown] == []
    assert "no node has" in shown
