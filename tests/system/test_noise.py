"""A hundred thousand broken messages on all subscribed topics, and the next task is answered."""

import asyncio
import json
import random
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from splitplace.bus.connection import Bus, RawReceived
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import StartedKind
from splitplace.messages import topics
from splitplace.messages.base import Message
from splitplace.messages.frames import AGGREGATOR_INBOX, GATEWAY_SENDER
from splitplace.messages.topics import Topic
from tests.support.waiting import until
from tests.support.whole_system import (
    LONG_DEADLINE_MS,
    MODULES,
    NODES,
    Setup,
    System,
    running_system,
    sensor_of,
)

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

MESSAGES: Mapping[StartedKind, int] = {"mosquitto": 100_000, "embedded": 20_000}
"""What is refused does not depend on the broker, and the embedded one drops most of a flood."""
DEADLINE_MS = 4 * LONG_DEADLINE_MS
"""A task that comes while the flood is being read counts as sent when the flood began."""
LEVELS = {
    "application": ("tiny", "nothing", "ü"),
    "client": ("camera", "_"),
    "task": ("camera.1", "camera", "*"),
    "node": (*NODES, AGGREGATOR_INBOX, "n9"),
    "receiver": (*NODES, AGGREGATOR_INBOX, "n9"),
    "sender": (*NODES, GATEWAY_SENDER, "n9"),
    "more": ("", "2", "a/b"),
    "service": (*MODULES, "nobody"),
    "fragment": ("0" * 64, "x"),
}


@pytest.fixture
def system(broker_kind: StartedKind, tmp_path: Path) -> Iterator[System]:
    """A system of its own for each kind of broker, and with it one of the two ways to run services."""
    with running_system(tmp_path, broker_kind, Setup(together=broker_kind == "mosquitto")) as running:
        yield running


def subscribed_topics() -> list[Topic[Message]]:
    """Every topic that a service or node listens to."""
    listeners = {*topics.SERVICES, topics.NODE}
    return [topic for topic in topics.all_topics() if listeners & set(topic.subscribers)]


def noise(chance: random.Random, topic: Topic[Message]) -> bytes:
    """Random bytes, broken JSON, JSON that is no message, a broken frame, or a message of wrong values."""
    kind = chance.randrange(5)
    if kind == 0:
        return chance.randbytes(chance.randrange(200))
    if kind == 1:
        return b"{" + chance.randbytes(20)
    if kind == 2:
        return json.dumps(chance.choice([[], {}, "x", 1e999, None, {"version": 2}, [[[[1]]]]])).encode()
    if kind == 3:
        return (chance.randrange(400)).to_bytes(4) + chance.randbytes(chance.randrange(300))
    values: list[Any] = [None, -1, 1e308, "x" * 50, [], {}, True, "n1", "camera.1", 0]
    return json.dumps({name: chance.choice(values) for name in topic.message.model_fields}).encode()


def flood(settings: Settings, count: int) -> dict[str, int]:
    """Publish noise on every subscribed topic in turn; returns how many on each, all taken by the broker."""
    chance = random.Random(7)
    targets = subscribed_topics()
    sent = dict.fromkeys((topic.pattern for topic in targets), 0)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5, client_id="noise")
    client.connect(settings.host, settings.port)
    client.loop_start()
    for number in range(count):
        topic = targets[number % len(targets)]
        name = topic.at(**{level: chance.choice(LEVELS[level]) for level in topic.parameters})
        info = client.publish(f"{settings.prefix}/{name}", noise(chance, topic), qos=1)
        sent[topic.pattern] += 1
        if number % 500 == 499 or number == count - 1:
            info.wait_for_publish(60.0)
            assert info.is_published()
    client.disconnect()
    client.loop_stop()
    return sent


class Rejections:
    """What services and nodes say they could not use."""

    def __init__(self, settings: Settings) -> None:
        self.bus = Bus(settings, f"rejections-{secrets.token_hex(4)}")
        self.by_source: dict[str, int] = {}
        self.bus.subscribe_raw(topics.METRICS_SERVICE, self._on_metrics)
        self.bus.subscribe_raw(topics.NODE_VITALS, self._on_metrics)
        self.bus.subscribe_raw(topics.METRICS_GATEWAY, self._on_gateway)

    async def _on_metrics(self, raw: RawReceived) -> None:
        if raw.payload.startswith(b'{"version":2,') and b'"rejected":' in raw.payload:
            told = json.loads(raw.payload)
            self.by_source[str(raw.parameters)] = told["rejected"]

    async def _on_gateway(self, raw: RawReceived) -> None:
        self.by_source["invalid tasks"] = json.loads(raw.payload)["invalid"]


def test_after_a_flood_of_noise_on_every_topic_the_next_good_task_is_answered(
    system: System, broker_kind: StartedKind
) -> None:
    count = MESSAGES[broker_kind]

    async def scenario() -> None:
        rejections = Rejections(system.settings)
        async with rejections.bus:
            sent = await asyncio.to_thread(flood, system.settings, count)
            assert sum(sent.values()) == count
            assert min(sent.values()) > count / 100
            async with sensor_of(system) as sensor:
                for _ in range(5):
                    await sensor.ask(4, DEADLINE_MS)
                await until(lambda: not sensor.unanswered())
                assert sensor.check() == {"answered": 5}
            everybody = len(MODULES) + len(NODES) + 1
            await until(lambda: sum(each > 100 for each in rejections.by_source.values()) >= everybody)

    asyncio.run(scenario())
    assert system.dead() == []
