"""A node that slows down in mid-task costs no deadline that the others can keep."""

import asyncio
import contextlib
import secrets
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from splitplace.bus.connection import Bus, Received
from splitplace.commands.processes.broker import available_kind
from splitplace.messages import topics
from splitplace.messages.second_run import SecondRun
from splitplace.messages.task import TaskPlaced
from tests.support.waiting import every, until
from tests.support.whole_system import LONG_DEADLINE_MS, Sensor, Setup, System, running_system, sensor_of

pytestmark = [pytest.mark.system, pytest.mark.serial]

BATCH = {"whole": 512, "semantic": 256}
"""Two branches have twice the micro-batches."""
USUAL = 3
"""Tasks that say what is usual."""
MOST_ROUNDS, ROUNDS_WITHOUT = 12, 3
"""With and without second runs. Each takes seconds, in which hardly anything is computed."""
RESCUED = 3
"""Rounds that show it, since without second runs none is in time. Beside other work, some are late anyway."""
SLOW = ("--cpu-share", "0.01", "--pacing")
"""Nodes so slow that a batch of a tiny network keeps them for some time."""
TURN_S, TURNS = 0.06, 10
"""A throttled node runs in one turn and stands still in nine."""
PART = 0.2
"""When the node is throttled, in times of what a task usually takes."""
DEADLINE = 3.0
"""Deadline of a task, in times of what is usual without throttling."""


@dataclass
class Watcher:
    """The placements and second runs that were published."""

    placed: list[TaskPlaced] = field(default_factory=list)
    seconds: list[SecondRun] = field(default_factory=list)

    def has_more_than(self, placements: int) -> bool:
        return len(self.placed) > placements


@contextlib.asynccontextmanager
async def watching(system: System) -> AsyncIterator[Watcher]:
    watcher = Watcher()

    async def on_placed(received: Received[TaskPlaced]) -> None:
        watcher.placed.append(received.message)

    async def on_second(received: Received[SecondRun]) -> None:
        watcher.seconds.append(received.message)

    bus = Bus(system.settings, f"watcher-{secrets.token_hex(4)}")
    bus.subscribe(topics.JOB_PLACED, on_placed)
    bus.subscribe(topics.JOB_SECOND_RUN, on_second)
    async with bus:
        await bus.connected()
        yield watcher


@contextlib.asynccontextmanager
async def throttled(system: System, node: str) -> AsyncIterator[None]:
    """Let a node's process run a tenth of the time only."""

    async def throttle() -> None:
        turns = count()
        async for _ in every(TURN_S):
            turn = next(turns) % TURNS
            if turn in {0, TURNS - 1}:
                system.send(node, signal.SIGCONT if turn else signal.SIGSTOP)

    throttling = asyncio.create_task(throttle())
    try:
        yield
    finally:
        throttling.cancel()
        await asyncio.gather(throttling, return_exceptions=True)
        system.send(node, signal.SIGCONT)


async def asked(sensor: Sensor, batch: int, deadline_ms: float) -> dict[str, Any]:
    """Send a task and return its answer."""
    name = f"t{len(sensor.sent)}"
    await sensor.ask(batch, deadline_ms)
    await until(lambda: bool(sensor.answers[name]))
    return sensor.answers[name][0]


@dataclass(frozen=True)
class Counted:
    """How rounds have ended."""

    in_time: int
    rescued: int
    """Those in time that had a second run."""
    seconds: int
    """Second runs."""


async def count_in_time(system: System, batch: int, rounds: int) -> Counted:
    """Throttle a node of each task in mid-task, until `RESCUED` of them were in time by a second run."""
    ask = partial(asked, batch=batch)
    async with watching(system) as watcher, sensor_of(system) as sensor:
        usual_ms = median(
            [(await ask(sensor, deadline_ms=LONG_DEADLINE_MS))["response_ms"] for _ in range(USUAL)]
        )
        in_time = rescued = 0
        for _ in range(rounds):
            if rescued == RESCUED:
                break
            before, seconds = len(watcher.placed), len(watcher.seconds)
            asking = asyncio.create_task(ask(sensor, deadline_ms=DEADLINE * usual_ms))
            await until(partial(watcher.has_more_than, before))
            last = max(watcher.placed[-1].stages, key=lambda stage: stage.work_ms)
            async for passed_s in every(PART * usual_ms / 1000):
                if passed_s:
                    break
            async with throttled(system, last.node):
                answer = await asking
            is_in_time = answer["on_time"] and not answer["partial"]
            in_time += is_in_time
            rescued += is_in_time and len(watcher.seconds) > seconds
            await ask(sensor, deadline_ms=LONG_DEADLINE_MS)  # until the node has caught up
        ends = sensor.check()
        assert sum(ends.values()) == len(sensor.sent)
        return Counted(in_time, rescued, len(watcher.seconds))


def setup(policy: str, *, second_runs: bool = True) -> Setup:
    """Each policy has one of the two ways to run services, so that both are seen."""
    silent_after_ms = 60_000.0  # a slow node is not dead
    return Setup(
        policy=policy,
        node_options=SLOW,
        settings={"silent_after_ms": silent_after_ms, "second_runs": second_runs},
        stall_ms=20_000.0,
        together=policy == "whole",
    )


@pytest.mark.parametrize("policy", ["whole", "semantic"])
def test_tasks_of_a_node_that_slows_down_are_in_time_by_second_runs(tmp_path: Path, policy: str) -> None:
    """Two systems side by side, one without second runs: both mostly wait."""
    kind = available_kind()

    async def both(system: System, without: System) -> tuple[Counted, Counted]:
        return await asyncio.gather(
            count_in_time(system, BATCH[policy], MOST_ROUNDS),
            count_in_time(without, BATCH[policy], ROUNDS_WITHOUT),
        )

    with (
        running_system(tmp_path / "with", kind, setup(policy)) as system,
        running_system(tmp_path / "without", kind, setup(policy, second_runs=False)) as without,
    ):
        counted, others = asyncio.run(both(system, without))
    assert counted.rescued == RESCUED
    assert others.in_time <= 1
    assert others.seconds == 0
