"""The access list that we ship lets every part do what the topic table says of it, and nothing else."""

import queue
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from splitplace.commands.processes import broker as broker_module
from splitplace.commands.processes.broker import MOSQUITTO_SETTINGS, started_broker
from splitplace.messages.base import Message
from splitplace.messages.frames import AGGREGATOR_INBOX, GATEWAY_SENDER
from splitplace.messages.topics import (
    DASHBOARD,
    GATEWAY,
    HOME_ASSISTANT,
    NODE,
    SENSOR,
    SERVICES,
    TASK,
    TENSOR,
    Topic,
    all_topics,
)
from tests.support.waiting import block_until

pytestmark = pytest.mark.mosquitto

PREFIX = "splitplace/v1"
USERS = {
    **{name: name for name in SERVICES},
    NODE: "node-1",
    SENSOR: "sensor-1",
    DASHBOARD: "dashboard",
    HOME_ASSISTANT: "home-assistant",
}
COVERED = [topic for topic in all_topics() if topic.publishers[0] in USERS]
"""The file makes no users, so nobody joins by it (splitplace/security does better)."""
NOT_AUTHORISED = ReasonCode(PacketTypes.PUBACK, "Not authorized")


class Part:
    """One user of the broker: publishes, and collects everything that it may read."""

    def __init__(self, user: str, port: int) -> None:
        self.user = user
        self.received: set[str] = set()
        self._acknowledged: queue.Queue[ReasonCode] = queue.Queue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.username_pw_set(user)
        self._client.on_message = lambda _client, _data, message: self.received.add(message.topic)
        self._client.on_publish = lambda _client, _data, _id, reason, _more: self._acknowledged.put(reason)
        subscribed: queue.Queue[bool] = queue.Queue()
        self._client.on_subscribe = lambda *_: subscribed.put(item=True)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        subscribed.get(timeout=10)

    def may_publish(self, topic: str) -> bool:
        """Publishes, and says whether the broker allowed it."""
        self._client.publish(topic, b"x", qos=1)
        return self._acknowledged.get(timeout=10) != NOT_AUTHORISED

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Part]]:
    """Every role, connected to a Mosquitto with our access list."""
    file = Path(__file__).parents[2] / "mosquitto" / "acl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker_module, "MOSQUITTO_SETTINGS", {**MOSQUITTO_SETTINGS, "acl_file": str(file)})
        with started_broker(tmp_path_factory.mktemp("broker"), kind="mosquitto") as broker:
            connected = {role: Part(user, broker.port) for role, user in USERS.items()}
            yield connected
            for part in connected.values():
                part.close()


def _name(topic: Topic[Message], *, service: str, stranger: bool = False) -> str:
    """The topic as the named parts would use it, or as others of their kind would."""
    other = "-of-another" if stranger else ""
    values = dict.fromkeys(topic.parameters, "x") | {
        "node": f"node-1{other}",
        "receiver": f"node-1{other}",
        "sender": GATEWAY_SENDER if service == GATEWAY else f"node-1{other}",
        "client": f"sensor-1{other}",
        "service": f"{service}{other}",
    }
    return f"{PREFIX}/{topic.at(**values)}"


@pytest.mark.parametrize("topic", [pytest.param(topic, id=topic.pattern) for topic in COVERED])
def test_only_the_publisher_of_a_topic_may_publish_on_it(
    topic: Topic[Message], parts: dict[str, Part]
) -> None:
    for role, part in parts.items():
        allowed = role in topic.publishers
        if topic is TASK:
            allowed = False  # where there are users, tasks are signed by their topic
        assert part.may_publish(_name(topic, service=role)) is allowed, role


@pytest.mark.parametrize(
    "pattern", ["node/{node}/status", "node/{node}/vitals", "node/{node}/failure", TENSOR.pattern]
)
def test_a_node_cannot_speak_as_another(pattern: str, parts: dict[str, Part]) -> None:
    (topic,) = (topic for topic in all_topics() if topic.pattern == pattern)
    assert not parts[NODE].may_publish(_name(topic, service="x", stranger=True))


@pytest.mark.parametrize("pattern", ["task/{application}/{client}", "task/{application}/{client}/{task}"])
def test_a_sensor_cannot_speak_as_another(pattern: str, parts: dict[str, Part]) -> None:
    (topic,) = (topic for topic in all_topics() if topic.pattern == pattern)
    assert not parts[SENSOR].may_publish(_name(topic, service="x", stranger=True))


@pytest.mark.parametrize("topic", [pytest.param(topic, id=topic.pattern) for topic in COVERED])
def test_the_readers_of_a_topic_can_read_it(topic: Topic[Message], parts: dict[str, Part]) -> None:
    publisher = topic.publishers[0]
    if topic is TASK:
        return  # see above: nobody can publish it
    name = _name(topic, service=publisher)
    assert parts[publisher].may_publish(name)
    readers = [parts[role] for role in topic.subscribers]
    block_until(lambda: all(name in part.received for part in readers))


def test_nobody_reads_the_answers_or_tensors_of_others(parts: dict[str, Part]) -> None:
    gateway = parts["gateway"]
    private = [
        f"{PREFIX}/answer/sensor-2/x",
        f"{PREFIX}/tensor/node-2/{GATEWAY_SENDER}",
        f"{PREFIX}/tensor/{AGGREGATOR_INBOX}/{GATEWAY_SENDER}",
    ]
    assert all(gateway.may_publish(topic) for topic in private)
    assert gateway.may_publish(f"{PREFIX}/latest/sensor/sensor-2")
    assert gateway.may_publish(f"{PREFIX}/answer/sensor-1/last")
    block_until(lambda: f"{PREFIX}/answer/sensor-1/last" in parts[SENSOR].received)
    # So the broker has dealt with the others too.
    for role in (SENSOR, NODE):
        assert not parts[role].received & set(private)
    assert f"{PREFIX}/latest/sensor/sensor-2" not in parts[DASHBOARD].received
