"""The result aggregator against real brokers."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from splitplace.commands.processes.broker import Broker
from splitplace.messages.application import Application
from splitplace.messages.frames import (
    AGGREGATOR_INBOX,
    GATEWAY_SENDER,
    FrameError,
    TensorHeader,
    encode_tensor,
    pack,
    tensor_frames,
    unpack,
)
from splitplace.messages.metrics import TaskMetrics
from splitplace.messages.task import StageReport, TaskResult
from splitplace.messages.topics import (
    APPLICATION,
    JOB_FINISHED,
    JOB_PLACED,
    JOB_RESULT,
    METRICS_APPLICATION,
    METRICS_DECISION,
    METRICS_SERVICE,
    METRICS_TASKS,
    RESULT_AGGREGATOR,
    SERVICE_STATUS,
    TENSOR,
)
from splitplace.services.result_aggregator.service import ResultAggregator
from splitplace.services.result_aggregator.settings import ResultAggregatorSettings
from tests.support import messages
from tests.support.observer import Observer
from tests.support.outputs import (
    assert_right,
    logits_application,
    outputs_of,
    placed_as,
    random_logits,
    wide_application,
)
from tests.support.running import running
from tests.support.waiting import PATIENCE_S, every, until

finished = partial(messages.finished, application="app")


class AggregatorObserver(Observer):
    """Plays nodes, splitter and gateway."""

    def __init__(self, url: str) -> None:
        boards = (METRICS_TASKS, METRICS_APPLICATION, METRICS_DECISION)
        super().__init__(url, JOB_RESULT, SERVICE_STATUS, METRICS_SERVICE, raw=boards)
        self.applications = [logits_application()]
        self._placed: set[tuple[str, int]] = set()

    @property
    def metrics(self) -> dict[str, TaskMetrics]:
        """The newest metrics of each application and variant, and of `all`."""
        return {
            next(iter(raw.parameters.values()), "all"): TaskMetrics.model_validate_json(raw.payload)
            for topic in (METRICS_TASKS, METRICS_APPLICATION, METRICS_DECISION)
            for raw in self.payloads(topic)
        }

    async def send(self, frames: list[bytes]) -> None:
        """Publish frames to the aggregator, each as the node that its trace names last.

        Before the first of an attempt, publish where it was placed.
        """
        for frame in frames:
            sender = GATEWAY_SENDER
            with contextlib.suppress(FrameError):
                header, _ = unpack(TensorHeader, frame)
                sender = header.sender
                await self._place(header)
            await self.send_from(sender, frame)

    async def send_from(self, sender: str, frame: bytes) -> None:
        """Publish a frame as a node."""
        await self.bus.send_frame(TENSOR, frame, receiver=AGGREGATOR_INBOX, sender=sender)

    async def _place(self, header: TensorHeader) -> None:
        known = next((each for each in self.applications if each.name == header.application), None)
        if known is None:
            return
        if header.variant not in {variant.name for variant in known.variants}:
            header = header.model_copy(update={"variant": "whole"})
        if (header.task, header.attempt) not in self._placed:
            self._placed.add((header.task, header.attempt))
            await self.publish(JOB_PLACED, placed_as(header, known))

    async def describe(self, application: Application) -> None:
        """Publish a catalogue entry."""
        self.applications.append(application)
        await self.publish(APPLICATION, application, application=application.name)

    async def result(self, task: str = "sensor.1") -> TaskResult:
        """Wait for the result of a task."""
        return await self.until(JOB_RESULT, lambda result: result.task == task)


def frames_of(outputs: list[tuple[TensorHeader, NDArray[Any]]], *, compress: bool = False) -> list[bytes]:
    frames: list[bytes] = []
    for header, logits in outputs:
        codec, encoded = encode_tensor(logits, compress=compress)
        sent = header.model_copy(update={"codec": codec, "encoded_bytes": len(encoded)})
        frames += tensor_frames(sent, encoded)
    return frames


@contextlib.asynccontextmanager
async def aggregator(url: str, *applications: Application) -> AsyncIterator[AggregatorObserver]:
    """An observer of a running aggregator that knows some applications."""
    observer = AggregatorObserver(url)
    async with observer.bus:
        for application in applications:
            await observer.describe(application)
        async with running(ResultAggregator(ResultAggregatorSettings(broker=url)).run()):
            await observer.until(
                SERVICE_STATUS, lambda status: status.online and status.service == RESULT_AGGREGATOR
            )
            yield observer


async def test_outputs_out_of_order_and_doubled_give_one_result(broker_url: str) -> None:
    logits = random_logits(20)
    frames = 2 * frames_of(outputs_of(logits, "tree"))
    random.Random(0).shuffle(frames)
    async with aggregator(broker_url, logits_application()) as observer:
        await observer.send(frames)
        assert_right(await observer.result(), logits)
        await observer.send(frames_of(outputs_of(logits, "whole", task="sensor.2")))
        await observer.result("sensor.2")
        assert len(observer.heard(JOB_RESULT)) == 2


async def test_large_outputs_come_in_chunks_and_compressed(mosquitto_url: str) -> None:
    application = wide_application(2000)
    logits = np.random.default_rng(0).normal(size=(120, 2000)).astype(np.float32)
    logits[logits < 0] = 0
    frames = frames_of(outputs_of(logits, "whole", micro_batch=60, application=application), compress=True)
    assert len(frames) > 2
    random.Random(0).shuffle(frames)
    async with aggregator(mosquitto_url, application) as observer:
        await observer.send(frames)
        assert_right(await observer.result(), logits)


async def test_outputs_that_come_before_the_catalogue_are_not_lost(mosquitto_url: str) -> None:
    logits = random_logits(8)
    known = logits_application("known")
    async with aggregator(mosquitto_url, known) as observer:
        await observer.send(frames_of(outputs_of(logits, "star", expires_ms=60_000.0)))
        await observer.send(frames_of(outputs_of(logits, "star", application=known, task="sensor.sentinel")))
        await observer.result("sensor.sentinel")
        await observer.describe(logits_application())
        assert_right(await observer.result(), logits)


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
        *frames_of([(changed("6", variant="no-such-variant"), columns)]),
    ]
    async with aggregator(mosquitto_url, logits_application()) as observer:
        await observer.send([good[0], *bad, *good[1:]])
        assert_right(await observer.result(), logits)
        await observer.until(METRICS_SERVICE, lambda metrics: metrics.rejected == len(bad))


async def test_a_node_cannot_send_what_another_was_placed_to_compute(mosquitto_url: str) -> None:
    logits, lies = random_logits(4), 100 * random_logits(4, seed=1)
    (forged,) = frames_of(outputs_of(lies, "whole"))
    own = StageReport(stage="whole", node="intruder", queue_ms=0.0, compute_ms=0.0)
    (under_its_name,) = frames_of(outputs_of(lies, "whole", trace=(own,)))
    async with aggregator(mosquitto_url, logits_application()) as observer:
        await observer.send_from("intruder", forged)
        await observer.send_from("intruder", under_its_name)
        await observer.send(frames_of(outputs_of(logits, "whole")))
        assert_right(await observer.result(), logits)
        await observer.until(METRICS_SERVICE, lambda metrics: metrics.rejected >= 1)


async def test_outputs_of_a_finished_task_give_no_result(mosquitto_url: str) -> None:
    frames = frames_of(outputs_of(random_logits(8), "whole"))
    async with aggregator(mosquitto_url, logits_application()) as observer:
        await observer.send(frames[:1])
        await observer.publish(JOB_FINISHED, finished("sensor.1"))
        await until(lambda: observer.metrics.get("all") and observer.metrics["all"].finished == 1)
        await observer.send(frames)
        await observer.send(frames_of(outputs_of(random_logits(8), "whole", task="sensor.2")))
        await observer.result("sensor.2")
        assert [result.task for result in observer.heard(JOB_RESULT)] == ["sensor.2"]


@pytest.mark.serial
async def test_outcomes_become_metrics_of_all_of_the_application_and_of_the_decision(broker_url: str) -> None:
    async with aggregator(broker_url, logits_application()) as observer:
        await until(lambda: {"all", "app", "whole", "tree"} <= observer.metrics.keys())
        assert observer.metrics["all"].finished == 0
        for number in range(10):
            await observer.publish(JOB_FINISHED, finished(f"sensor.{number}"))
        seconds = await until(lambda: observer.metrics["all"].finished == 10)
        assert seconds < 2.0
        await until(lambda: observer.metrics["app"].finished == observer.metrics["whole"].finished == 10)
        assert observer.metrics["tree"].finished == 0


async def test_after_a_restart_of_the_broker_results_and_retained_metrics_come_again(broker: Broker) -> None:
    logits = random_logits(8)
    async with aggregator(broker.url, logits_application()) as observer:
        await observer.publish(JOB_FINISHED, finished("sensor.1"))
        await until(lambda: observer.metrics.get("all") and observer.metrics["all"].finished == 1)
        broker.kill()
        observer.forget()
        broker.start()
        await until(lambda: observer.metrics.get("all"), 10.0)
        assert observer.metrics["all"].finished == 1

        attempt = 0
        async with asyncio.timeout(PATIENCE_S):
            async for _ in every(0.2):  # as the gateway does: until the connection for tensors is back
                if observer.heard(JOB_RESULT):
                    break
                attempt += 1
                await observer.send(frames_of(outputs_of(logits, "star", attempt=attempt)))
        assert_right(observer.heard(JOB_RESULT)[0], logits)
