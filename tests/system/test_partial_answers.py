"""When the node of one branch does not answer in time, the sensor gets what the others say, marked so."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from splitplace.bus.connection import Bus, Received
from splitplace.commands.processes.broker import available_kind
from splitplace.messages import topics
from splitplace.messages.limits import MEBIBYTE
from splitplace.messages.metrics import TaskMetrics
from splitplace.messages.task import TaskPlaced
from tests.support.tiny_application import BRANCH_CLASSES
from tests.support.waiting import until
from tests.support.whole_system import (
    LONG_DEADLINE_MS,
    MODULES,
    Sensor,
    Setup,
    System,
    observed,
    running_system,
    sensor_of,
)

pytestmark = [pytest.mark.system, pytest.mark.serial]

DEADLINE_MS = 2200.0
LATE_S = 1.7
"""Seconds after its sending at which a task is near its deadline."""
PAUSES = 5
"""How often the node is paused until a task is decided before the node is missed."""
PATIENCE_S = 30.0
"""By then the splitter has heard of a node that is back."""
SETUP = Setup(
    policy="semantic",
    nodes=("n1", "n2"),
    node_options=("--memory-budget-mb", "15"),
    stall_ms=10_000.0,
    fragment_memory_bytes=10 * MEBIBYTE,
)
"""Each node has room for one branch only, so that both are needed."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("partial"), available_kind(), SETUP) as running:
        yield running


@contextlib.asynccontextmanager
async def placements(system: System) -> AsyncIterator[list[TaskPlaced]]:
    """Every placement from now on."""
    seen: list[TaskPlaced] = []
    bus = Bus(system.settings, "placements")

    async def on_placed(received: Received[TaskPlaced]) -> None:
        seen.append(received.message)

    bus.subscribe(topics.JOB_PLACED, on_placed)
    async with bus:
        await bus.connected()
        yield seen


async def answer_without(system: System, node: str, *, killed: bool) -> tuple[dict[str, Any], set[int]]:
    """The answer to a task while a node does nothing and, near the deadline, dies.

    Returns:
        The one answer, and the classes of the branch that the other node had.
    """
    async with placements(system) as placed, sensor_of(system) as sensor:
        for _ in range(PAUSES):
            system.send(node, signal.SIGSTOP)
            began = time.monotonic()
            name = f"t{len(sensor.sent)}"
            await sensor.ask(16, DEADLINE_MS)
            await until(lambda: placed or not sensor.unanswered())
            if placed:
                break
            # The machine was so slow that the node was missed before the task was decided: it was refused.
            system.send(node, signal.SIGCONT)
            await _whole_again(system, sensor)
            placed.clear()
        assert placed, sensor.answers
        branch = {stage.node: int(stage.stage.removeprefix("branch-")) for stage in placed[0].stages}
        assert len(branch) == 2, placed[0]
        await until(lambda: time.monotonic() > began + LATE_S)
        if killed:
            system.kill(node)
        await until(lambda: not sensor.unanswered())
        if killed:
            system.restart(node)
        else:
            system.send(node, signal.SIGCONT)
        await _whole_again(system, sensor)
        (answer,) = sensor.answers[name]
        del branch[node]
    return answer, set(BRANCH_CLASSES[next(iter(branch.values()))])


async def _whole_again(system: System, sensor: Sensor) -> None:
    """Wait until a task is answered in full, which also gives late copies of answers time to come."""
    async with observed(system) as observer:
        await until(lambda: observer.services == set(MODULES) and observer.online == set(system.nodes))
    began = time.monotonic()
    while True:
        name = f"t{len(sensor.sent)}"
        await sensor.ask(4, LONG_DEADLINE_MS)
        await until(lambda: not sensor.unanswered())
        (answer,) = sensor.answers[name]
        is_whole = (answer["status"], answer["partial"]) == ("answered", False)
        # Refused at once as long as the splitter has not heard of the node, and answered in part where a slow
        # machine lets its death be noticed only now.
        if is_whole or time.monotonic() > began + PATIENCE_S:
            break
    assert (answer["status"], answer["partial"]) == ("answered", False), answer


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "silent"])
@pytest.mark.parametrize("node", SETUP.nodes)
def test_without_the_node_of_one_branch_there_is_one_marked_answer_on_time(
    system: System, node: str, *, killed: bool
) -> None:
    answer, classes = asyncio.run(answer_without(system, node, killed=killed))
    assert (answer["status"], answer["partial"], answer["coverage"]) == ("answered", True, 0.5), answer
    assert answer["on_time"], answer
    assert answer["reason"].startswith("partial, 50% of the classes")
    assert node not in answer["nodes"]
    assert {found["index"] for found in answer["predictions"]} <= classes
    assert all(found["confidence"] <= 0.5 for found in answer["predictions"])


def test_partial_answers_are_counted(system: System) -> None:
    seen: list[TaskMetrics] = []

    async def count() -> None:
        bus = Bus(system.settings, "counts")

        async def on_metrics(received: Received[TaskMetrics]) -> None:
            seen.append(received.message)

        bus.subscribe(topics.METRICS_TASKS, on_metrics)
        async with bus:
            await until(lambda: seen)
            before = seen[-1]
            answer, _ = await answer_without(system, "n2", killed=False)
            assert answer["partial"], answer
            await until(lambda: seen[-1].partial > before.partial)

    asyncio.run(count())
