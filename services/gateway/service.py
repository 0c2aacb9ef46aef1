"""The gateway's shell: MQTT and real time on one side, the state machine and the journal on the other."""

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from math import inf
from typing import TypeVar

from splitplace.bus.client import Session
from splitplace.bus.connection import RawReceived, Received
from splitplace.bus.service import Service, now_ms
from splitplace.messages import topics
from splitplace.messages.application import Application
from splitplace.messages.cluster import CancelTask, ClusterState, NodeStatus, ServiceStatus, StageFailure
from splitplace.messages.metrics import RefusalMetrics
from splitplace.messages.task import Answer, SettleTask, TaskDecided, TaskPlaced, TaskResult
from splitplace.services.gateway import answers
from splitplace.services.gateway.core import GatewayCore
from splitplace.services.gateway.dispatch import input_frames
from splitplace.services.gateway.instructions import Announce, Cancel, Dispatch, Finish, Instruction, Settle
from splitplace.services.gateway.intake import (
    RefusalKind,
    TaskIdentity,
    TaskRefusedError,
    ValidTask,
    address_of_refusal,
    admit,
    identify,
    refuse,
)
from splitplace.services.gateway.journal import Entry, Journal, JournalError, ReplyTo
from splitplace.services.gateway.metrics import OUR_FAULT, gateway_metrics
from splitplace.services.gateway.reply import encoded, reply_to
from splitplace.services.gateway.settings import GatewaySettings
from splitplace.services.gateway.task import NewTask, RetryRules

log = logging.getLogger(__name__)

T = TypeVar("T")

METRICS_PERIOD_S = 1.0
FORGET_PERIOD_S = 60.0
INTAKE_SESSION = Session(expiry_s=300, clean_start=False)
CATALOGUE_WAIT_MS = 3000.0
INTAKE_WORKERS = 32
SMALL_PAYLOAD_BYTES = 16 * 1024
"""Below it, decoding costs less than handing it to a thread."""
FRAMES_AT_ONCE = 16
JOURNAL_RETRY_S = 1.0
MEGABYTE = 1e6


class Gateway:
    """The gateway: accepts tasks and drives each to its one answer."""

    def __init__(self, settings: GatewaySettings, journal: Journal) -> None:
        self._settings = settings
        self._journal = journal
        self._applications: dict[str, Application] = {}
        rules = RetryRules(
            grace_ms=settings.grace_ms,
            max_attempts=settings.max_attempts,
            stall_ms=settings.stall_ms,
            least_coverage=settings.least_coverage,
        )
        self._core = GatewayCore(rules, self._applications)
        self._entries: dict[str, Entry] = {}
        self._news = asyncio.Event()
        self._nodes: dict[str, str] = {}
        self._services: dict[str, str] = {}
        self._held_bytes = 0
        self._started_ms = now_ms()
        self._counts: Counter[str] = Counter()
        self._refusals: Counter[RefusalKind] = Counter()
        self._service = Service(topics.GATEWAY, settings)
        self._bus = self._service.bus
        # Tasks have a connection of their own: the broker keeps them while the gateway is away, and a
        # flood of them does not hold up control messages.
        self._intake = self._service.connection("intake", session=INTAKE_SESSION)
        self._tensors = self._service.connection("tensors")
        self._alarm = self._service.alarm(self._on_time)
        self._service.every(METRICS_PERIOD_S, self._publish_metrics, online_only=True)
        self._service.every(FORGET_PERIOD_S, self._forget)
        self._subscribe()

    async def run(self) -> None:
        """Serve until cancelled."""
        await self._restore()
        await self._service.run()

    def _subscribe(self) -> None:
        bus = self._bus
        for topic in (topics.TASK, topics.TASK_OF_CLIENT, topics.TASK_NAMED):
            self._intake.subscribe_raw(topic, self._on_task, workers=INTAKE_WORKERS)
        bus.subscribe(topics.JOB_DECIDED, self._on_decided)
        bus.subscribe(topics.JOB_PLACED, self._on_placed)
        bus.subscribe(topics.JOB_RESULT, self._on_result)
        bus.subscribe(topics.NODE_FAILURE, self._on_failure)
        bus.subscribe(topics.NODE_STATUS, self._on_node_status)
        bus.subscribe(topics.CLUSTER_STATE, self._on_cluster)
        bus.subscribe(topics.SERVICE_STATUS, self._on_service)
        bus.subscribe(topics.APPLICATION, self._on_application)

    # --- intake ------------------------------------------------------------------------------------

    async def _on_task(self, raw: RawReceived) -> None:
        arrived_ms = now_ms()
        self._counts["received"] += 1
        identity = identify(raw)
        await self._catalogue(raw.parameters["application"])
        try:
            if len(raw.payload) > SMALL_PAYLOAD_BYTES:
                valid = await asyncio.to_thread(admit, raw, identity, self._applications)
            else:
                valid = admit(raw, identity, self._applications)
            self._check_load(valid)
            reply = reply_to(raw, self._settings.prefix, valid.identity.client)
            await self._accept(valid, reply, arrived_ms)
        except TaskRefusedError as refusal:
            self._refuse(raw, address_of_refusal(raw, identity), refusal)

    async def _catalogue(self, application: str) -> None:
        """Wait for the catalogue: after a start, tasks from the broker may overtake the retained entries."""
        remaining_s = (self._started_ms + CATALOGUE_WAIT_MS - now_ms()) / 1e3
        if application in self._applications or remaining_s <= 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(remaining_s):
                while application not in self._applications:
                    self._news.clear()
                    await self._news.wait()

    def _check_load(self, valid: ValidTask) -> None:
        held = self._held_bytes + valid.inputs.nbytes
        unfinished = len(self._core.tasks)
        if unfinished >= self._settings.max_tasks or held > self._settings.max_input_mb * MEGABYTE:
            reason = f"overloaded: {unfinished} unfinished tasks; try again later"
            refuse("overloaded", reason)

    async def _accept(self, valid: ValidTask, reply: ReplyTo, arrived_ms: float) -> None:
        entry = Entry(
            key=valid.identity.key,
            client=valid.identity.client,
            task=valid.identity.task,
            application=valid.application,
            deadline_ms=valid.deadline_ms,
            accepted_unix_s=time.time() - (now_ms() - arrived_ms) / 1e3,
            attempt=1,
            inputs=valid.inputs,
            labels=valid.labels,
            reply=reply,
        )
        try:
            known = await self._journal.accept(entry)
        except JournalError as error:
            log.error("refusing tasks: %s", error)  # noqa: TRY400 - the text says it all
            refuse("journal", "the gateway cannot write its journal now; try again later")
        if known is not None:
            self._counts["repeated"] += 1
            if known.answer is not None:
                repeated = known.answer.model_copy(update={"repeated": True})
                self._bus.spawn_publication(self._send_answer(repeated, reply))
            return
        self._counts["accepted"] += 1
        self._begin(entry, arrived_ms)

    def _begin(self, entry: Entry, accepted_at_ms: float) -> None:
        self._entries[entry.key] = entry
        self._held_bytes += entry.inputs.nbytes
        task = NewTask(
            key=entry.key,
            application=entry.application,
            batch=len(entry.inputs),
            input_bytes=entry.inputs.nbytes,
            deadline_ms=entry.deadline_ms,
            accepted_at_ms=accepted_at_ms,
            attempt=entry.attempt,
        )
        self._carry_out(self._core.accept(task, now_ms()))

    def _refuse(self, raw: RawReceived, identity: TaskIdentity, refusal: TaskRefusedError) -> None:
        self._refusals[refusal.kind] += 1
        name = raw.parameters.get("application", "")
        answer = Answer(
            task=identity.task,
            client=identity.client,
            application=name if name in self._applications else None,
            status="refused" if refusal.kind in OUR_FAULT else "invalid",
            reason=refusal.reason,
        )
        reply = reply_to(raw, self._settings.prefix, identity.client)
        self._bus.spawn_publication(self._send_answer(answer, reply))

    # --- stimuli -----------------------------------------------------------------------------------

    async def _on_decided(self, received: Received[TaskDecided]) -> None:
        self._carry_out(self._core.decided(received.message, now_ms()))

    async def _on_placed(self, received: Received[TaskPlaced]) -> None:
        self._carry_out(self._core.placed(received.message, now_ms()))

    async def _on_result(self, received: Received[TaskResult]) -> None:
        self._carry_out(self._core.result(received.message, now_ms()))

    async def _on_failure(self, received: Received[StageFailure]) -> None:
        self._carry_out(self._core.stage_failed(received.message, now_ms()))

    async def _on_node_status(self, received: Received[NodeStatus]) -> None:
        status = received.message
        if status.online:
            self._nodes[status.node] = status.boot
        elif self._nodes.get(status.node) == status.boot:
            del self._nodes[status.node]
        self._carry_out(self._core.nodes_online(self._nodes, now_ms()))

    async def _on_cluster(self, received: Received[ClusterState]) -> None:
        self._nodes = {node.node: node.boot for node in received.message.nodes if node.online}
        self._carry_out(self._core.nodes_online(self._nodes, now_ms()))

    async def _on_service(self, received: Received[ServiceStatus]) -> None:
        status = received.message
        if not status.online:
            return
        before = self._services.get(status.service)
        self._services[status.service] = status.boot
        if before is not None and before != status.boot:
            self._carry_out(self._core.service_restarted(status.service, now_ms()))

    async def _on_application(self, received: Received[Application]) -> None:
        self._applications[received.message.name] = received.message
        self._news.set()

    def _on_time(self) -> None:
        self._carry_out(self._core.time_passed(now_ms()))

    # --- instructions ------------------------------------------------------------------------------

    def _carry_out(self, instructions: Iterable[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Announce():
                    self._service.spawn(self._announce(instruction), "announcing an attempt")
                case Dispatch():
                    self._service.spawn(self._dispatch(instruction), "dispatching a task")
                case Cancel(key, attempt, nodes):
                    for node in nodes:
                        self._bus.send(topics.NODE_CANCEL, CancelTask(node=node, task=key, attempt=attempt))
                case Settle(key):
                    self._bus.send(topics.JOB_SETTLE, SettleTask(task=key))
                case Finish():
                    self._service.spawn(self._finish(instruction), "finishing a task")
        due_ms = self._core.next_due_ms
        self._alarm.set(due_ms if due_ms < inf else None)

    async def _announce(self, announce: Announce) -> None:
        """Journal an attempt before anybody hears of it. The first stands in the journal already."""
        entry = self._entries.get(announce.key)
        if entry is not None and announce.attempt > entry.attempt:
            await self._written(partial(self._journal.begin_attempt, announce.key, announce.attempt))
        if self._core.is_current(announce.key, announce.attempt):
            await self._bus.publish(topics.JOB_ACCEPTED, announce.message(now_ms()))

    async def _dispatch(self, dispatch: Dispatch) -> None:
        entry = self._entries.get(dispatch.key)
        application = self._applications.get(dispatch.application)
        if entry is None or application is None:
            return
        expires_ms = dispatch.expires_at_ms - now_ms()
        try:
            frames = input_frames(application, dispatch.placed, entry.inputs, expires_ms, compress=False)
            pending: list[Awaitable[None]] = []
            for node, frame in frames:
                pending.append(self._tensors.send_frame(topics.TENSOR, frame, node=node))
                if len(pending) == FRAMES_AT_ONCE:
                    await asyncio.gather(*pending)
                    pending.clear()
            await asyncio.gather(*pending)
        except KeyError as error:
            log.warning("placement of %s does not fit its application: %s is missing", dispatch.key, error)

    async def _finish(self, finish: Finish) -> None:
        entry = self._entries.pop(finish.key)
        self._held_bytes -= entry.inputs.nbytes
        application = self._applications.get(entry.application)
        answer = answers.answer(finish, entry, application)
        if await self._written(partial(self._journal.finish, entry.key, answer)):
            self._counts["finished"] += 1
            self._bus.send(topics.JOB_FINISHED, answers.finished(finish, application, entry.labels))
            await self._deliver(entry.key, answer, entry.reply)

    async def _deliver(self, key: str, answer: Answer, reply: ReplyTo) -> None:
        await self._send_answer(answer, reply)
        await self._written(partial(self._journal.delivered, key))

    async def _written(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write to the journal, however long the disk is full: nobody may hear of what it does not hold."""
        while True:
            try:
                return await write()
            except JournalError as error:
                log.error("%s; trying again", error)  # noqa: TRY400 - the text says it all
                await asyncio.sleep(JOURNAL_RETRY_S)

    async def _send_answer(self, answer: Answer, reply: ReplyTo) -> None:
        payload, properties = encoded(answer, reply)
        await self._bus.publish_raw(
            reply.response_topic or topics.ANSWER.at(client=answer.client, task=answer.task),
            payload,
            properties=properties,
            absolute=reply.response_topic is not None,
        )

    # --- upkeep ------------------------------------------------------------------------------------

    async def _restore(self) -> None:
        """Deliver the answers and retry the tasks that an earlier process left."""
        for left in await self._journal.undelivered():
            key = TaskIdentity(left.client, left.task).key
            self._service.spawn(self._deliver(key, left.answer, left.reply), "delivering an answer")
        unix_s, started_ms = time.time(), now_ms()
        for entry in await self._journal.unfinished():
            await self._journal.begin_attempt(entry.key, entry.attempt + 1)
            again = dataclasses.replace(entry, attempt=entry.attempt + 1)
            self._begin(again, started_ms - (unix_s - entry.accepted_unix_s) * 1e3)

    async def _forget(self) -> None:
        try:
            await self._journal.forget(self._settings.keep_answers_s)
        except JournalError as error:
            log.warning("old answers are kept: %s", error)

    async def _publish_metrics(self) -> None:
        metrics = gateway_metrics(self._counts, self._refusals, self._core, self._journal)
        self._bus.send(topics.METRICS_GATEWAY, metrics)
        for reason, count in self._refusals.items():
            self._bus.send(topics.METRICS_REFUSALS, RefusalMetrics(reason=reason, count=count))


async def serve(settings: GatewaySettings) -> None:
    """Open the journal and run a gateway on it."""
    async with Journal(settings.journal_file, durable=settings.durable) as journal:
        await Gateway(settings, journal).run()
