"""Two nodes of one name: the second says so and ends."""

from pathlib import Path

import pytest

from splitplace.bus.connection import Bus
from splitplace.edge_node import agent
from splitplace.edge_node.agent import Agent
from splitplace.edge_node.namesake import NamesakeError, check_name
from splitplace.edge_node.settings import NodeSettings
from splitplace.messages.cluster import NodeStatus
from splitplace.messages.topics import NODE_STATUS, NODE_VITALS
from tests.support.observer import Observer
from tests.support.running import running


def settings_of(broker_url: str, folder: Path) -> NodeSettings:
    return NodeSettings(broker=broker_url, node="kit", state_dir=folder)


async def test_the_second_node_of_a_name_ends_and_says_what_to_do(broker_url: str, tmp_path: Path) -> None:
    first = Agent(settings_of(broker_url, tmp_path / "1"), score=1.0, encode_megabytes_per_second=100.0)
    observer = Observer(broker_url, NODE_VITALS)
    async with observer.bus, running(first.run()) as run:
        await observer.until(NODE_VITALS)
        with pytest.raises(NamesakeError, match=r"another node .* is called kit: .*--node"):
            await agent.run(settings_of(broker_url, tmp_path / "2"))
        assert not run.done()


async def test_what_a_dead_node_left_behind_keeps_nobody_away(broker_url: str, tmp_path: Path) -> None:
    settings = settings_of(broker_url, tmp_path)
    async with Bus(settings, "leaver") as bus:
        await bus.publish(NODE_STATUS, NodeStatus(node="kit", boot="0123456789abcdef", online=True))
    await check_name(settings)


async def test_a_node_without_a_broker_keeps_its_name(tmp_path: Path) -> None:
    await check_name(settings_of("mqtt://127.0.0.1:9", tmp_path))
