"""Receive tasks: refuse, answer again, or journal and begin each of them."""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NoReturn

from splitplace.bus.background import now_ms
from splitplace.bus.incoming import RawReceived
from splitplace.bus.subscriptions import Rest
from splitplace.messages.application import Application
from splitplace.messages.names import task_key
from splitplace.messages.task import Answer
from splitplace.services.gateway import moments
from splitplace.services.gateway.admission import Admission
from splitplace.services.gateway.catalogue import Catalogue
from splitplace.services.gateway.intake import (
    SMALL_BYTES,
    Submission,
    ValidTask,
    announced_batch,
    announced_bytes,
    announced_deadline_ms,
    decode,
    identify,
    read,
)
from splitplace.services.gateway.journal import Entry, Journal, JournalError, Known, ReplyTo
from splitplace.services.gateway.reading_room import ReadingRoom
from splitplace.services.gateway.recent_refusals import RecentRefusals, TaskId
from splitplace.services.gateway.refusals import (
    TRY_AGAIN,
    RefusalKind,
    TaskIdentity,
    TaskRefusedError,
    refuse,
)
from splitplace.services.gateway.reply import repeated, reply_to
from splitplace.services.gateway.retain_flag import RetainFlag
from splitplace.services.gateway.settings import GatewaySettings
from splitplace.services.gateway.under_way import UnderWay

log = logging.getLogger(__name__)

MAX_RETAINED = 1000
"""Retained tasks that are remembered, so that each is refused once."""
INCARNATION_BYTES = 4


class _AlreadyToldError(Exception):
    """The sender of a retained task has heard of it before."""


@dataclass(slots=True)
class _Turns:
    """Messages with the same names take turns."""

    users: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Reception:
    """The way of a message from the broker into the journal."""

    def __init__(
        self,
        settings: GatewaySettings,
        journal: Journal,
        catalogue: Catalogue,
        admission: Admission,
        under_way: UnderWay,
        *,
        retain_flag: RetainFlag,
        begin: Callable[[Entry, float], None],
        tell: Callable[[Answer, ReplyTo], None],
    ) -> None:
        """A reception for one gateway.

        Args:
            settings: its limits.
            journal: open.
            catalogue: the applications.
            admission: knows what is held, and what can be in time.
            under_way: notes what is parsed and decoded now.
            retain_flag: tells old tasks from those that were published with the flag now.
            begin: begins an accepted task; the second argument is when it arrived, in ms.
            tell: publishes an answer.
        """
        self.counts: Counter[str] = Counter()
        """`received`, `accepted` and `repeated` tasks."""
        self.refusals: Counter[RefusalKind] = Counter()
        self._settings = settings
        self._journal = journal
        self._catalogue = catalogue
        self._admission = admission
        self._under_way = under_way
        self._retain_flag = retain_flag
        self._begin = begin
        self._tell = tell
        self._room = ReadingRoom()
        self._retained: dict[str, None] = {}
        self._refused = RecentRefusals()
        self._names: dict[tuple[str, str], _Turns] = {}
        """Client and task of the messages that are being worked on."""

    def look(self, raw: RawReceived) -> Rest | None:
        """Refuse a message at once, where that needs no waiting. Return what is left to do with it."""
        if raw.retained and not raw.payload:  # somebody clears the topic
            return None
        self.counts["received"] += 1
        identity = identify(raw)
        if raw.retained or len(raw.payload) > SMALL_BYTES or self._under_way.is_suspect(raw):
            return partial(self._read, raw, identity)
        key = submission = None
        try:
            with self._under_way.working_at_once_on(raw):
                submission = read(raw, identity)
            identity = submission.identity
            name = identity.client, identity.task
            self._refuse_copy(submission, raw)
            application = self._catalogue.current(submission.application)
            if application is not None and name not in self._names and self._journal.is_new(*name):
                key = self._take_place(submission, application, raw)
        except TaskRefusedError as refusal:
            self._refuse(raw, refusal.identity or identity, refusal, submission)
            return None
        self._names[name] = self._names.get(name) or _Turns()
        self._names[name].users += 1
        return partial(self._go_on, raw, submission, key)

    async def _read(self, raw: RawReceived, identity: TaskIdentity) -> None:
        """Go on with a message that is not read on the event loop, or that the broker had kept."""
        try:
            is_old = await self._retain_flag.is_old(raw)
            if is_old:
                self._remember_retained(raw)
            async with self._under_way.working_on(raw):
                if len(raw.payload) > SMALL_BYTES:
                    submission = await self._room.run(identity.client, partial(read, raw, identity))
                else:
                    submission = read(raw, identity)
            identity = submission.identity
            if is_old:
                await self._refuse_retained(submission)
        except _AlreadyToldError:
            log.debug("dropped a retained task of %s that came before", identity.client)
        except TaskRefusedError as refusal:
            self._refuse(raw, refusal.identity or identity, refusal)
        else:
            name = identity.client, identity.task
            self._names[name] = self._names.get(name) or _Turns()
            self._names[name].users += 1
            await self._go_on(raw, submission, None)

    async def _go_on(self, raw: RawReceived, submission: Submission, key: str | None) -> None:
        """Accept, refuse, or answer again a message that was read.

        Messages with the same names take turns, so that no task hears two different answers.

        Args:
            raw: the message.
            submission: what was read in it.
            key: of its place in the line; None if it has none.
        """
        name = submission.identity.client, submission.identity.task
        turns = self._names[name]
        is_begun = False
        try:
            async with turns.lock:
                self._refuse_copy(submission, raw)
                reply = reply_to(raw, self._settings.prefix, submission.identity.client)
                known = await self._look_up(submission) if key is None else None
                if known is not None:
                    self._repeat(known, reply)
                    return
                application = await self._catalogue.find(submission.application)
                key = key or self._take_place(submission, application, raw)
                valid = await self._decoded(raw, submission, application)
                is_begun = await self._accept(valid, key, reply, raw.arrived_ms)
        except TaskRefusedError as refusal:
            self._refuse(raw, refusal.identity or submission.identity, refusal, submission)
        finally:
            if key is not None and not is_begun:
                self._admission.ended(key, now_ms(), answered=False)
            turns.users -= 1
            if not turns.users:
                del self._names[name]

    def close(self) -> None:
        """Receive nothing more."""
        self._room.close()

    def turn_away(self, raw: RawReceived) -> None:
        """Refuse a message for which there is no room, unread."""
        self.counts["received"] += 1
        reason = "overloaded: too many messages wait at the gateway; try again later"
        self._refuse(raw, identify(raw), TaskRefusedError("overloaded", reason))

    def _refuse_copy(self, submission: Submission, raw: RawReceived) -> None:
        """Refuse a copy of a task that was just refused, in the same words."""
        told = self._refused.find(_task_id(submission), raw.arrived_ms, redelivered=raw.redelivered)
        if told is not None:
            refuse(told.kind, told.reason)

    def _remember_retained(self, raw: RawReceived) -> None:
        """Drop what came before: the broker sends it at each new connection, and its sender hears so once."""
        name = "/".join(raw.parameters.values())
        if name in self._retained:
            raise _AlreadyToldError
        self._retained[name] = None
        if len(self._retained) > MAX_RETAINED:
            del self._retained[next(iter(self._retained))]

    async def _refuse_retained(self, submission: Submission) -> None:
        """Refuse a retained task, unless it ran when it was published: then its sender has its answer."""
        if await self._look_up(submission) is not None:
            raise _AlreadyToldError
        refuse("retained", "the task was published with the retain flag; publish it again without")

    async def _look_up(self, submission: Submission) -> Known | None:
        identity = submission.identity
        if self._journal.is_new(identity.client, identity.task):
            return None
        try:
            return await self._journal.known(identity.client, identity.task, submission.content)
        except JournalError as error:
            self._cannot_write(error)

    def _take_place(self, submission: Submission, application: Application, raw: RawReceived) -> str:
        """Give a task its place in the line before it is decoded, and return its key.

        Raises:
            TaskRefusedError: it cannot be in time, or too much is held.
        """
        client, batch = submission.identity.client, announced_batch(submission, application)
        size = announced_bytes(submission, application)
        due_ms = raw.since_ms + announced_deadline_ms(submission, application)
        now = now_ms()
        overload = self._admission.refusal(client, batch, size, due_ms - now, now)
        if overload is not None:
            refuse(*overload)
        key = task_key(client, submission.identity.task, secrets.token_hex(INCARNATION_BYTES))
        kind = submission.application
        self._admission.add(key, client, kind=kind, batch=batch, input_bytes=size, due_ms=due_ms)
        return key

    async def _decoded(self, raw: RawReceived, submission: Submission, application: Application) -> ValidTask:
        async with self._under_way.working_on(raw):
            if submission.is_costly:
                client = submission.identity.client
                return await self._room.run(client, partial(decode, submission, application))
            return decode(submission, application)

    async def _accept(self, valid: ValidTask, key: str, reply: ReplyTo, arrived_ms: float) -> bool:
        """Journal a task and begin it. Return False if it was known, and answered again."""
        accepted = moments.now().earlier((now_ms() - arrived_ms) / 1e3)
        entry = Entry(
            key=key,
            client=valid.identity.client,
            task=valid.identity.task,
            application=valid.application,
            deadline_ms=valid.deadline_ms,
            accepted_unix_s=accepted.unix_s,
            boot=accepted.boot,
            boot_s=accepted.boot_s,
            attempt=1,
            inputs=valid.inputs,
            labels=valid.labels,
            reply=replace(reply, warnings=(*reply.warnings, *valid.warnings)),
            content=valid.content,
            views=valid.views,
        )
        try:
            known = await self._journal.accept(entry)
        except JournalError as error:
            self._cannot_write(error)
        if known is not None:
            self._repeat(known, reply)
            return False
        self.counts["accepted"] += 1
        self._begin(entry, arrived_ms)
        return True

    def _cannot_write(self, error: JournalError) -> NoReturn:
        log.error("refusing tasks: %s", error)
        refuse("journal", "the gateway cannot write its journal now; try again later")

    def _repeat(self, known: Known, reply: ReplyTo) -> None:
        """Answer a task that was sent before once more. An unfinished one gets its answer when it ends."""
        if known.is_other:
            reason = "this task id belongs to an unfinished task with other inputs; use another id, or wait"
            refuse("reused-id", reason)
        self.counts["repeated"] += 1
        if known.answer is not None:
            self._tell(repeated(known.answer, reply), reply)

    def _refuse(
        self,
        raw: RawReceived,
        identity: TaskIdentity,
        refusal: TaskRefusedError,
        submission: Submission | None = None,
    ) -> None:
        self.refusals[refusal.kind] += 1
        if submission is not None and refusal.kind in TRY_AGAIN:
            self._refused.add(_task_id(submission), refusal.kind, refusal.reason, now_ms())
        name = raw.parameters.get("application", "")
        reply = reply_to(raw, self._settings.prefix, identity.client)
        answer = Answer(
            task=identity.task,
            client=identity.client,
            application=name if name in self._catalogue.applications else None,
            status="refused" if refusal.kind in TRY_AGAIN else "invalid",
            reason=refusal.reason,
            warnings=reply.warnings,
        )
        self._tell(answer, reply)


def _task_id(submission: Submission) -> TaskId:
    return submission.identity.client, submission.identity.task, submission.content
