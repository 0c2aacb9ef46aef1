"""The first task of a network on idle nodes is answered at its first attempt, however long loading takes."""

from pathlib import Path

import pytest

from nemesis.proxy import Link
from splitplace.bus.settings import Settings
from splitplace.commands.processes.children import Processes
from splitplace.messages import topics
from tests.support.brokers import running_broker
from tests.support.tiny_application import build_tiny_application
from tests.support.waiting import until
from tests.support.whole_system import LONG_DEADLINE_MS, START_S, Setup, System, observed, sensor_of

pytestmark = pytest.mark.system

BYTES_PER_S = 400_000.0
FILE_BYTES = 300_000
STALL_MS = 300.0


@pytest.mark.parametrize("policy", ["whole", "layer", "semantic"])
async def test_fetching_over_a_slow_link_costs_no_second_attempt(tmp_path: Path, policy: str) -> None:
    build_tiny_application(tmp_path / "store", padding_bytes=FILE_BYTES)
    with (
        running_broker("mosquitto", tmp_path / "broker") as broker,
        Processes(tmp_path / "logs") as processes,
    ):
        near = Settings(broker=broker.url)
        link = Link(near.port, near.host)
        await link.start()
        link.up.bytes_per_s = link.down.bytes_per_s = BYTES_PER_S
        slow = f"mqtt://127.0.0.1:{link.port}"
        setup = Setup(policy, ("n1", "n2"), node_options=(), stall_ms=STALL_MS, node_broker=slow)
        system = System(tmp_path, broker, processes, setup)
        try:
            async with observed(system) as observer:
                await until(lambda: observer.online == {"n1", "n2"}, START_S)
                await until(lambda: topics.GATEWAY in observer.services, START_S)
            async with sensor_of(system) as sensor:
                await sensor.ask(8, LONG_DEADLINE_MS)
                await until(lambda: not sensor.unanswered(), LONG_DEADLINE_MS / 1000)
                assert sensor.check() == {"answered": 1}
        finally:
            await link.stop()
    ((answer,),) = sensor.answers.values()
    assert answer["response_ms"] > 2 * STALL_MS, "nothing had to be loaded"
    assert answer["attempt"] == 1
