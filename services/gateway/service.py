"""The gateway's shell: MQTT and real time on one side, the state machine and the journal on the other."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from itertools import chain
from math import inf
from typing import TypeVar

from pydantic import ValidationError

from splitplace.bus.cluster import subscribe_cluster
from splitplace.bus.connection import RawReceived, Received
from splitplace.bus.exchange import Exchange
from splitplace.bus.identity import Session
from splitplace.bus.seldom import SeldomWarnings
from splitplace.bus.service import Service, now_ms, software_version
from splitplace.bus.subscriptions import Rest
from splitplace.messages import topics
from splitplace.messages.cluster import CancelTask, ClusterState, NodeStatus, ServiceStatus, StageFailure
from splitplace.messages.frames import GATEWAY_SENDER
from splitplace.messages.groupings import GroupingError
from splitplace.messages.metrics import RefusalMetrics
from splitplace.messages.second_run import LostReplica, SecondRun
from splitplace.messages.task import Answer, SettleTask, TaskDecided, TaskPlaced, TaskResult
from splitplace.services.gateway import answers, moments
from splitplace.services.gateway.admission import Admission, Limits
from splitplace.services.gateway.alone import alone
from splitplace.services.gateway.catalogue import Catalogue
from splitplace.services.gateway.core import GatewayCore
from splitplace.services.gateway.delivery import Delivery
from splitplace.services.gateway.dispatch import input_frames
from splitplace.services.gateway.fitting import misfit
from splitplace.services.gateway.instructions import Announce, Cancel, Dispatch, Finish, Instruction, Settle
from splitplace.services.gateway.journal import Damaged, Entry, Journal, JournalError, ReplyTo
from splitplace.services.gateway.metrics import gateway_metrics
from splitplace.services.gateway.reception import Reception
from splitplace.services.gateway.retain_flag import RetainFlag
from splitplace.services.gateway.sensor_figures import SensorFigures
from splitplace.services.gateway.settings import GatewaySettings
from splitplace.services.gateway.task import NewTask, unbegun
from splitplace.services.gateway.under_way import UnderWay
from splitplace.storage.client_secret import kept_secret

log = logging.getLogger(__name__)

T = TypeVar("T")

METRICS_PERIOD_S = 1.0
FORGET_PERIOD_S = 60.0
INTAKE_SESSION = Session(expiry_s=300, clean_start=False, live_only=True)
INTAKE_WORKERS = 96
"""Messages that are received at once; a few sensors that flood do not fill them."""
FRAMES_AT_ONCE = 16
JOURNAL_RETRY_S = 1.0
MEGABYTE = 1e6
MAX_ATTEMPT = 1000
"""What messages can carry."""


class Gateway:
    """The gateway: accepts tasks and drives each to its one answer."""

    def __init__(self, settings: GatewaySettings, journal: Journal, exchange: Exchange | None = None) -> None:
        self._settings = settings
        self._journal = journal
        self._entries: dict[str, Entry] = {}
        self._nodes: dict[str, str] = {}
        self._services: dict[str, str] = {}
        limits = Limits(settings.max_tasks, settings.max_input_mb * MEGABYTE)
        self._admission = Admission(limits)
        file = settings.journal_file.with_name(f"{settings.journal_file.name}.under-way")
        self._under_way = UnderWay(file, software_version())
        self._waiting: dict[str, NewTask] = {}
        """Accepted tasks that were not begun."""
        self._service = Service(topics.GATEWAY, settings, exchange=exchange)
        self._service.reports(lambda: journal.trouble)
        self._warnings = SeldomWarnings(log)
        self._bus = self._service.bus
        self._catalogue = Catalogue(lambda: self._bus.is_connected, lambda: self._bus.connections)
        self._applications = self._catalogue.applications
        self._core = GatewayCore(settings.retry_rules, self._applications)
        # Tasks have a connection of their own: the broker keeps them while the gateway is away, and a
        # flood of them does not hold up control messages. So have answers: where the broker closes the
        # connection over one of them, everything else goes on.
        self._intake = self._service.connection(
            "intake", session=INTAKE_SESSION, secret=kept_secret(settings.paths.gateway_client_id)
        )
        self._answers = self._service.connection("answers")
        self._delivery = Delivery(self._answers)
        self._sensors = SensorFigures(self._service.figures, self._applications, self._admission)
        self._retain_flag = RetainFlag(self._service.boot)
        self._reception = Reception(
            settings,
            journal,
            self._catalogue,
            self._admission,
            self._under_way,
            retain_flag=self._retain_flag,
            begin=self._begin,
            tell=self._tell,
        )
        self._counts = self._reception.counts
        self._tensors = self._service.connection("tensors")
        self._alarm = self._service.alarm(self._on_time)
        self._service.every(METRICS_PERIOD_S, self._publish_metrics, online_only=True)
        self._service.every(FORGET_PERIOD_S, self._forget)
        self._subscribe()

    async def run(self) -> None:
        """Serve until cancelled."""
        await self._restore()
        self._service.spawn(self._journal.damaged(), "journal")
        with self._under_way, contextlib.closing(self._reception):
            await self._service.run()

    def _subscribe(self) -> None:
        bus = self._bus
        self._service.figures.own(topics.METRICS_REFUSALS)
        self._sensors.own()
        bus.on_connect(self._catalogue.connected)
        for topic in topics.TASKS:
            self._intake.subscribe_looking(
                topic, self._look, workers=INTAKE_WORKERS, overflow=self._reception.turn_away
            )
        self._intake.subscribe_raw(topics.SERVICE_STATUS, self._retain_flag.on_status, service=topics.GATEWAY)
        bus.subscribe_at_once(topics.JOB_DECIDED, self._on_decided)
        bus.subscribe_at_once(topics.JOB_PLACED, self._on_placed)
        bus.subscribe_at_once(topics.JOB_SECOND_RUN, self._on_second_run)
        bus.subscribe_at_once(topics.JOB_RESULT, self._on_result)
        bus.subscribe_at_once(topics.NODE_FAILURE, self._on_failure)
        bus.subscribe_at_once(topics.NODE_STATUS, self._on_node_status)
        subscribe_cluster(bus, self._on_cluster)
        bus.subscribe_at_once(topics.SERVICE_STATUS, self._on_service)
        bus.subscribe_at_once(
            topics.APPLICATION, self._catalogue.on_entry, cleared=self._catalogue.on_cleared
        )

    # --- intake ------------------------------------------------------------------------------------

    def _look(self, raw: RawReceived) -> Rest | None:
        if self._settings.credentials is not None and raw.retained and raw.payload:
            # Users may be strangers: what the broker keeps of them is never run and costs it memory.
            self._answers.post("/".join((topics.TASK_LEVEL, *raw.parameters.values())), b"", retain=True)
        return self._reception.look(raw)

    def _begin(self, entry: Entry, accepted_at_ms: float, attempt: int = 1) -> None:
        self._entries[entry.key] = entry
        task = NewTask(
            key=entry.key,
            application=entry.application,
            batch=len(entry.inputs),
            input_bytes=entry.inputs.nbytes,
            deadline_ms=entry.deadline_ms,
            accepted_at_ms=accepted_at_ms,
            attempt=attempt,
        )
        due_ms = accepted_at_ms + entry.deadline_ms
        if due_ms <= now_ms():  # it expires
            self._carry_out(self._core.accept(task, now_ms()))
            return
        self._waiting[entry.key] = task
        self._admission.ready(entry.key)
        self._take_turns()

    def _take_turns(self) -> None:
        """Begin the tasks whose turn it is, and refuse those that cannot be in time any more."""
        begun, refused = self._admission.turns(len(self._nodes), now_ms())
        for end in refused:
            self._end(unbegun(self._waiting.pop(end.key), end.reason, now_ms()))
        for key in begun:
            self._carry_out(self._core.accept(self._waiting.pop(key), now_ms()))
        self._set_alarm()

    def _end(self, finish: Finish) -> None:
        self._admission.ended(finish.key, now_ms(), answered=finish.status == "answered")
        self._service.spawn(self._finish(finish), "finishing a task")

    # --- stimuli -----------------------------------------------------------------------------------

    def _on_decided(self, received: Received[TaskDecided]) -> None:
        self._carry_out(self._core.decided(received.message, now_ms()))

    def _on_placed(self, received: Received[TaskPlaced]) -> None:
        self._carry_out(self._core.placed(received.message, now_ms()))

    def _on_second_run(self, received: Received[SecondRun]) -> None:
        self._carry_out(self._core.second_run(received.message, now_ms()))

    def _on_result(self, received: Received[TaskResult]) -> None:
        result = received.message
        task = self._core.tasks.get(result.task)
        problem = task and misfit(result, task, self._applications.get(task.accepted.application))
        if problem:
            self._bus.statistics.rejected += 1
            self._warnings.warn("result", "ignored a result of task %s: %s", result.task, problem)
            return
        self._carry_out(self._core.result(result, now_ms()))

    def _on_failure(self, received: Received[StageFailure]) -> None:
        self._carry_out(self._core.stage_failed(received.message, now_ms()))

    def _on_node_status(self, received: Received[NodeStatus]) -> None:
        status = received.message
        if status.online:
            self._nodes[status.node] = status.boot
        elif self._nodes.get(status.node) == status.boot:
            del self._nodes[status.node]
        self._carry_out(self._core.nodes_online(self._nodes, now_ms()))

    def _on_cluster(self, cluster: ClusterState) -> None:
        self._nodes = {node.node: node.boot for node in cluster.usable}
        stalled = {node.node: node.stalled for node in cluster.nodes if node.stalled}
        self._core.note_nodes(cluster.usable, now_ms())
        self._carry_out(self._core.nodes_online(self._nodes, now_ms(), stalled))

    def _on_service(self, received: Received[ServiceStatus]) -> None:
        status = received.message
        if not status.online:
            return
        before = self._services.get(status.service)
        self._services[status.service] = status.boot
        if before is not None and before != status.boot:
            self._carry_out(self._core.service_restarted(status.service, now_ms()))

    def _on_time(self) -> None:
        self._carry_out(self._core.time_passed(now_ms()))
        self._take_turns()

    # --- instructions ------------------------------------------------------------------------------

    def _carry_out(self, instructions: Iterable[Instruction]) -> None:
        has_room = False
        for instruction in instructions:
            match instruction:
                case Announce():
                    self._announce(instruction)
                case Dispatch():
                    self._service.spawn(alone(self._dispatch, instruction), "dispatching a task")
                case Cancel(key, attempt, nodes, numbers):
                    for node in nodes:
                        cancel = CancelTask(node=node, task=key, attempt=attempt, micro_batches=numbers)
                        self._bus.send(topics.NODE_CANCEL, cancel)
                case LostReplica():
                    self._bus.send(topics.JOB_LOST_REPLICA, instruction)
                case Settle(key):
                    self._bus.send(topics.JOB_SETTLE, SettleTask(task=key))
                case Finish():
                    self._end(instruction)
                    has_room = True
        if has_room:
            self._take_turns()
        self._set_alarm()

    def _set_alarm(self) -> None:
        due_ms = min(self._core.next_due_ms, self._admission.next_due_ms)
        self._alarm.set(due_ms if due_ms < inf else None)

    def _announce(self, announce: Announce) -> None:
        """Announce an attempt once it stands in the journal, as the first does already."""
        entry = self._entries.get(announce.key)
        if entry is not None and announce.attempt > entry.attempt:
            self._service.spawn(alone(self._announce_later, announce), "announcing an attempt")
            return
        try:
            self._bus.send(topics.JOB_ACCEPTED, announce.message(now_ms()))
        except Exception:  # it stalls and is tried again, and the others go on
            log.exception("announcing an attempt")

    async def _announce_later(self, announce: Announce) -> None:
        """Journal an attempt before anybody hears of it."""
        await self._written(partial(self._journal.begin_attempt, announce.key, announce.attempt))
        if self._core.is_current(announce.key, announce.attempt):
            self._bus.send(topics.JOB_ACCEPTED, announce.message(now_ms()))

    async def _dispatch(self, dispatch: Dispatch) -> None:
        entry = self._entries.get(dispatch.key)
        application = self._applications.get(dispatch.application)
        if entry is None or application is None:
            return
        placed, second, expires_ms = dispatch.placed, dispatch.second, dispatch.expires_at_ms - now_ms()
        try:
            frames = chain.from_iterable(
                input_frames(application, placed, entry.inputs, expires_ms, compress=False, second=part)
                for part in (second.parts if second is not None else (None,))
            )
            pending: list[Awaitable[None]] = []
            for node, frame in frames:
                pending.append(
                    self._tensors.send_frame(topics.TENSOR, frame, receiver=node, sender=GATEWAY_SENDER)
                )
                if len(pending) == FRAMES_AT_ONCE:
                    await asyncio.gather(*pending)
                    pending.clear()
            await asyncio.gather(*pending)
        except (KeyError, GroupingError) as error:
            log.warning("placement of %s does not fit its application: %r", dispatch.key, error)

    async def _finish(self, finish: Finish) -> None:
        entry = self._entries.pop(finish.key)
        application = self._applications.get(entry.application)
        try:
            answer = answers.answer(finish, entry, application)
            outcome = answers.finished(finish, application, entry.labels, entry.reply.traceparent)
        except ValidationError as error:  # costs this task its result, and no other
            log.exception("the result of task %s cannot be expressed", entry.key)
            answer, outcome = answers.without_result(entry, f"its result is not valid: {error}"), None
        if await self._written(partial(self._journal.finish, entry.key, answer)):
            self._counts["finished"] += 1
            self._sensors.count(answer, was_accepted=True)
            if outcome is not None:
                self._bus.send(topics.JOB_FINISHED, outcome)
            await self._deliver(entry.key, answer, entry.reply)

    def _tell(self, answer: Answer, reply: ReplyTo) -> None:
        """Publish an answer that the journal does not wait for."""
        if not answer.repeated:
            self._sensors.count(answer, was_accepted=False)
        self._delivery.tell(answer, reply)

    async def _deliver(self, key: str, answer: Answer, reply: ReplyTo) -> None:
        taken = await self._delivery.send(answer, reply)
        self._journal.delivered(key, taken=taken)

    async def _written(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write to the journal, however long the disk is full: nobody may hear of what it does not hold."""
        while True:
            try:
                return await write()
            except JournalError as error:
                self._warnings.warn("journal", "%s; trying again", error)
                await asyncio.sleep(JOURNAL_RETRY_S)

    # --- upkeep ------------------------------------------------------------------------------------

    async def _restore(self) -> None:
        """Deliver the answers and retry the tasks that an earlier process left."""
        undelivered, unreadable = await self._written(self._journal.undelivered)
        unfinished, damaged = await self._written(self._journal.unfinished)
        for left in undelivered:
            self._service.spawn(self._deliver(left.key, left.answer, left.reply), "delivering an answer")
        for row in (*unreadable, *damaged):
            self._give_up(row)
        now, started_ms = moments.now(), now_ms()
        for entry in unfinished:
            most_s = (entry.deadline_ms + self._settings.grace_ms) / 1e3
            passed_ms = 1e3 * moments.passed_s(entry.accepted, now, most_s)
            accepted_at_ms = started_ms - passed_ms
            self._admission.add(
                entry.key,
                entry.client,
                kind=entry.application,
                batch=len(entry.inputs),
                input_bytes=entry.inputs.nbytes,
                due_ms=accepted_at_ms + entry.deadline_ms,
            )
            self._begin(entry, accepted_at_ms, min(entry.attempt + 1, MAX_ATTEMPT))

    def _give_up(self, row: Damaged) -> None:
        """Answer `failed` for a row that cannot be read; it stays in the journal."""
        try:
            answer = answers.damaged(row)
        except ValidationError:
            log.error("journal: nobody can be told of the damaged row %r", row.key)  # noqa: TRY400
            return
        self._service.spawn(self._deliver(row.key, answer, row.reply), "delivering an answer")

    async def _forget(self) -> None:
        try:
            await self._journal.forget()
        except JournalError as error:
            self._warnings.warn("forget", "old answers are kept: %s", error)

    async def _publish_metrics(self) -> None:
        metrics = gateway_metrics(
            self._counts, self._reception.refusals, self._core, self._admission.waiting, self._journal
        )
        self._service.figures.publish(topics.METRICS_GATEWAY, metrics)
        for reason, count in self._reception.refusals.items():
            refused = RefusalMetrics(reason=reason, count=count)
            self._service.figures.publish(topics.METRICS_REFUSALS, refused)
        self._sensors.publish()


async def serve(settings: GatewaySettings, exchange: Exchange | None = None) -> None:
    """Open the journal and run a gateway on it."""
    path = settings.journal_file
    async with Journal(
        path,
        durable=settings.durable,
        is_own=path == settings.paths.gateway_journal,
        keep_answers_s=settings.keep_answers_s,
    ) as journal:
        await Gateway(settings, journal, exchange).run()
