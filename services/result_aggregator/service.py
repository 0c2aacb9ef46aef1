"""The result aggregator's shell: connects its core and the scoreboard to the broker."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from functools import partial
from math import inf

from splitplace.bus.assembly import TensorAssembly
from splitplace.bus.connection import Received
from splitplace.bus.exchange import Exchange
from splitplace.bus.identity import TENSOR_SESSION
from splitplace.bus.service import Service, now_ms
from splitplace.bus.subscriptions import Rest
from splitplace.messages.application import Application
from splitplace.messages.frames import AGGREGATOR_INBOX, Buffer, FrameError, TensorHeader, decode_bundle
from splitplace.messages.limits import KIBIBYTE
from splitplace.messages.metrics import TaskMetrics
from splitplace.messages.second_run import LostReplica, SecondRun
from splitplace.messages.task import SettleTask, TaskFinished, TaskPlaced, TaskResult
from splitplace.messages.topics import (
    APPLICATION,
    JOB_FINISHED,
    JOB_LAGGING,
    JOB_LOST_REPLICA,
    JOB_PLACED,
    JOB_RESULT,
    JOB_SECOND_RUN,
    JOB_SETTLE,
    METRICS_APPLICATION,
    METRICS_DECISION,
    METRICS_TASKS,
    RESULT_AGGREGATOR,
    TENSOR,
    Topic,
)
from splitplace.services.result_aggregator.core import ResultAggregatorCore
from splitplace.services.result_aggregator.keeping import Kept, Unread, keep
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

    def __init__(self, settings: ResultAggregatorSettings, exchange: Exchange | None = None) -> None:
        """A result aggregator that does not run yet."""
        self._assembly = TensorAssembly()
        self._core = ResultAggregatorCore()
        self._scoreboard = Scoreboard()
        self._service = Service(RESULT_AGGREGATOR, settings, exchange=exchange)
        for topic in (METRICS_APPLICATION, METRICS_DECISION):
            self._service.figures.own(topic)
        self._service.every(METRICS_PERIOD_S, self._publish_metrics, online_only=True)
        self._service.every(EXPIRE_PERIOD_S, self._expire)
        self._bus = self._service.bus
        self._bus.subscribe(APPLICATION, self._on_application)
        self._bus.subscribe_at_once(JOB_FINISHED, self._on_finished)
        self._bus.subscribe_at_once(JOB_SETTLE, self._on_settle)
        tensors = self._service.connection(
            "tensors", session=TENSOR_SESSION, receive_maximum=TENSORS_IN_FLIGHT
        )
        tensors.subscribe_at_once(TENSOR, self._on_tensor, receiver=AGGREGATOR_INBOX)
        # On this connection, because it has a session: without its placement an output counts for nothing.
        tensors.subscribe_at_once(JOB_PLACED, self._on_placed)
        tensors.subscribe_at_once(JOB_SECOND_RUN, self._on_second_run)
        self._bus.subscribe_at_once(JOB_LOST_REPLICA, self._on_lost_replica)
        self._alarm = self._service.alarm(self._tell_lagging)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._service.run()

    # --- tasks -------------------------------------------------------------------------------------

    def _on_tensor(self, received: Received[TensorHeader]) -> Rest | None:
        try:
            return self._add(received.message, received.body)
        except FrameError as error:
            self._reject(error)
            return None

    def _reject(self, error: FrameError) -> None:
        self._bus.statistics.rejected += 1
        log.debug("rejected an output: %s", error)

    def _add(self, header: TensorHeader, body: memoryview) -> Rest | None:
        """Add one frame. Return what takes long of that, if its output is large.

        Raises:
            FrameError: it is not a chunk of an output that fits its task.
        """
        if not self._core.may_send(header):  # before its first chunk reserves memory
            raise FrameError(f"{header.task}: {header.stage} was not placed on {header.sender}")
        tensor = self._assembly.add(header, body, now_ms())
        if tensor is None:
            return None
        if header.raw_bytes >= THREAD_FROM_BYTES:
            return partial(self._add_large, *tensor)
        self._take(tensor[0], _kept(*tensor, self._core.application(header.application)))
        return None

    async def _add_large(self, header: TensorHeader, encoded: Buffer) -> None:
        """Read an output in a thread, and add it."""
        try:
            output = await asyncio.to_thread(
                _kept, header, encoded, self._core.application(header.application)
            )
            while isinstance(output, Unread) and (application := self._core.application(header.application)):
                output = await asyncio.to_thread(keep, header, output.arrays, application)
            self._take(header, output)
        except FrameError as error:
            self._reject(error)

    def _take(self, header: TensorHeader, output: Kept | Unread) -> None:
        result = self._core.add(header, output, now_ms())
        self._publish(() if result is None else (result,))

    async def _on_application(self, received: Received[Application]) -> None:
        application = received.message
        self._scoreboard.add_application(application)
        while (waiting := self._core.unread(application.name)) is not None:
            header, unread = waiting
            try:
                self._core.read(unread, await asyncio.to_thread(keep, header, unread.arrays, application))
            except FrameError as error:
                self._core.read(unread, None)
                self._reject(error)
        self._publish(self._core.add_application(application, now_ms()))

    def _on_placed(self, received: Received[TaskPlaced]) -> None:
        self._publish(self._core.place(received.message, now_ms()))
        self._set_alarm()

    def _on_second_run(self, received: Received[SecondRun]) -> None:
        self._core.second_run(received.message)

    def _tell_lagging(self) -> None:
        for lagging in self._core.lagging(now_ms()):
            self._bus.send(JOB_LAGGING, lagging)
        self._set_alarm()

    def _on_lost_replica(self, received: Received[LostReplica]) -> None:
        lagging = self._core.lost(received.message)
        if lagging is not None:
            self._bus.send(JOB_LAGGING, lagging)

    def _set_alarm(self) -> None:
        due_ms = self._core.lagging_at_ms
        self._alarm.set(due_ms if due_ms < inf else None)

    def _on_settle(self, received: Received[SettleTask]) -> None:
        result = self._core.settle(received.message.task)
        self._publish(() if result is None else (result,))

    def _on_finished(self, received: Received[TaskFinished]) -> None:
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

    async def _publish_metrics(self) -> None:
        for (kind, name), metrics in list(self._scoreboard.news()):
            topic = _TOPICS[kind]
            self._service.figures.publish(topic, metrics, **dict.fromkeys(topic.parameters, name))


def _kept(header: TensorHeader, encoded: Buffer, application: Application | None) -> Kept | Unread:
    arrays = decode_bundle(header, encoded)
    return Unread(arrays) if application is None else keep(header, arrays, application)
