"""Sensors: they publish tasks, take answers, note both in the history, and come back after every fault."""

import asyncio
import contextlib
import hashlib
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiomqtt
import msgpack
from aiomqtt.types import PayloadType
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from nemesis.history import Acknowledged, Heard, History, Sent
from nemesis.proxy import LOOPBACK
from nemesis.samples import Application
from nemesis.tasks import PREFIX, REPLIES, Publication, Task, draw, publication

_CONNECT_S = 5.0
_RECONNECT_AFTER_S = 0.5
_PUBLISH_S = 10.0
_GIVE_UP_S = 60.0
_SESSION_S = 3600


def properties_of(message: Publication) -> Properties:
    """Return the MQTT 5 properties of a message."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if message.content_type is not None:
        properties.ContentType = message.content_type
    if message.response_topic is not None:
        properties.ResponseTopic = message.response_topic
    if message.correlation is not None:
        properties.CorrelationData = message.correlation
    if message.user:
        properties.UserProperty = list(message.user)
    return properties


def connection(port: int, name: str, *, lasting: bool) -> aiomqtt.Client:
    """Return a client; `lasting` keeps its session, and so its answers, while it is away."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = _SESSION_S if lasting else 0
    client = aiomqtt.Client(
        LOOPBACK,
        port,
        identifier=name,
        protocol=aiomqtt.ProtocolVersion.V5,
        clean_start=not lasting,
        properties=properties,
        timeout=_CONNECT_S,
        keepalive=20,
        max_inflight_messages=1000,
    )
    client.pending_calls_threshold = 1000  # many tasks are under way while the broker is away
    return client


@dataclass
class Wanted:
    """A task that was sent, and what its sensor knows of it."""

    task: Task
    sent_s: float
    acknowledged: bool = False
    status: str | None = None


class Sensor:
    """One sensor with a lasting session."""

    def __init__(
        self, name: str, port: int, history: History, applications: Mapping[str, Application]
    ) -> None:
        self.name = name
        self.tasks: dict[str, Wanted] = {}
        self.on_answer: Callable[[str], None] = lambda _: None
        self._port = port
        self._history = history
        self._applications = applications
        self._client: aiomqtt.Client | None = None
        self._connected = asyncio.Event()

    async def run(self) -> None:
        """Stay connected and take answers, until cancelled."""
        while True:
            with contextlib.suppress(aiomqtt.MqttError, OSError, TimeoutError):
                async with connection(self._port, f"nemesis-{self.name}", lasting=True) as client:
                    await client.subscribe(f"{PREFIX}/answer/{self.name}/+", qos=1, timeout=_CONNECT_S)
                    await client.subscribe(f"{REPLIES}/{self.name}/+", qos=1, timeout=_CONNECT_S)
                    self._client = client
                    self._connected.set()
                    async for message in client.messages:
                        self._take(str(message.topic), message.payload)
            self._connected.clear()
            await asyncio.sleep(_RECONNECT_AFTER_S)

    def _take(self, topic: str, payload: PayloadType) -> None:
        key = f"{self.name}.{topic.rpartition('/')[2]}"
        try:
            heard = _heard(self._history.now_s, key, decoded(payload))
        except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
            self._history.note(f"{key} heard what is no answer: {error!r}")
            return
        self._history.add(heard)
        wanted = self.tasks.get(key)
        if wanted is not None and wanted.status is None:
            wanted.status = heard.status
        self.on_answer(key)

    async def send(self, task: Task, *, again: bool = False) -> None:
        """Publish a task until the broker acknowledges it or its answer is there."""
        images = self._applications[task.application].images[list(task.inputs)]
        message = publication(task, images)
        wanted = self.tasks.setdefault(task.key, Wanted(task, self._history.now_s))
        until_s = self._history.now_s + _GIVE_UP_S
        while self._history.now_s < until_s and wanted.status is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._connected.wait(), 1.0)
            client = self._client
            if not self._connected.is_set() or client is None:
                continue
            self._history.add(
                Sent(
                    at_s=self._history.now_s,
                    task=task.key,
                    application=task.application,
                    form=task.style,
                    inputs=task.inputs,
                    deadline_ms=task.deadline_ms,
                    again=again,
                )
            )
            try:
                await publish(client, message)
            except (aiomqtt.MqttError, OSError, TimeoutError):
                await asyncio.sleep(_RECONNECT_AFTER_S)
                continue
            wanted.acknowledged = True
            self._history.add(Acknowledged(at_s=self._history.now_s, task=task.key))
            return


async def publish(client: aiomqtt.Client, message: Publication) -> None:
    """Publish with QoS 1 and wait for the acknowledgement. Raises MqttError."""
    await client.publish(
        message.topic,
        message.payload,
        qos=1,
        retain=message.retain,
        properties=properties_of(message),
        timeout=_PUBLISH_S,
    )


def decoded(payload: PayloadType) -> dict[str, Any]:
    """Return an answer's fields: msgpack to whoever sent msgpack, else JSON. Raises ValueError and others."""
    content = bytes(payload) if isinstance(payload, bytes) else b""
    answer: dict[str, Any] = json.loads(content) if content.startswith(b"{") else msgpack.unpackb(content)
    return answer


NO_CLASS = -1
"""Stands for an input without a prediction; no network of ours leaves one out."""


def _heard(at_s: float, key: str, answer: Mapping[str, Any]) -> Heard:
    changing = {"repeated"}
    if answer["status"] == "refused":  # never accepted, so nobody remembers the figures of the first refusal
        changing.add("reason")
    once = {name: value for name, value in answer.items() if name not in changing}
    predictions = answer.get("predictions", ())
    return Heard(
        at_s=at_s,
        task=key,
        status=answer["status"],
        reason=answer["reason"],
        decision=answer.get("decision"),
        classes=tuple(prediction["index"] if prediction else NO_CLASS for prediction in predictions),
        confidences=tuple(
            round(prediction["confidence"], 4) if prediction else 0.0 for prediction in predictions
        ),
        partial=answer.get("partial", False),
        repeated=answer.get("repeated", False),
        digest=hashlib.sha256(json.dumps(once, sort_keys=True).encode()).hexdigest()[:16],
    )


class Generator:
    """Poisson traffic from many sensors."""

    def __init__(
        self,
        seed: int,
        port: int,
        history: History,
        applications: Mapping[str, Application],
        *,
        sensors: int = 8,
    ) -> None:
        self.sensors = [
            Sensor(f"sensor-{number}", port, history, applications) for number in range(1, sensors + 1)
        ]
        self._samples = {name: len(application.images) for name, application in applications.items()}
        self._rng = random.Random(seed)
        self._count = 0
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def wanted(self) -> list[Wanted]:
        """All tasks of all sensors."""
        return [wanted for sensor in self.sensors for wanted in sensor.tasks.values()]

    def send_one(self, *, easy: bool = False) -> Task:
        """Draw a task and begin to send it."""
        self._count += 1
        sensor = self._rng.choice(self.sensors)
        task = draw(self._rng, sensor.name, f"t{self._count}", self._samples, easy=easy)
        self._spawn(sensor.send(task))
        return task

    def ask_again(self) -> int:
        """Send every acknowledged task without an answer once more; return how many there are."""
        silent = [
            (sensor, wanted.task)
            for sensor in self.sensors
            for wanted in sensor.tasks.values()
            if wanted.acknowledged and wanted.status is None
        ]
        for sensor, task in silent:
            self._spawn(sensor.send(task, again=True))
        return len(silent)

    def _spawn(self, sending: Any) -> None:  # noqa: ANN401 - a coroutine
        task = asyncio.ensure_future(sending)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def traffic(self, rate: float) -> None:
        """Send `rate` tasks a second on average, until cancelled."""
        due_s = time.monotonic()
        while True:
            due_s += self._rng.expovariate(rate)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))  # a starved generator catches up
            self.send_one()

    def cancel(self) -> None:
        """Give up what is still being sent."""
        for task in self._under_way:
            task.cancel()
