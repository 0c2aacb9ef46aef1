"""The bridge as a process, before a real broker: what it tells Home Assistant of."""

import asyncio
import json
import sys
from pathlib import Path

import aiomqtt
import pytest

from splitplace.bus.settings import Settings
from splitplace.commands.home_assistant import command
from splitplace.commands.home_assistant.devices import STATUS, Devices
from splitplace.commands.home_assistant.inventory import Inventory
from splitplace.commands.processes.children import Processes
from splitplace.commands.shared.client import connected
from splitplace.messages.cluster import NodeStatus
from splitplace.messages.topics import NODE_STATUS
from tests.support.messages import BOOTS
from tests.support.observer import Observer
from tests.support.waiting import PATIENCE_S


async def test_devices_come_and_go_and_are_told_again_at_its_birth(
    mosquitto_url: str, tmp_path: Path
) -> None:
    settings = Settings(broker=mosquitto_url)
    devices = Devices(settings.prefix, "x")
    node, system = devices.config_topic("node", "pi"), devices.config_topic("system")
    observer = Observer(settings)
    heard: list[tuple[str, bytes]] = []
    async with (
        observer.bus,
        aiomqtt.Client(settings.host, settings.port) as home,
    ):
        await home.subscribe("homeassistant/#", qos=1)

        async def hear(topic: str, *, empty: bool = False) -> bytes:
            async for message in home.messages:
                payload = bytes(message.payload or b"")
                heard.append((message.topic.value, payload))
                if message.topic.value == topic and (payload == b"") is empty:
                    return payload
            raise AssertionError(topic)

        await observer.publish(NODE_STATUS, NodeStatus(node="pi", boot=BOOTS[0], online=True))
        with Processes(tmp_path) as processes:
            command = (sys.executable, "-m", "splitplace", "home-assistant", "--broker", mosquitto_url)
            processes.start("bridge", command)
            told = json.loads(await hear(node))
            assert told["components"]["online"]["state_topic"] == f"{settings.prefix}/availability/node/pi"
            light = json.loads(await hear(devices.light_topic))
            assert light["light"] == "broken", "there are no services"
            await home.publish(STATUS, "online", qos=1)
            assert json.loads(await hear(system))["origin"]["name"] == "SplitPlace"
            await observer.publish_raw("node/pi/status", b"", retain=True)
            await hear(node, empty=True)
    assert {topic.partition("/")[0] for topic, _ in heard} == {"homeassistant"}


async def test_the_end_of_its_rounds_is_noticed_without_a_message(
    mosquitto_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no health")

    monkeypatch.setattr(command, "health", fail)
    settings = Settings(broker=mosquitto_url)
    inventory = Inventory(Devices(settings.prefix, "x"), 0.0)
    async with connected(settings, "home-assistant") as client:
        bridge = command._Bridge(settings, client, inventory)
        with pytest.raises(RuntimeError, match="no health"):
            async with asyncio.timeout(PATIENCE_S):
                await bridge.run(pictures=False)
