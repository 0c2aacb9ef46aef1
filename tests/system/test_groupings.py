"""Stages that are chosen when a task is placed, in a whole system."""

from pathlib import Path

import pytest

from splitplace.bus.connection import Bus, Received
from splitplace.commands.processes.children import Processes
from splitplace.messages import topics
from splitplace.messages.task import TaskPlaced
from tests.support.brokers import running_broker
from tests.support.tiny_application import build_tiny_application
from tests.support.waiting import until
from tests.support.whole_system import LONG_DEADLINE_MS, START_S, Setup, System, observed, sensor_of

pytestmark = pytest.mark.system


async def test_tasks_are_answered_by_stages_that_no_manifest_describes(tmp_path: Path) -> None:
    build_tiny_application(tmp_path / "store", most_stages=3, milliseconds_per_image=40.0)
    with (
        running_broker("mosquitto", tmp_path / "broker") as broker,
        Processes(tmp_path / "logs") as processes,
    ):
        system = System(
            tmp_path, broker, processes, Setup("layer", ("n1", "n2"), node_options=(), together=True)
        )
        placed: list[TaskPlaced] = []
        bus = Bus(system.settings, "onlooker")

        async def on_placed(received: Received[TaskPlaced]) -> None:
            placed.append(received.message)

        bus.subscribe(topics.JOB_PLACED, on_placed)
        async with bus, observed(system) as observer, sensor_of(system) as sensor:
            await until(lambda: observer.online == {"n1", "n2"}, START_S)
            await until(lambda: topics.GATEWAY in observer.services, START_S)
            for count in range(1, 4):
                await sensor.ask(16, LONG_DEADLINE_MS)
                await until(lambda: not sensor.unanswered(), LONG_DEADLINE_MS / 1000)
                assert sensor.check() == {"answered": count}
    assert any(stage.run is not None for task in placed for stage in task.stages)
    assert {task.attempt for task in placed} == {1}
