"""A gateway on a real broker, a stand-in for the services behind it, and sensors."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiomqtt
import msgpack
import numpy as np
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from splitplace.bus.connection import Bus, Received
from splitplace.bus.settings import Settings
from splitplace.messages import topics
from splitplace.messages.application import Application
from splitplace.messages.cluster import ServiceStatus
from splitplace.messages.frames import TensorHeader, chunk_body, decode_tensor
from splitplace.messages.pieces import PieceRun
from splitplace.messages.placing import StagePlacement
from splitplace.messages.task import (
    ClassScore,
    TaskAccepted,
    TaskDecided,
    TaskFinished,
    TaskPlaced,
    TaskResult,
)
from splitplace.services.gateway.service import serve
from splitplace.services.gateway.settings import GatewaySettings
from tests.support import examples
from tests.support.cluster_parts import publish_cluster
from tests.support.message_examples import application
from tests.support.waiting import PATIENCE_S, until

BOOT = "0" * 16
APPLICATION: Application = application()
IMAGES = np.arange(2 * 784, dtype=np.uint32).astype(np.uint8).reshape(2, 1, 28, 28)
BODY = {"inputs": IMAGES.tobytes(), "labels": [0, 1]}
PREFIX = "splitplace/v1"


class StandIn:
    """Splitter, placer, node and aggregator in one: answers every task with the classes 0, 1, 0, 1, ..."""

    def __init__(self, settings: Settings, *, has_catalogue: bool = True) -> None:
        self.bus = Bus(settings, "stand-in")
        self.applications: list[Application] = []
        self._has_catalogue = has_catalogue
        self.run: PieceRun | None = None
        """The pieces of the first stage in placements."""
        self.accepted: list[TaskAccepted] = []
        self.frames: list[tuple[TensorHeader, Any]] = []
        self.finished: list[TaskFinished] = []
        self.silent = False
        self.gateways: list[str] = []
        self.bus.subscribe(topics.SERVICE_STATUS, self._on_service, service=topics.GATEWAY)
        self.bus.subscribe(topics.JOB_ACCEPTED, self._on_accepted)
        self.bus.subscribe(topics.TENSOR, self._on_tensor)
        self.bus.subscribe(topics.JOB_FINISHED, self._on_finished)
        self.bus.subscribe(topics.APPLICATION, self._on_application)
        self.bus.on_connect(self._announce)

    async def _on_service(self, received: Received[ServiceStatus]) -> None:
        if received.message.online:
            self.gateways.append(received.message.boot)

    async def _on_application(self, received: Received[Application]) -> None:
        self.applications.append(received.message)

    async def _announce(self) -> None:
        if self._has_catalogue:
            await self.bus.publish(topics.APPLICATION, APPLICATION, application=APPLICATION.name)
        await self.nodes("n1", "n2")

    async def nodes(self, *online: str, boot: str = BOOT) -> None:
        """Publish a cluster of these nodes."""
        states = [examples.node(name).model_copy(update={"boot": boot}) for name in online]
        await publish_cluster(self.bus, examples.snapshot(*states))

    async def _on_accepted(self, received: Received[TaskAccepted]) -> None:
        task = received.message
        self.accepted.append(task)
        common: dict[str, Any] = {"task": task.task, "attempt": task.attempt, "application": task.application}
        decided = TaskDecided(
            **common,
            batch=task.batch,
            slack_ms=task.slack_ms,
            policy="rule",
            variant="layer",
            reason="it fits",
            predicted_ms=5.0,
            alternatives=(),
        )
        stages = (
            StagePlacement(stage="front", node="n1", work_ms=1.0, run=self.run),
            StagePlacement(stage="back", node="n2", work_ms=1.0),
        )
        placed = TaskPlaced(
            **common,
            variant="layer",
            batch=task.batch,
            micro_batch=1,
            policy="earliest-finish",
            stages=stages,
            predicted_ms=5.0,
            reason="earliest",
        )
        self.bus.send(topics.JOB_DECIDED, decided)
        self.bus.send(topics.JOB_PLACED, placed)

    @property
    def has_whole_input(self) -> bool:
        """Whether the last micro-batch has come: whoever is silent until then is silent for the attempt."""
        return bool(self.frames) and _is_last(self.frames[-1][0])

    async def _on_tensor(self, received: Received[TensorHeader]) -> None:
        header = received.message
        self.frames.append((header, decode_tensor(header, chunk_body(header, received.body))))
        if _is_last(header) and not self.silent:
            await self.send_result(header.task, header.attempt)

    async def send_result(self, task: str, attempt: int, **changes: Any) -> None:
        """What the aggregator would say. `changes` replace fields."""
        fields = {
            "task": task,
            "attempt": attempt,
            "application": next((each.application for each in self.accepted if each.task == task), "digits"),
            "variant": "layer",
            "scores": (ClassScore(index=0, confidence=0.9), ClassScore(index=0, confidence=0.5)),
            "stages": (),
            "micro_batches": 2,
            "moved_bytes": 0,
        }
        await self.bus.publish(topics.JOB_RESULT, TaskResult.model_validate(fields | changes))

    async def _on_finished(self, received: Received[TaskFinished]) -> None:
        self.finished.append(received.message)


class Sensor:
    """A plain MQTT client that keeps every answer."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.client = client
        self.answers: asyncio.Queue[aiomqtt.Message] = asyncio.Queue()

    async def listen(self) -> None:
        async for message in self.client.messages:
            self.answers.put_nowait(message)

    async def ask(self, payload: bytes, topic: str = "task/digits/camera/1", **properties: Any) -> None:
        given: Properties | None = None
        if properties:
            given = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            for name, value in properties.items():
                setattr(given, name, value)
        await self.client.publish(f"{PREFIX}/{topic}", payload, qos=1, properties=given)

    async def message(self) -> aiomqtt.Message:
        async with asyncio.timeout(PATIENCE_S):
            return await self.answers.get()

    async def answer(self) -> dict[str, Any]:
        payload = (await self.message()).payload
        assert isinstance(payload, bytes)
        found: dict[str, Any] = json.loads(payload)
        return found


@contextlib.asynccontextmanager
async def sensor_at(settings: Settings, *more: str) -> AsyncIterator[Sensor]:
    async with aiomqtt.Client(settings.host, settings.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        for name in (f"{PREFIX}/answer/#", *more):
            await client.subscribe(name, qos=1)
        sensor = Sensor(client)
        listening = asyncio.create_task(sensor.listen())
        try:
            yield sensor
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


@contextlib.asynccontextmanager
async def gateway_at(settings: GatewaySettings) -> AsyncIterator[asyncio.Task[None]]:
    running = asyncio.create_task(serve(settings))
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@contextlib.asynccontextmanager
async def all_others(
    settings: GatewaySettings, *, has_catalogue: bool = True
) -> AsyncIterator[tuple[StandIn, Sensor]]:
    """A system without its gateway."""
    stand_in = StandIn(settings, has_catalogue=has_catalogue)
    async with stand_in.bus, sensor_at(settings) as sensor:
        yield stand_in, sensor


@contextlib.asynccontextmanager
async def system(
    settings: GatewaySettings, *, has_catalogue: bool = True
) -> AsyncIterator[tuple[StandIn, Sensor]]:
    async with all_others(settings, has_catalogue=has_catalogue) as others, gateway_at(settings):
        await until(lambda: others[0].gateways)
        yield others


async def assert_next_answer_is_that_of_the_next_task(stand_in: StandIn, sensor: Sensor) -> None:
    """Nothing more is said of the tasks before."""
    stand_in.silent = False
    await sensor.ask(packed(deadline_ms=10_000.0), "task/digits/camera/next")
    assert (await sensor.answer())["task"] == "next"


def _is_last(header: TensorHeader) -> bool:
    return header.micro_batch == header.micro_batches - 1


def packed(**changes: Any) -> bytes:
    return bytes(msgpack.packb({**BODY, **changes}))
