"""The edge node: runs fragments on the tensors that it receives (docs/decisions/0005-edge-node.md)."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from itertools import zip_longest
from math import inf

from splitplace.bus.assembly import TensorAssembly
from splitplace.bus.connection import Received
from splitplace.bus.identity import TENSOR_SESSION
from splitplace.bus.service import Service, new_boot_id, now_ms
from splitplace.bus.upkeep import Upkeep
from splitplace.edge_node.about import about
from splitplace.edge_node.available_memory import room_for_fragments
from splitplace.edge_node.call import Failure
from splitplace.edge_node.catalogue import Catalogue
from splitplace.edge_node.disk import NodeDisk
from splitplace.edge_node.executor import Done, Executor
from splitplace.edge_node.fetcher import Fetcher
from splitplace.edge_node.lending import ActivationLender
from splitplace.edge_node.link_meter import LinkMeter
from splitplace.edge_node.loader import Loader
from splitplace.edge_node.memory import MemoryBudget
from splitplace.edge_node.news import News
from splitplace.edge_node.outbox import Outbox
from splitplace.edge_node.own_speed import OwnSpeed
from splitplace.edge_node.quarantine import Quarantine
from splitplace.edge_node.queue import JobQueue, MicroBatchJob, PushOutcome
from splitplace.edge_node.routes import checked_route
from splitplace.edge_node.sessions import give_back_memory
from splitplace.edge_node.settings import NodeSettings
from splitplace.edge_node.speed_keeper import SpeedKeeper
from splitplace.edge_node.stage_forms import StageForms
from splitplace.edge_node.trust import Trust
from splitplace.edge_node.vitals import Meter, VitalsSample
from splitplace.edge_node.watchdog import Activity, Watchdog
from splitplace.messages.application import Application
from splitplace.messages.cluster import (
    MAX_FRAGMENTS_LISTED,
    CancelTask,
    FailureKind,
    NodeInfo,
    NodeStatus,
    NodeVitals,
    PreparedFragment,
    PrepareFragments,
    StageFailure,
)
from splitplace.messages.frames import Buffer, FrameError, Route, TensorHeader
from splitplace.messages.limits import MEBIBYTE
from splitplace.messages.topics import (
    APPLICATION,
    AUTHORITY,
    NODE_CANCEL,
    NODE_FAILURE,
    NODE_INFO,
    NODE_PREPARE,
    NODE_VITALS,
    TENSOR,
)

log = logging.getLogger(__name__)

TENSORS_IN_FLIGHT = 64
"""Unacknowledged frames that the broker may have on the way to us: at most 16 MiB."""


_GATHER_MS = 20.0
"""Time from a change to an early heartbeat: fragments that begin to be loaded together are told together."""
_BEAT_PAUSE_MS = 200.0
"""Time between an early heartbeat and the one before."""


class Agent:
    """One node: the wiring of its parts, and what it does with each message."""

    def __init__(
        self,
        settings: NodeSettings,
        *,
        speed: OwnSpeed,
        encode_megabytes_per_second: float,
        end: Callable[[], None] | None = None,
    ) -> None:
        """A node that does not run yet. Call on a running event loop.

        Args:
            settings: name, limits, broker.
            speed: what was measured of this device.
            encode_megabytes_per_second: result of `measure_codec`.
            end: ends the process when work hangs; by default at once.

        Raises:
            OSError: the folder of fragments cannot be used.
        """
        self._settings = settings
        self._node = settings.node
        self._boot = new_boot_id()
        self._started_s = time.monotonic()
        self._rejected = 0
        self._executed_before = 0
        self._loop = asyncio.get_running_loop()
        self._info = about(settings, self._boot, speed.score, encode_megabytes_per_second)
        """What it offered when it was told last."""
        self._news = News()

        status = NodeStatus(node=self._node, boot=self._boot, online=False)
        self._service = Service(f"node-{self._node}", settings, status=status)
        self._own_info = Upkeep(self._service, NODE_INFO, node=self._node)
        self._service.on_connect(self._publish_info)
        self._service.every(settings.vitals_every_s, self._expire)
        self._service.every(settings.vitals_every_s, self._publish_vitals, online_only=True)
        self._beat = self._service.alarm(self._beat_now)
        self._beat_ms = -inf
        """When the last heartbeat was sent."""
        self._service.every(settings.vitals_every_s, self._tick_speed)
        self._control = self._service.bus
        self._control.subscribe_at_once(APPLICATION, self._on_application)
        self._control.subscribe_at_once(NODE_PREPARE, self._on_prepare, node=self._node)
        self._control.subscribe_at_once(NODE_CANCEL, self._on_cancel, node=self._node)
        if settings.credentials is not None:
            self._control.subscribe(AUTHORITY, Trust(settings).take)
        self._tensors = self._service.connection(
            "tensors", session=TENSOR_SESSION, receive_maximum=TENSORS_IN_FLIGHT
        )
        self._tensors.subscribe_at_once(TENSOR, self._on_tensor, receiver=self._node)

        queue_bytes = int(settings.queue_mb * MEBIBYTE)
        self._assembly = TensorAssembly(max_bytes=queue_bytes)
        self._link = LinkMeter(settings.link_megabytes_per_second)
        self._disk = NodeDisk(settings.fragment_folder, int(settings.fragment_store_mb * MEBIBYTE))
        self._store = self._disk.files
        self._forms = StageForms(
            self._disk,
            budget_bytes=settings.memory_budget_bytes,
            timeout_s=settings.prepare_timeout_s,
            gains=speed.gains,
        )
        self._catalogue = Catalogue(speed.score)
        budget = MemoryBudget(settings.memory_budget_bytes, room_for_fragments())
        self._speed = SpeedKeeper(speed, self._on_speed)
        self._quarantine = Quarantine(settings.fragment_folder)
        self._watchdog = Watchdog(
            floor_ms=1000 * settings.run_limit_s,
            activities=self._activities,
            blame=self._quarantine.blame,
            end=end,
        )
        clock = self._watchdog.awake_ms
        self._turn_ms = settings.vitals_every_s * 1000
        self._turned_ms = clock()
        self._executor = Executor(
            JobQueue(max_bytes=queue_bytes),
            self._deliver,
            compress=settings.compress,
            pace=settings.pace,
            call_ms=self._catalogue.call_ms,
            clock=clock,
            guard=self._quarantine,
            gains=speed.gains,
            lender=ActivationLender(self._activation_bytes, budget),
        )
        self._loader = Loader(
            catalogue=self._catalogue,
            store=self._store,
            executor=self._executor,
            budget=budget,
            gains=speed.gains,
            fetch=Fetcher(self._tensors, self._store, self._node, self._link).fetch,
            on_failure=self._on_load_failure,
            spawn=self._service.spawn,
            quarantine=self._quarantine,
            clock=clock,
            on_change=self._beat_soon,
            link=lambda: self._link.figures().down_megabytes_per_second,
            forms=self._forms,
        )
        self._outbox = Outbox(self._tensors, self._node, self._link)
        self._meter = Meter(settings.cpu_share or settings.cores)

    async def run(self) -> None:
        """Work until cancelled."""
        self._executor.start()
        self._watchdog.start()
        try:
            await self._service.run()
        finally:
            self._watchdog.stop()
            await asyncio.to_thread(self._forms.close)
            await asyncio.to_thread(self._executor.stop)

    def _activities(self) -> Iterator[Activity]:
        """Yield what is under way. Called in the watchdog's thread."""
        for running in self._executor.running():
            yield Activity("run", running.age_ms, running.fragment, running.expected_ms)
        for fragment, age_ms in self._loader.opening():
            yield Activity("load", age_ms, fragment)
        for fragment, age_ms in self._loader.preparing():
            # A child that prepares and one that measures, each with the timeout.
            yield Activity("prepare", age_ms, fragment, 2000 * self._forms.timeout_s)
        yield Activity("loop", self._watchdog.awake_ms() - self._turned_ms - self._turn_ms)

    # --- what comes in -----------------------------------------------------------------------------

    def _on_tensor(self, received: Received[TensorHeader]) -> None:
        header = received.message
        try:
            route = checked_route(header, self._node)
            self._loader.make_way()
            run = (header.task, header.attempt, header.sender, header.stage)
            self._link.frame(run, len(received.body), now_ms())
            complete = self._assembly.add(header, received.body, now_ms())
        except FrameError as error:
            self._rejected += 1
            log.debug("rejected a tensor: %s", error)
            return
        if complete is not None:
            self._enqueue(complete[0], route, complete[1])

    def _enqueue(self, header: TensorHeader, route: Route, encoded: Buffer) -> None:
        if route.run is not None:
            self._catalogue.add_run(route.fragment, header.application, route.run)
        arrived_ms = now_ms()
        measured = self._executor.measured(route.fragment)
        job = MicroBatchJob(
            header=header,
            route=route,
            encoded=encoded,
            arrived_ms=arrived_ms,
            ends_ms=arrived_ms + header.expires_ms,
            expected_ms=self._catalogue.expected_ms(route.fragment, header.images, measured),
        )
        outcome = self._executor.push(job)
        if outcome is PushOutcome.ACCEPTED:
            self._loader.want(route.fragment)
        elif outcome is PushOutcome.FULL:
            self._report_failure((job,), "busy", "the queue is full")

    def _activation_bytes(self, fragment: str) -> int | None:
        return self._loader.activation_bytes(fragment)

    def _on_application(self, received: Received[Application]) -> None:
        self._loader.add_application(received.message)

    def _on_prepare(self, received: Received[PrepareFragments]) -> None:
        wanted = received.message
        for fragment, run in zip_longest(wanted.fragments, wanted.runs[: len(wanted.fragments)]):
            if run is not None and wanted.application is not None:
                self._catalogue.add_run(fragment, wanted.application, run)
            if not wanted.when_idle:
                self._loader.want(fragment)
        if wanted.when_idle:
            self._loader.want_when_idle(wanted.fragments, wanted.gives_way)

    def _on_cancel(self, received: Received[CancelTask]) -> None:
        cancelled = received.message
        if cancelled.micro_batches:
            self._executor.cancel_first_run(cancelled.task, cancelled.attempt, cancelled.micro_batches)
            return
        self._executor.cancel(cancelled.task, cancelled.attempt)
        self._assembly.drop(cancelled.task, cancelled.attempt)
        self._loader.something_changed()

    async def _expire(self) -> None:
        self._turned_ms = self._watchdog.awake_ms()
        self._executor.expire()
        self._assembly.expire(now_ms())
        self._loader.something_changed()

    async def _tick_speed(self) -> None:
        await self._speed.tick(self._executor)

    def _on_speed(self, speed: OwnSpeed) -> None:
        self._catalogue.score = speed.score

    # --- what goes out -----------------------------------------------------------------------------

    def _deliver(self, done: Done) -> None:
        """Hand a result from the executor's thread to the event loop."""
        self._loop.call_soon_threadsafe(self._on_done, done)

    def _on_done(self, done: Done) -> None:
        self._loader.something_changed()
        self._service.spawn(self._send(done), "send output")

    async def _send(self, done: Done) -> None:
        job, result = done.job, done.result
        try:
            if isinstance(result, Failure):
                self._report_failure((job,), result.kind, result.reason)
            elif self._executor.is_wanted(job.header.task, job.header.attempt):
                await self._outbox.send(done, result)
        finally:
            self._executor.sent()

    def _on_load_failure(self, fragment: str, kind: FailureKind, reason: str) -> None:
        log.warning("%s", reason)
        self._report_failure(self._executor.take(fragment), kind, reason)

    def _report_failure(self, jobs: tuple[MicroBatchJob, ...], kind: FailureKind, reason: str) -> None:
        """Report a failure once for every stage and attempt among the jobs."""
        stages = {(job.header.task, job.header.attempt, job.header.stage) for job in jobs}
        for task, attempt, stage in sorted(stages):
            failure = StageFailure(
                node=self._node, task=task, attempt=attempt, stage=stage, kind=kind, reason=reason[:1000]
            )
            self._control.send(NODE_FAILURE, failure)

    # --- info and vitals ---------------------------------------------------------------------------

    async def _publish_info(self) -> None:
        info, alone, began_ms = self._info, self._link.sending(), now_ms()
        self._news.told(info, began_ms)
        try:
            await self._own_info.publish({NODE_INFO.name_of(info): info})
        except BaseException:
            self._link.given_up()
            raise
        self._link.acknowledged(len(NODE_INFO.encoded(info)), began_ms, now_ms(), alone=alone)

    def _beat_soon(self) -> None:
        """Send the next heartbeat early: who waits for a fragment must know that it is being loaded."""
        self._beat.set(max(now_ms() + _GATHER_MS, self._beat_ms + _BEAT_PAUSE_MS))

    def _beat_now(self) -> None:
        if self._control.is_connected:
            self._service.spawn(self._publish_vitals(), "early heartbeat")

    async def _publish_vitals(self) -> None:
        """Send a heartbeat, after news of the offer: what is loaded is told before its loading ends."""
        self._beat_ms = now_ms()
        sample, files, prepared = await asyncio.to_thread(self._sample)
        info, vitals = self._offer(self._catalogue.stored(files), prepared), self._vitals(sample)
        if self._news.is_due(info, now_ms()):
            self._info = info
            self._service.spawn(self._publish_info(), "info")
            await asyncio.sleep(0)  # no heartbeat waits for the broker
        await self._control.publish(NODE_VITALS, vitals)

    def _sample(self) -> tuple[VitalsSample, tuple[str, ...], tuple[PreparedFragment, ...]]:
        """Return use of the device, files on disk, and what is prepared. Blocks: reads /proc and the disk."""
        load = self._executor.load()
        if not load.queue_length and load.executed != self._executed_before:
            self._executed_before = load.executed
            give_back_memory()  # tensors of a burst: hundreds of megabytes were measured to stay otherwise
        self._store.check()
        return self._meter.sample(), self._store.files(), self._forms.report(self._catalogue)

    def _trouble(self) -> str:
        refused = [f"fragment {fragment[:12]} is put aside" for fragment in self._quarantine.refused()]
        return "; ".join([*filter(None, [self._store.trouble]), *refused])[:1000]

    def _offer(self, stored: tuple[str, ...], prepared: tuple[PreparedFragment, ...]) -> NodeInfo:
        return self._info.model_copy(
            update={
                "loaded": self._loader.loaded[-MAX_FRAGMENTS_LISTED:],
                "stored": stored[:MAX_FRAGMENTS_LISTED],
                "prepared": prepared[:MAX_FRAGMENTS_LISTED],
                "speed": self._speed.speed.message,
                "timings": self._outbox.ratios.added_to(self._executor.load().timings),
                "load_ms": self._loader.load_ms,
                "load_ms_per_megabyte": self._loader.load_ms_per_megabyte,
                "map_ms": self._loader.map_ms,
                "link": self._link.figures(),
            }
        )

    def _vitals(self, sample: VitalsSample) -> NodeVitals:
        load, seen = self._executor.load(), self._service.statistics
        up = self._link.figures().up_megabytes_per_second
        self._executor.compress = self._settings.compress_at(up)
        return NodeVitals(
            node=self._node,
            boot=self._boot,
            uptime_s=time.monotonic() - self._started_s,
            cpu_ratio=sample.cpu_ratio,
            resident_bytes=sample.resident_bytes,
            loaded_bytes=self._loader.loaded_bytes,
            mapped_bytes=self._loader.mapped_bytes,
            queue_length=load.queue_length,
            queue_ms=load.queue_ms,
            running=load.running,
            loading=self._loader.loading,
            loads=self._loader.loads[:MAX_FRAGMENTS_LISTED],
            trouble=self._trouble(),
            executed=load.executed,
            dropped=load.dropped + self._outbox.expired,
            rejected=self._rejected + seen.rejected + seen.overflowed,
            sent_bytes=seen.sent_bytes,
            received_bytes=seen.received_bytes,
            temperature_celsius=sample.temperature_celsius,
            throttled=sample.throttled,
            energy_joules=sample.energy_joules,
        )
