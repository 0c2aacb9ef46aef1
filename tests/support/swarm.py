"""Many sensors in one process, each with a connection of its own, for bursts.

They speak MQTT 3.1.1 on bare sockets: a thousand clients of a library would cost more than what they measure.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgpack

from tests.support.waiting import PATIENCE_S

PREFIX = "splitplace/v1"
_CONNECT, _CONNACK, _PUBLISH, _SUBSCRIBE, _SUBACK = 0x10, 0x20, 0x30, 0x82, 0x90
_QOS_1 = 0x02
_CONNECT_S = 60.0
_AT_ONCE = 50
"""Connections that are opened at the same time."""


@dataclass(slots=True)
class Told:
    """What one sensor heard of one task."""

    asked_s: float
    """When it was published, on the clock of the event loop."""
    deadline_s: float
    answer: dict[str, Any] | None = None
    told_s: float = float("inf")
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with the answer."""

    @property
    def status(self) -> str:
        """The status of the answer; `none` before it came."""
        return self.answer["status"] if self.answer else "none"

    @property
    def took_s(self) -> float:
        """From publication to answer."""
        return self.told_s - self.asked_s

    @property
    def on_time(self) -> bool:
        """Whether a result came before the deadline, as the sensor sees it."""
        return self.status == "answered" and self.took_s <= self.deadline_s


class SwarmSensor(asyncio.Protocol):
    """One sensor."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready = asyncio.Event()
        self.tasks: dict[str, Told] = {}
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect and subscribe to the answers."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(_packet(_CONNECT, _text("MQTT") + bytes((4, 2, 0, 0)) + _text(self.name)))
        answers = _text(f"{PREFIX}/answer/{self.name}/+")
        transport.write(_packet(_SUBSCRIBE, b"\x00\x01" + answers + b"\x00"))

    def data_received(self, data: bytes) -> None:
        """Take packets apart."""
        self._buffer += data
        while (packet := _first_packet(self._buffer)) is not None:
            kind, body, self._buffer = packet
            if kind & 0xF0 == _SUBACK:
                self.ready.set()
            elif kind & 0xF0 == _PUBLISH:
                size = int.from_bytes(body[:2])
                self._heard(json.loads(body[2 + size :]))

    def _heard(self, answer: dict[str, Any]) -> None:
        told = self.tasks.get(answer["task"])
        if told is not None and told.answer is None:
            told.answer, told.told_s = answer, asyncio.get_running_loop().time()
            told.heard.set()

    def ask(self, application: str, image: bytes, deadline_s: float) -> Told:
        """Publish one picture and return where its answer will stand."""
        body = bytes(msgpack.packb({"images": [image], "deadline_ms": 1e3 * deadline_s}))
        return self.publish(application, body, deadline_s)

    def publish(self, application: str, body: bytes, deadline_s: float) -> Told:
        """Publish the body of a task, which names the same deadline."""
        assert self._transport is not None
        name = f"t{len(self.tasks)}"
        told = self.tasks[name] = Told(asyncio.get_running_loop().time(), deadline_s)
        topic = _text(f"{PREFIX}/task/{application}/{self.name}/{name}")
        self._transport.write(_packet(_PUBLISH | _QOS_1, topic + b"\x00\x02" + body))
        return told

    def close(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()


@dataclass(slots=True)
class Swarm:
    """Connected sensors."""

    sensors: Sequence[SwarmSensor] = field(default_factory=list)

    def burst(self, application: str, image: bytes, deadline_s: float) -> list[Told]:
        """Let every sensor publish one task at the same moment."""
        return [sensor.ask(application, image, deadline_s) for sensor in self.sensors]

    async def throughput(self, application: str, image: bytes, *, at_once: int, seconds: float) -> float:
        """Return answered tasks per second while a fixed number of sensors each wait for their answer."""
        clock = asyncio.get_running_loop().time
        end_s, answered = clock() + seconds, 0

        async def ask_again(sensor: SwarmSensor) -> None:
            nonlocal answered
            while clock() < end_s:
                told = await self._answered(sensor, application, image, 60.0)
                answered += told.status == "answered"

        await asyncio.gather(*(ask_again(sensor) for sensor in self.sensors[:at_once]))
        return answered / seconds

    async def singles(self, application: str, image: bytes, count: int, deadline_s: float) -> list[Told]:
        """Let one sensor publish tasks one after another."""
        return [await self._answered(self.sensors[0], application, image, deadline_s) for _ in range(count)]

    async def _answered(self, sensor: SwarmSensor, application: str, image: bytes, deadline_s: float) -> Told:
        told = sensor.ask(application, image, deadline_s)
        async with asyncio.timeout(PATIENCE_S):  # a look now and then would delay the sensor's next task
            await told.heard.wait()
        return told


@contextlib.asynccontextmanager
async def swarm(broker_url: str, count: int) -> AsyncIterator[Swarm]:
    """Connect this many sensors; all are subscribed when this enters."""
    where, loop = urlsplit(broker_url), asyncio.get_running_loop()
    sensors = [SwarmSensor(f"swarm-{index}") for index in range(count)]
    gate = asyncio.Semaphore(_AT_ONCE)

    async def connect(sensor: SwarmSensor) -> None:
        async with gate:
            await loop.create_connection(lambda: sensor, str(where.hostname), where.port or 1883)
            await sensor.ready.wait()

    try:
        async with asyncio.timeout(_CONNECT_S):
            await asyncio.gather(*map(connect, sensors))
        yield Swarm(sensors)
    finally:
        for sensor in sensors:
            sensor.close()


def _text(value: str) -> bytes:
    encoded = value.encode()
    return len(encoded).to_bytes(2) + encoded


def _packet(kind: int, body: bytes) -> bytes:
    size, header = len(body), bytearray((kind,))
    while True:
        size, low = divmod(size, 128)
        header.append(low | (128 if size else 0))
        if not size:
            return bytes(header) + body


def _first_packet(buffer: bytes) -> tuple[int, bytes, bytes] | None:
    """Return kind and body of the first packet, and what follows it; None while it is incomplete."""
    size = shift = 0
    for index, byte in enumerate(buffer[1:5], 2):
        size |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            end = index + size
            return (buffer[0], buffer[index:end], buffer[end:]) if len(buffer) >= end else None
    return None
