"""The gateway on a real broker, with a stand-in for the services behind it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import msgpack
import numpy as np
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from splitplace.bus.connection import Bus, Received
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import Broker
from splitplace.messages import topics
from splitplace.messages.application import Application
from splitplace.messages.cluster import ClusterState, NodeState, ServiceStatus
from splitplace.messages.frames import TensorHeader, chunk_body, decode_tensor
from splitplace.messages.task import (
    Answer,
    ClassScore,
    StagePlacement,
    TaskAccepted,
    TaskDecided,
    TaskFinished,
    TaskPlaced,
    TaskResult,
)
from splitplace.services.gateway.journal import Journal, JournalError
from splitplace.services.gateway.service import serve
from splitplace.services.gateway.settings import GatewaySettings
from tests.support.message_examples import application
from tests.support.waiting import PATIENCE_S, until

BOOT = "0" * 16
APPLICATION: Application = application()
IMAGES = np.arange(2 * 784, dtype=np.uint32).astype(np.uint8).reshape(2, 1, 28, 28)
BODY = {"inputs": IMAGES.tobytes(), "labels": [0, 1]}
PREFIX = "splitplace/v1"


class StandIn:
    """Splitter, placer, node and aggregator in one: answers every task with the classes 0, 1, 0, 1, ..."""

    def __init__(self, settings: Settings) -> None:
        self.bus = Bus(settings, "stand-in")
        self.accepted: list[TaskAccepted] = []
        self.frames: list[tuple[TensorHeader, Any]] = []
        self.finished: list[TaskFinished] = []
        self.silent = False
        self.gateways: list[str] = []
        self.bus.subscribe(topics.SERVICE_STATUS, self._on_service, service=topics.GATEWAY)
        self.bus.subscribe(topics.JOB_ACCEPTED, self._on_accepted)
        self.bus.subscribe(topics.TENSOR, self._on_tensor)
        self.bus.subscribe(topics.JOB_FINISHED, self._on_finished)
        self.bus.on_connect(self._announce)

    async def _on_service(self, received: Received[ServiceStatus]) -> None:
        if received.message.online:
            self.gateways.append(received.message.boot)

    async def _announce(self) -> None:
        await self.bus.publish(topics.APPLICATION, APPLICATION, application=APPLICATION.name)
        await self.nodes("n1", "n2")

    async def nodes(self, *online: str, boot: str = BOOT) -> None:
        """Publish a cluster of these nodes."""
        states = tuple(
            NodeState(
                node=name,
                boot=boot,
                online=True,
                silent_ms=0.0,
                score=50.0,
                memory_budget_bytes=1_000_000,
                loaded=(),
                queue_ms=0.0,
                queue_length=0,
                cpu_ratio=0.0,
                link_megabytes_per_second=100.0,
                timings=(),
            )
            for name in online
        )
        await self.bus.publish(topics.CLUSTER_STATE, ClusterState(sequence=1, nodes=states))

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
            StagePlacement(stage="front", node="n1", work_ms=1.0),
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

    async def _on_tensor(self, received: Received[TensorHeader]) -> None:
        header = received.message
        self.frames.append((header, decode_tensor(header, chunk_body(header, received.body))))
        if header.micro_batch == header.micro_batches - 1 and not self.silent:
            await self.send_result(header.task, header.attempt)

    async def send_result(self, task: str, attempt: int) -> None:
        """What the aggregator would say."""
        result = TaskResult(
            task=task,
            attempt=attempt,
            application="digits",
            variant="layer",
            scores=(ClassScore(index=0, confidence=0.9), ClassScore(index=0, confidence=0.5)),
            stages=(),
            micro_batches=2,
            moved_bytes=0,
        )
        await self.bus.publish(topics.JOB_RESULT, result)

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


@pytest.fixture
def settings(broker_url: str, tmp_path: Path) -> GatewaySettings:
    return GatewaySettings(broker=broker_url, journal=tmp_path / "journal", stall_ms=300.0, grace_ms=200.0)


@contextlib.asynccontextmanager
async def system(settings: GatewaySettings) -> AsyncIterator[tuple[StandIn, Sensor]]:
    stand_in = StandIn(settings)
    async with stand_in.bus, gateway_at(settings), sensor_at(settings) as sensor:
        await until(lambda: stand_in.gateways)
        yield stand_in, sensor


async def assert_next_answer_is_that_of_the_next_task(stand_in: StandIn, sensor: Sensor) -> None:
    """Nothing more is said of the tasks before."""
    stand_in.silent = False
    await sensor.ask(packed(deadline_ms=10_000.0), "task/digits/camera/next")
    assert (await sensor.answer())["task"] == "next"


def packed(**changes: Any) -> bytes:
    return bytes(msgpack.packb({**BODY, **changes}))


async def test_a_task_is_run_in_micro_batches_and_answered(settings: GatewaySettings) -> None:
    async with system(settings) as (stand_in, sensor):
        await sensor.ask(packed())
        answer = await sensor.answer()
        assert answer["status"] == "answered"
        assert [found["label"] for found in answer["predictions"]] == ["zero", "zero"]
        assert (answer["decision"], answer["nodes"], answer["reason"]) == ("layer", ["n1", "n2"], "it fits")
        assert 0 < answer["response_ms"] < answer["deadline_ms"]
        assert answer["on_time"] is True
        inputs = [array for header, array in stand_in.frames]
        assert np.array_equal(np.concatenate(inputs), IMAGES)
        route = stand_in.frames[0][0].route
        assert route is not None
        assert (route.node, route.next[0].node, route.next[0].next) == ("n1", "n2", ())
        await until(lambda: stand_in.finished)
        (finished,) = stand_in.finished
        assert (finished.accuracy, finished.variant_accuracy) == (0.5, 0.9)


async def test_an_answer_goes_to_the_response_topic_with_its_correlation_data(
    settings: GatewaySettings,
) -> None:
    async with system(settings) as (_, _unused), sensor_at(settings, "home/answers") as sensor:
        await sensor.ask(packed(), ResponseTopic="home/answers", CorrelationData=b"42")
        message = await sensor.message()
        correlation_data = getattr(message.properties, "CorrelationData", None)
        assert (message.topic.value, correlation_data) == ("home/answers", b"42")


async def test_who_declares_msgpack_is_answered_in_msgpack(settings: GatewaySettings) -> None:
    async with system(settings) as (_, sensor):
        await sensor.ask(packed(), ContentType="application/msgpack")
        payload = (await sensor.message()).payload
        assert isinstance(payload, bytes)
        assert msgpack.unpackb(payload)["status"] == "answered"


async def test_a_response_topic_cannot_forge_a_message_of_ours(settings: GatewaySettings) -> None:
    async with system(settings) as (_, sensor):
        await sensor.ask(packed(), ResponseTopic=f"{PREFIX}/node/n1/status")
        assert (await sensor.message()).topic.value == f"{PREFIX}/answer/camera/1"


async def test_a_repeated_task_id_gets_its_old_answer_and_is_not_run_again(settings: GatewaySettings) -> None:
    async with system(settings) as (stand_in, sensor):
        await sensor.ask(packed())
        first = await sensor.answer()
        await sensor.ask(packed())
        second = await sensor.answer()
        assert second == {**first, "repeated": True}
        assert len(stand_in.accepted) == 1


async def test_bad_input_is_told_so_and_the_next_good_task_is_answered(settings: GatewaySettings) -> None:
    async with system(settings) as (_, sensor):
        await sensor.ask(b"\xff\x00 noise")
        refusal = await sensor.answer()
        assert (refusal["status"], refusal["task"]) == ("invalid", "1")
        assert "neither a JSON object" in refusal["reason"]
        await sensor.ask(packed(), "task/digits/camera/2")
        assert (await sensor.answer())["status"] == "answered"


async def test_an_unknown_application_is_refused_once_the_catalogue_is_there(
    settings: GatewaySettings,
) -> None:
    async with system(settings) as (_, sensor):
        await sensor.ask(packed(), "task/cats/camera/1")
        assert "digits" in (await sensor.answer())["reason"]


async def test_too_many_unfinished_tasks_are_refused_as_overload(settings: GatewaySettings) -> None:
    limited = settings.model_copy(update={"max_tasks": 1})
    async with system(limited) as (stand_in, sensor):
        stand_in.silent = True
        await sensor.ask(packed(deadline_ms=400.0))
        await until(lambda: stand_in.accepted)
        await sensor.ask(packed(), "task/digits/camera/2")
        refusal = await sensor.answer()
        assert (refusal["task"], refusal["status"]) == ("2", "refused")
        assert "overloaded" in refusal["reason"]
        assert (await sensor.answer())["status"] == "expired"


async def test_a_task_nobody_finishes_expires_after_deadline_and_grace(settings: GatewaySettings) -> None:
    async with system(settings) as (stand_in, sensor):
        stand_in.silent = True
        await sensor.ask(packed(deadline_ms=250.0))
        answer = await sensor.answer()
        assert answer["status"] == "expired"
        assert 450.0 <= answer["response_ms"] < 1000.0
        await stand_in.send_result("camera.1", answer["attempt"])
        await assert_next_answer_is_that_of_the_next_task(stand_in, sensor)


async def test_a_dead_node_costs_an_attempt_and_not_the_answer(settings: GatewaySettings) -> None:
    async with system(settings) as (stand_in, sensor):
        stand_in.silent = True
        await sensor.ask(packed(deadline_ms=5000.0))
        await until(lambda: stand_in.frames)
        stand_in.silent = False
        await stand_in.nodes("n2")
        await stand_in.nodes("n1", "n2", boot="1" * 16)
        answer = await sensor.answer()
        assert answer["status"] == "answered"
        assert answer["attempt"] >= 2


async def test_a_restarted_aggregator_costs_an_attempt_and_not_the_answer(settings: GatewaySettings) -> None:
    async with system(settings.model_copy(update={"stall_ms": 60_000.0})) as (stand_in, sensor):
        for boot in ("a" * 16, "b" * 16):
            stand_in.silent = boot[0] == "a"
            status = ServiceStatus(service="result-aggregator", boot=boot, online=True, software="1")
            await stand_in.bus.publish(topics.SERVICE_STATUS, status)
            if stand_in.silent:
                await sensor.ask(packed(deadline_ms=5000.0))
                await until(lambda: stand_in.frames)
        answer = await sensor.answer()
        assert (answer["status"], answer["attempt"]) == ("answered", 2)


async def test_a_restarted_gateway_finishes_what_it_had_accepted(settings: GatewaySettings) -> None:
    stand_in = StandIn(settings)
    stand_in.silent = True
    async with stand_in.bus, sensor_at(settings) as sensor:
        async with gateway_at(settings):
            await until(lambda: stand_in.gateways)
            await sensor.ask(packed(deadline_ms=10_000.0))
            await until(lambda: stand_in.frames)
        stand_in.silent = False
        async with gateway_at(settings):
            answer = await sensor.answer()
            assert (answer["status"], answer["attempt"]) == ("answered", 2)
            await assert_next_answer_is_that_of_the_next_task(stand_in, sensor)


async def test_tasks_survive_a_broker_that_is_killed(broker: Broker, tmp_path: Path) -> None:
    settings = GatewaySettings(broker=broker.url, journal=tmp_path / "journal", stall_ms=300.0)
    stand_in = StandIn(settings)
    stand_in.silent = True
    async with stand_in.bus, gateway_at(settings):
        await until(lambda: stand_in.gateways)
        async with sensor_at(settings) as sensor:
            await sensor.ask(packed(deadline_ms=20_000.0))
            await until(lambda: stand_in.frames)
            broker.kill()
        stand_in.silent = False
        broker.start()
        async with sensor_at(settings) as sensor:
            assert (await sensor.answer())["status"] == "answered"


async def test_while_the_journal_cannot_be_written_tasks_are_refused_and_later_answered(
    settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise JournalError("database or disk is full")

    async with system(settings) as (_, sensor):
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "accept", fail)
            await sensor.ask(packed())
            refusal = await sensor.answer()
            assert (refusal["status"], refusal["task"]) == ("refused", "1")
            assert "journal" in refusal["reason"]
        await sensor.ask(packed())
        assert (await sensor.answer())["status"] == "answered"


async def test_an_answer_waits_until_the_journal_can_be_written(
    settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Journal.finish
    failures = 1

    async def fail_once(journal: Journal, key: str, answer: Answer) -> bool:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise JournalError("database or disk is full")
        return await finish(journal, key, answer)

    monkeypatch.setattr(Journal, "finish", fail_once)
    async with system(settings) as (_, sensor):
        await sensor.ask(packed())
        assert (await sensor.answer())["status"] == "answered"
        assert failures < 0
