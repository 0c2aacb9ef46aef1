"""The result aggregator's shell: connects its core and the scoreboard to the broker."""

import asyncio
import logging
from collections.abc import Iterable, Mapping

from splitplace.bus.assembly import TensorAssembly
from splitplace.bus.connection import Received
from splitplace.bus.identity import TENSOR_SESSION
from splitplace.bus.service import Service, now_ms
from splitplace.messages.application import Application
from splitplace.messages.frames import AGGREGATOR_INBOX, Buffer, FrameError, TensorHeader, decode_tensor
from splitplace.messages.limits import KIBIBYTE
from splitplace.messages.metrics import TaskMetrics
from splitplace.messages.task import SettleTask, TaskFinished, TaskPlaced, TaskResult
from splitplace.messages.topics import (
    APPLICATION,
    JOB_FINISHED,
    JOB_PLACED,
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
from splitplace.services.result_aggregator.settings import ResultAggregatorSettings

log = logging.getLogger(__name__)

METRICS_PERIOD_S = 0.5
EXPIRE_PERIOD_S = 0.5
TENSORS_IN_FLIGHT = 64
"""Unacknowledged frames that the broker may have on the way to us: at most 16 MiB."""
THREAD_FROM_BYTES = 64 * KIBIBYTE
"""Smaller tensors are decoded at once: waking a thread would take longer."""

_TOPICS: Mapping[BoardKind, Topic[TaskMetrics]] = {
    "tasks": METRICS_TASKS,
    "application": METRICS_APPLICATION,
    "decision": METRICS_DECISION,
}


class ResultAggregator:
    """Merges the outputs of last stages into results, and publishes task metrics."""

    def __init__(self, settings: ResultAggregatorSettings) -> None:
        """A result aggregator that does not run yet."""
        self._assembly = TensorAssembly()
        self._core = ResultAggregatorCore()
        self._scoreboard = Scoreboard()
        self._service = Service(RESULT_AGGREGATOR, settings)
        self._service.on_connect(self._publish_all_again)
        self._service.every(METRICS_PERIOD_S, self._publish_metrics, online_only=True)
        self._service.every(EXPIRE_PERIOD_S, self._expire)
        self._bus = self._service.bus
        self._bus.subscribe(APPLICATION, self._on_application)
        self._bus.subscribe(JOB_FINISHED, self._on_finished)
        self._bus.subscribe(JOB_SETTLE, self._on_settle)
        tensors = self._service.connection(
            "tensors", session=TENSOR_SESSION, receive_maximum=TENSORS_IN_FLIGHT
        )
        tensors.subscribe(TENSOR, self._on_tensor, receiver=AGGREGATOR_INBOX)
        # On this connection, because it has a session: without its placement an output counts for nothing.
        tensors.subscribe(JOB_PLACED, self._on_placed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._service.run()

    # --- tasks -------------------------------------------------------------------------------------

    async def _on_tensor(self, received: Received[TensorHeader]) -> None:
        try:
            await self._add(received.message, received.body)
        except FrameError as error:
            self._bus.statistics.rejected += 1
            log.debug("rejected an output: %s", error)

    async def _add(self, header: TensorHeader, body: memoryview) -> None:
        """Add one frame. Raises FrameError if it is not a chunk of an output that fits its task."""
        if not self._core.may_send(header):  # before its first chunk reserves memory
            raise FrameError(f"{header.task}: {header.stage} was not placed on {header.sender}")
        tensor = self._assembly.add(header, body, now_ms())
        if tensor is None:
            return
        if header.raw_bytes < THREAD_FROM_BYTES:
            output = _condensed(*tensor)
        else:
            output = await asyncio.to_thread(_condensed, *tensor)
        result = self._core.add(tensor[0], output, now_ms())
        self._publish(() if result is None else (result,))

    async def _on_application(self, received: Received[Application]) -> None:
        self._scoreboard.add_application(received.message)
        self._publish(self._core.add_application(received.message, now_ms()))

    async def _on_placed(self, received: Received[TaskPlaced]) -> None:
        self._publish(self._core.place(received.message, now_ms()))

    async def _on_settle(self, received: Received[SettleTask]) -> None:
        result = self._core.settle(received.message.task)
        self._publish(() if result is None else (result,))

    async def _on_finished(self, received: Received[TaskFinished]) -> None:
        finished = received.message
        self._scoreboard.count(finished)
        self._assembly.drop(finished.task, finished.attempt)
        self._core.finish(finished.task, finished.attempt, now_ms())

    def _publish(self, results: Iterable[TaskResult]) -> None:
        for result in results:
            self._bus.send(JOB_RESULT, result)

    async def _expire(self) -> None:
        self._assembly.expire(now_ms())
        self._core.expire(now_ms())

    # --- metrics -----------------------------------------------------------------------------------

    async def _publish_all_again(self) -> None:
        """Count every board as changed: the broker may be a new one."""
        self._scoreboard.show_all_again()

    async def _publish_metrics(self) -> None:
        for (kind, name), metrics in list(self._scoreboard.news()):
            topic = _TOPICS[kind]
            await self._bus.publish(topic, metrics, **dict.fromkeys(topic.parameters, name))


def _condensed(header: TensorHeader, encoded: Buffer) -> Condensed:
    return condense(decode_tensor(header, encoded))
