"""The result aggregator against real brokers."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitplace.bus.connection import Bus, RawReceived, Received
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import Broker
from splitplace.messages.application import Application
from splitplace.messages.cluster import ServiceStatus
from splitplace.messages.frames import TensorHeader, encode_tensor, pack, tensor_frames
from splitplace.messages.metrics import ServiceMetrics, TaskMetrics
from splitplace.messages.task import TaskResult
from splitplace.messages.topics import (
    AGGREGATOR_INBOX,
    APPLICATION,
    JOB_FINISHED,
    JOB_RESULT,
    METRICS_APPLICATION,
    METRICS_DECISION,
    METRICS_SERVICE,
    METRICS_TASKS,
    RESULT_AGGREGATOR,
    SERVICE_STATUS,
    TENSOR,
)
from splitplace.services.result_aggregator.service import ResultAggregatorSettings, serve
from tests.services.result_aggregator.test_core import assert_right
from tests.services.result_aggregator.test_metrics import finished
from tests.support.outputs import logits_application, outputs_of, random_logits, wide_application
from tests.support.waiting import until


class World:
    """A client that plays everybody around the aggregator."""

    def __init__(self, url: str) -> None:
        self.bus = Bus(Settings(broker=url), "world")
        self.results: list[TaskResult] = []
        self.metrics: dict[str, TaskMetrics] = {}
        self.rejected = 0
        self.online = False
        self.bus.subscribe(JOB_RESULT, self._on_result)
        self.bus.subscribe(SERVICE_STATUS, self._on_status, service=RESULT_AGGREGATOR)
        self.bus.subscribe(METRICS_SERVICE, self._on_service, service=RESULT_AGGREGATOR)
        for topic in (METRICS_TASKS, METRICS_APPLICATION, METRICS_DECISION):
            self.bus.subscribe_raw(topic, self._on_metrics)

    async def _on_result(self, received: Received[TaskResult]) -> None:
        self.results.append(received.message)

    async def _on_status(self, received: Received[ServiceStatus]) -> None:
        self.online = received.message.online

    async def _on_service(self, received: Received[ServiceMetrics]) -> None:
        self.rejected = received.message.rejected

    async def _on_metrics(self, received: RawReceived) -> None:
        name = next(iter(received.parameters.values()), "all")
        self.metrics[name] = TaskMetrics.model_validate_json(received.payload)

    async def send(self, frames: list[bytes]) -> None:
        """Publish frames to the aggregator."""
        for frame in frames:
            await self.bus.send_frame(TENSOR, frame, node=AGGREGATOR_INBOX)

    async def result(self, task: str = "sensor.1") -> TaskResult:
        """The result of a task, when it comes."""
        await until(lambda: any(result.task == task for result in self.results))
        return next(result for result in self.results if result.task == task)


def frames_of(outputs: list[tuple[TensorHeader, NDArray[Any]]], *, compress: bool = False) -> list[bytes]:
    frames: list[bytes] = []
    for header, logits in outputs:
        codec, encoded = encode_tensor(logits, compress=compress)
        sent = header.model_copy(update={"codec": codec, "encoded_bytes": len(encoded)})
        frames += tensor_frames(sent, encoded)
    return frames


@contextlib.asynccontextmanager
async def aggregator(url: str, *applications: Application) -> AsyncIterator[World]:
    """A running aggregator that knows some applications, and the world around it."""
    world = World(url)
    async with world.bus:
        for application in applications:
            await world.bus.publish(APPLICATION, application, application=application.name)
        service = asyncio.create_task(serve(ResultAggregatorSettings(broker=url)))
        try:
            await until(lambda: world.online)
            yield world
        finally:
            service.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await service


async def test_outputs_out_of_order_and_doubled_give_one_result(broker_url: str) -> None:
    logits = random_logits(20)
    frames = 2 * frames_of(outputs_of(logits, "tree"))
    random.Random(0).shuffle(frames)
    async with aggregator(broker_url, logits_application()) as world:
        await world.send(frames)
        assert_right(await world.result(), logits)
        await world.send(frames_of(outputs_of(logits, "whole", task="sensor.2")))
        await world.result("sensor.2")
        assert len(world.results) == 2


async def test_large_outputs_come_in_chunks_and_compressed(mosquitto_url: str) -> None:
    application = wide_application(2000)
    logits = np.random.default_rng(0).normal(size=(120, 2000)).astype(np.float32)
    logits[logits < 0] = 0
    frames = frames_of(outputs_of(logits, "whole", micro_batch=60, application=application), compress=True)
    assert len(frames) > 2
    random.Random(0).shuffle(frames)
    async with aggregator(mosquitto_url, application) as world:
        await world.send(frames)
        assert_right(await world.result(), logits)


async def test_outputs_that_come_before_the_catalogue_are_not_lost(mosquitto_url: str) -> None:
    logits = random_logits(8)
    async with aggregator(mosquitto_url) as world:
        await world.send(frames_of(outputs_of(logits, "star", expires_ms=60_000.0)))
        await asyncio.sleep(0.1)
        await world.bus.publish(APPLICATION, logits_application(), application="app")
        assert_right(await world.result(), logits)


async def test_noise_and_refused_outputs_are_counted_and_change_nothing(mosquitto_url: str) -> None:
    logits = random_logits(8)
    good = frames_of(outputs_of(logits, "whole"))
    header, columns = outputs_of(logits, "whole", task="sensor.2")[0]
    route = {"stage": "whole", "node": "n", "fragment": "0" * 64}

    def changed(task: str, **changes: object) -> TensorHeader:
        return TensorHeader.model_validate(dict(header) | {"task": f"sensor.{task}"} | changes)

    bad = [
        b"",
        b"\xff" * 100,
        random.Random(0).randbytes(1000),
        good[0][:-1],
        pack(changed("3", codec="zstd"), columns.tobytes()),
        *frames_of([(changed("4", route=route), columns)]),
        *frames_of([(changed("5"), np.full_like(columns, np.nan))]),
        *frames_of([(changed("6", variant="no-such-variant"), columns)]),
    ]
    async with aggregator(mosquitto_url, logits_application()) as world:
        await world.send([good[0], *bad, *good[1:]])
        assert_right(await world.result(), logits)
        await until(lambda: world.rejected == len(bad))


async def test_outputs_of_a_finished_task_give_no_result(mosquitto_url: str) -> None:
    frames = frames_of(outputs_of(random_logits(8), "whole"))
    async with aggregator(mosquitto_url, logits_application()) as world:
        await world.send(frames[:1])
        await world.bus.publish(JOB_FINISHED, finished(1))
        await until(lambda: world.metrics.get("all") and world.metrics["all"].finished == 1)
        await world.send(frames)
        await world.send(frames_of(outputs_of(random_logits(8), "whole", task="sensor.2")))
        await world.result("sensor.2")
        assert [result.task for result in world.results] == ["sensor.2"]


async def test_outcomes_become_metrics_of_all_of_the_application_and_of_the_decision(broker_url: str) -> None:
    async with aggregator(broker_url, logits_application()) as world:
        await until(lambda: {"all", "app", "whole", "tree"} <= world.metrics.keys())
        assert world.metrics["all"].finished == 0
        for number in range(10):
            await world.bus.publish(JOB_FINISHED, finished(number))
        seconds = await until(lambda: world.metrics["all"].finished == 10)
        assert seconds < 2.0
        await until(lambda: world.metrics["app"].finished == world.metrics["whole"].finished == 10)
        assert world.metrics["tree"].finished == 0


async def test_after_a_restart_of_the_broker_results_and_retained_metrics_come_again(broker: Broker) -> None:
    logits = random_logits(8)
    async with aggregator(broker.url, logits_application()) as world:
        await world.bus.publish(JOB_FINISHED, finished(1))
        await until(lambda: world.metrics.get("all") and world.metrics["all"].finished == 1)
        broker.kill()
        world.metrics.clear()
        broker.start()
        await until(lambda: world.metrics.get("all"), 10.0)
        assert world.metrics["all"].finished == 1

        attempt = 0
        async with asyncio.timeout(10.0):
            while not world.results:  # as the gateway does: until the connection for tensors is back
                attempt += 1
                await world.send(frames_of(outputs_of(logits, "star", attempt=attempt)))
                await asyncio.sleep(0.2)
        assert_right(world.results[0], logits)
