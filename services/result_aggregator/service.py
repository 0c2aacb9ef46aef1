"""The result aggregator's shell: tensors in, results and metrics out."""

import asyncio
import logging
import time
from collections.abc import Mapping

from splitplace.bus.assembly import TensorAssembly
from splitplace.bus.client import TENSOR_SESSION
from splitplace.bus.connection import Bus, Received
from splitplace.bus.service import announced, service_bus
from splitplace.bus.settings import Settings
from splitplace.messages.application import Application
from splitplace.messages.frames import Buffer, FrameError, TensorHeader, decode_tensor
from splitplace.messages.limits import KIBIBYTE
from splitplace.messages.metrics import TaskMetrics
from splitplace.messages.task import SettleTask, TaskFinished
from splitplace.messages.topics import (
    AGGREGATOR_INBOX,
    APPLICATION,
    JOB_FINISHED,
    JOB_RESULT,
    JOB_SETTLE,
    METRICS_APPLICATION,
    METRICS_DECISION,
    METRICS_TASKS,
    RESULT_AGGREGATOR,
    TENSOR,
    Topic,
)
from splitplace.services.result_aggregator.core import ResultAggregatorCore
from splitplace.services.result_aggregator.merging import Condensed, condense
from splitplace.services.result_aggregator.metrics import BoardKind, Scoreboard

log = logging.getLogger(__name__)

METRICS_EVERY_S = 0.5
EXPIRE_EVERY_S = 0.5
TENSORS_IN_FLIGHT = 64
THREAD_FROM_BYTES = 64 * KIBIBYTE
"""Below this size, a thread would take longer to be woken than the work takes."""

_TOPICS: Mapping[BoardKind, Topic[TaskMetrics]] = {
    "tasks": METRICS_TASKS,
    "application": METRICS_APPLICATION,
    "decision": METRICS_DECISION,
}


class ResultAggregatorSettings(Settings):
    """Settings of the result aggregator: those of every part."""


class ResultAggregator:
    """ResultAggregatorCore and scoreboard, connected. Tensors have a connection of their own."""

    def __init__(self, settings: ResultAggregatorSettings) -> None:
        self._control = service_bus(RESULT_AGGREGATOR, settings)
        self._tensors = Bus(
            settings,
            f"splitplace-{RESULT_AGGREGATOR}-tensors",
            session=TENSOR_SESSION,
            receive_maximum=TENSORS_IN_FLIGHT,
        )
        self._tensors.statistics = self._control.statistics  # which are published for both
        self._assembly = TensorAssembly()
        self._aggregation = ResultAggregatorCore()
        self._scoreboard = Scoreboard()
        self._tensors.subscribe(TENSOR, self._on_tensor, node=AGGREGATOR_INBOX)
        self._control.subscribe(APPLICATION, self._on_application)
        self._control.subscribe(JOB_FINISHED, self._on_finished)
        self._control.subscribe(JOB_SETTLE, self._on_settle)
        self._control.on_connect(self._show_all_again)

    async def run(self) -> None:
        """Work until cancelled."""
        async with self._tensors:
            await self._tensors.connected()  # whoever hears that we are online may send at once
            async with announced(self._control, RESULT_AGGREGATOR), asyncio.TaskGroup() as tasks:
                tasks.create_task(self._publish_metrics())
                tasks.create_task(self._expire())

    # --- incoming ----------------------------------------------------------------------------------

    async def _on_tensor(self, received: Received[TensorHeader]) -> None:
        header = received.message
        try:
            if header.route is not None:
                raise FrameError(f"{header.task}: an input of {header.stage}, not an output")  # noqa: TRY301 - one place that counts refusals
            tensor = self._assembly.add(header, received.body, _now_ms())
            if tensor is None:
                return
            if header.raw_bytes < THREAD_FROM_BYTES:
                output = _condensed(*tensor)
            else:
                output = await asyncio.to_thread(_condensed, *tensor)
            result = self._aggregation.add(tensor[0], output, _now_ms())
        except FrameError as error:
            self._control.statistics.rejected += 1
            log.debug("refused an output: %s", error)
            return
        if result is not None:
            self._control.send(JOB_RESULT, result)

    async def _on_application(self, received: Received[Application]) -> None:
        self._scoreboard.add_application(received.message)
        for result in self._aggregation.add_application(received.message, _now_ms()):
            self._control.send(JOB_RESULT, result)

    async def _on_settle(self, received: Received[SettleTask]) -> None:
        result = self._aggregation.settle(received.message.task)
        if result is not None:
            self._control.send(JOB_RESULT, result)

    async def _on_finished(self, received: Received[TaskFinished]) -> None:
        finished = received.message
        self._scoreboard.count(finished)
        self._assembly.drop(finished.task, finished.attempt)
        self._aggregation.finish(finished.task, finished.attempt, _now_ms())

    # --- outgoing ----------------------------------------------------------------------------------

    async def _show_all_again(self) -> None:
        self._scoreboard.show_all_again()

    async def _publish_metrics(self) -> None:
        while True:
            await self._control.connected()
            for (kind, name), metrics in list(self._scoreboard.news()):
                topic = _TOPICS[kind]
                await self._control.publish(topic, metrics, **dict.fromkeys(topic.parameters, name))
            await asyncio.sleep(METRICS_EVERY_S)

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(EXPIRE_EVERY_S)
            now_ms = _now_ms()
            self._assembly.expire(now_ms)
            self._aggregation.expire(now_ms)


def _condensed(header: TensorHeader, encoded: Buffer) -> Condensed:
    return condense(decode_tensor(header, encoded))


def _now_ms() -> float:
    return time.monotonic() * 1000


async def serve(settings: ResultAggregatorSettings) -> None:
    """Run the result aggregator until cancelled."""
    await ResultAggregator(settings).run()
