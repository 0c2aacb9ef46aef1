"""The edge node: receives tensors, runs fragments on them, sends the outputs on.

See docs/decisions/0005-edge-node.md. Two connections, so that control messages never wait behind tensors.
"""

import asyncio
import logging
import platform
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import numpy as np
import onnxruntime as ort

from splitplace.bus.assembly import TensorAssembly
from splitplace.bus.client import TENSOR_SESSION
from splitplace.bus.connection import Bus, Received
from splitplace.bus.service import new_boot_id, software_version
from splitplace.edge_node.benchmark import measure_score
from splitplace.edge_node.catalogue import Catalogue
from splitplace.edge_node.executor import Done, Executor, Failure, now_ms
from splitplace.edge_node.fetcher import Fetcher
from splitplace.edge_node.fragment_store import FragmentStore
from splitplace.edge_node.loader import Loader
from splitplace.edge_node.memory import MemoryBudget
from splitplace.edge_node.outbox import Outbox
from splitplace.edge_node.queue import JobQueue, MicroBatchJob, PushOutcome
from splitplace.edge_node.runtime import give_back_memory
from splitplace.edge_node.settings import NodeSettings
from splitplace.edge_node.vitals import Meter, VitalsSample
from splitplace.messages.cluster import (
    MAX_FRAGMENTS_LISTED,
    CancelTask,
    FailureKind,
    NodeInfo,
    NodeStatus,
    NodeVitals,
    PrepareFragments,
    StageFailure,
)
from splitplace.messages.frames import Buffer, FrameError, Route, TensorHeader, encode_tensor
from splitplace.messages.limits import MAX_BATCH, MAX_STAGES, MEBIBYTE
from splitplace.messages.topics import (
    APPLICATION,
    NODE_CANCEL,
    NODE_FAILURE,
    NODE_INFO,
    NODE_PREPARE,
    NODE_STATUS,
    NODE_VITALS,
    TENSOR,
)

log = logging.getLogger(__name__)

TENSORS_ON_THE_WAY = 64
"""Unacknowledged frames the broker may have on the way to us: at most 16 MiB."""
_GOODBYE_S = 1.0


class Agent:
    """One node. `run` works until it is cancelled."""

    def __init__(self, settings: NodeSettings, *, score: float, encode_megabytes_per_second: float) -> None:
        """A node that is not connected yet. Call on a running event loop.

        Args:
            settings: name, limits, broker.
            score: what `measure_score` gave, times the pace.
            encode_megabytes_per_second: speed of the tensor codec here.

        Raises:
            OSError: the folder of fragments cannot be used.
        """
        self._settings = settings
        self._node = settings.node
        self._boot = new_boot_id()
        self._started_s = time.monotonic()
        self._rejected = 0
        self._executed_before = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

        self._control = Bus(
            settings,
            f"splitplace-node-{self._node}",
            will=(NODE_STATUS.at(node=self._node), self._status(online=False)),
        )
        self._tensors = Bus(
            settings,
            f"splitplace-node-{self._node}-tensors",
            session=TENSOR_SESSION,
            receive_maximum=TENSORS_ON_THE_WAY,
        )
        self._catalogue = Catalogue(score)
        queue_bytes = int(settings.queue_mb * MEBIBYTE)
        self._assembly = TensorAssembly(max_bytes=queue_bytes)
        self._store = FragmentStore(settings.fragment_folder, int(settings.fragment_store_mb * MEBIBYTE))
        self._executor = Executor(
            JobQueue(max_bytes=queue_bytes),
            self._deliver,
            compress=settings.compress,
            pace=settings.pace,
            call_ms=self._catalogue.call_ms,
        )
        self._loader = Loader(
            catalogue=self._catalogue,
            store=self._store,
            executor=self._executor,
            budget=MemoryBudget(settings.memory_budget_bytes),
            fetch=Fetcher(self._tensors, self._store, self._node).fetch,
            on_failure=self._on_load_failure,
        )
        self._outbox = Outbox(self._tensors, self._node)
        self._meter = Meter(settings.cpu_share or settings.cores)
        self._info = NodeInfo(
            node=self._node,
            boot=self._boot,
            score=score,
            cores=settings.cores,
            cpu_share=settings.cpu_share,
            memory_budget_bytes=settings.memory_budget_bytes,
            encode_megabytes_per_second=encode_megabytes_per_second,
            platform=platform.platform()[:200],
            software=f"splitplace {software_version()}, ONNX Runtime {ort.__version__}",
        )
        self._control.subscribe(APPLICATION, self._loader.on_application)
        self._control.subscribe(NODE_PREPARE, self._on_prepare, node=self._node)
        self._control.subscribe(NODE_CANCEL, self._on_cancel, node=self._node)
        self._control.on_connect(self._announce)
        self._tensors.subscribe(TENSOR, self._on_tensor, node=self._node)

    async def run(self) -> None:
        """Work until cancelled; then say goodbye."""
        self._executor.start()
        try:
            async with self._tensors, self._control:
                try:
                    await self._report_vitals()
                finally:
                    await self._say_goodbye()
                    await self._loader.stop()
        finally:
            await asyncio.to_thread(self._executor.stop)
            for task in tuple(self._tasks):
                task.cancel()

    # --- what comes in -----------------------------------------------------------------------------

    async def _on_tensor(self, received: Received[TensorHeader]) -> None:
        header = received.message
        try:
            route = self._checked_route(header)
            complete = self._assembly.add(header, received.body, now_ms())
        except FrameError as error:
            self._rejected += 1
            log.debug("rejected a tensor: %s", error)
            return
        if complete is not None:
            self._accept(complete[0], route, complete[1])

    def _checked_route(self, header: TensorHeader) -> Route:
        """The header's route. Raises FrameError where this node is not meant to, or cannot, follow it."""
        route = header.route
        if route is None or route.node != self._node or route.stage != header.stage:
            raise FrameError(f"the route does not lead to {self._node}: {route}")
        if header.shape[0] > MAX_BATCH or header.micro_batch >= header.micro_batches:
            raise FrameError(
                f"micro-batch {header.micro_batch} of {header.micro_batches}, {header.shape[0]} images"
            )
        if len(header.trace) >= MAX_STAGES:
            raise FrameError(f"{len(header.trace)} stages were run before")
        return route

    def _accept(self, header: TensorHeader, route: Route, encoded: Buffer) -> None:
        arrived_ms = now_ms()
        measured_ms = self._executor.milliseconds_per_image(route.fragment)
        job = MicroBatchJob(
            header=header,
            route=route,
            encoded=encoded,
            arrived_ms=arrived_ms,
            ends_ms=arrived_ms + header.expires_ms,
            expected_ms=self._catalogue.expected_ms(route.fragment, header.shape[0], measured_ms),
        )
        admission = self._executor.push(job)
        if admission is PushOutcome.ACCEPTED:
            self._loader.want(route.fragment)
        elif admission is PushOutcome.FULL:
            self._fail((job,), "busy", "the queue is full")

    async def _on_prepare(self, received: Received[PrepareFragments]) -> None:
        wanted = received.message
        if wanted.when_idle:
            self._loader.want_when_idle(wanted.fragments)
            return
        for fragment in wanted.fragments:
            self._loader.want(fragment)

    async def _on_cancel(self, received: Received[CancelTask]) -> None:
        task, attempt = received.message.task, received.message.attempt
        self._executor.cancel(task, attempt)
        self._assembly.drop(task, attempt)
        self._loader.something_changed()

    # --- what goes out -----------------------------------------------------------------------------

    def _deliver(self, done: Done) -> None:
        """Called in the executor's thread."""
        self._loop.call_soon_threadsafe(self._on_done, done)

    def _on_done(self, done: Done) -> None:
        self._loader.something_changed()
        self._spawn(self._finish(done), "send output")

    async def _finish(self, done: Done) -> None:
        try:
            job, result = done.job, done.result
            if isinstance(result, Failure):
                self._fail((job,), result.kind, result.reason)
            elif self._executor.is_wanted(job.header.task, job.header.attempt):
                await self._outbox.send(done, result)
        finally:
            self._executor.sent()

    def _on_load_failure(self, fragment: str, kind: FailureKind, reason: str) -> None:
        log.warning("%s", reason)
        self._fail(self._executor.take(fragment), kind, reason)

    def _fail(self, jobs: tuple[MicroBatchJob, ...], kind: FailureKind, reason: str) -> None:
        """Report a failure once for every stage and attempt among the jobs."""
        stages = {(job.header.task, job.header.attempt, job.header.stage) for job in jobs}
        for task, attempt, stage in sorted(stages):
            failure = StageFailure(
                node=self._node, task=task, attempt=attempt, stage=stage, kind=kind, reason=reason[:1000]
            )
            self._control.send(NODE_FAILURE, failure)

    # --- what the node says of itself --------------------------------------------------------------

    def _status(self, *, online: bool) -> NodeStatus:
        return NodeStatus(node=self._node, boot=self._boot, online=online)

    async def _announce(self) -> None:
        await self._tensors.connected()  # who is online can be sent tensors
        await self._control.publish(NODE_INFO, self._info)
        await self._control.publish(NODE_STATUS, self._status(online=True))

    async def _say_goodbye(self) -> None:
        if self._control.is_connected:
            with suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await self._control.publish(NODE_STATUS, self._status(online=False))

    async def _report_vitals(self) -> None:
        while True:
            sample, stored = await asyncio.to_thread(self._look)
            self._executor.expire()
            self._assembly.expire(now_ms())
            self._loader.something_changed()
            await self._control.publish(NODE_VITALS, self._vitals(sample, stored))
            await asyncio.sleep(self._settings.vitals_every_s)

    def _look(self) -> tuple[VitalsSample, tuple[str, ...]]:
        """In a thread: files below /proc and on disk."""
        load = self._executor.load()
        if not load.queue_length and load.executed != self._executed_before:
            self._executed_before = load.executed
            give_back_memory()  # of tensors: hundreds of megabytes were measured to stay after a burst
        return self._meter.sample(), self._store.fragments()

    def _vitals(self, sample: VitalsSample, stored: tuple[str, ...]) -> NodeVitals:
        load = self._executor.load()
        seen = (self._control.statistics, self._tensors.statistics)
        return NodeVitals(
            node=self._node,
            boot=self._boot,
            uptime_s=time.monotonic() - self._started_s,
            cpu_ratio=sample.cpu_ratio,
            resident_bytes=sample.resident_bytes,
            loaded_bytes=self._loader.loaded_bytes,
            loaded=self._loader.loaded[-MAX_FRAGMENTS_LISTED:],
            stored=stored[:MAX_FRAGMENTS_LISTED],
            queue_length=load.queue_length,
            queue_ms=load.queue_ms,
            timings=load.timings,
            load_ms=self._loader.load_ms,
            executed=load.executed,
            dropped=load.dropped + self._outbox.expired,
            rejected=self._rejected + sum(bus.rejected + bus.overflowed for bus in seen),
            sent_bytes=sum(bus.sent_bytes for bus in seen),
            received_bytes=sum(bus.received_bytes for bus in seen),
            temperature_celsius=sample.temperature_celsius,
            throttled=sample.throttled,
            energy_joules=sample.energy_joules,
        )

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def measure_codec(*, compress: bool) -> float:
    """Speed of the tensor codec in MB/s, on a megabyte that looks like activations after a ReLU."""
    values = np.random.default_rng(0).standard_normal(1 << 18, dtype=np.float32).clip(min=0)
    runs = 4
    started_s = time.perf_counter()
    for _ in range(runs):
        encode_tensor(values, compress=compress)
    return runs * values.nbytes / 1e6 / (time.perf_counter() - started_s)


async def run(settings: NodeSettings) -> None:
    """Measure this machine, then be a node until cancelled."""
    # Pacing sleeps in proportion to CPU time, so CPU time is what its speed follows from: other processes
    # that start at the same moment must not count. Without it the device is as fast as the wall clock says.
    clock = time.thread_time if settings.pacing else time.perf_counter
    score = await asyncio.to_thread(measure_score, clock=clock) * settings.pace
    codec = await asyncio.to_thread(measure_codec, compress=settings.compress)
    log.info("node %s: score %.1f GFLOP/s, codec %.0f MB/s", settings.node, score, codec)
    await Agent(settings, score=score, encode_megabytes_per_second=codec).run()
