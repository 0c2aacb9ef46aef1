"""A burst of sensors: everybody hears soon, somebody is answered, and it is over when it is over."""

import asyncio
import statistics
from collections import Counter
from pathlib import Path

import msgpack
import pytest

from tests.support.swarm import Swarm, Told, swarm
from tests.support.tiny_application import tiny_images
from tests.support.waiting import until
from tests.support.whole_system import Setup, running_system

pytestmark = [pytest.mark.system, pytest.mark.serial, pytest.mark.timeout(400)]

SENSORS = 300
DEADLINE_S = 5.0
SETUP = Setup(policy="whole", node_options=(), stall_ms=1500.0)
AFTER_AT_MOST = 10.0
"""Times that single tasks may take after a burst what they took before: far less than any backlog."""


def body(deadline_s: float) -> bytes:
    images, _ = tiny_images(1, seed=1)
    return bytes(msgpack.packb({"inputs": images.tobytes(), "deadline_ms": 1e3 * deadline_s}))


async def single_s(sensors: Swarm) -> float:
    """The median response of single tasks."""
    told = [await one_after_another(sensors) for _ in range(15)]
    return statistics.median(told)


async def one_after_another(sensors: Swarm) -> float:
    told = sensors.sensors[0].publish("tiny", body(60.0), 60.0)
    await until(lambda: told.answer is not None)
    assert told.status == "answered", told.answer
    return told.took_s


async def burst(sensors: Swarm) -> list[Told]:
    told = [sensor.publish("tiny", body(DEADLINE_S), DEADLINE_S) for sensor in sensors.sensors]
    await until(lambda: all(task.answer is not None for task in told), 120.0)
    return told


async def fares(broker_url: str) -> tuple[Counter[str], float]:
    """Run a burst. Return how its tasks ended, and how much longer single tasks take afterwards."""
    async with swarm(broker_url, SENSORS) as sensors:
        before_s = await single_s(sensors)
        ends = Counter(task.status for task in await burst(sensors))
        return ends, await single_s(sensors) / before_s


def test_a_burst_is_answered_or_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with running_system(tmp_path, "mosquitto", SETUP) as system:
        ends, slower = asyncio.run(fares(system.broker.url))
    assert ends["answered"] >= SENSORS / 20, ends
    assert ends["answered"] + ends["refused"] >= 0.8 * SENSORS, ends
    assert slower <= AFTER_AT_MOST
