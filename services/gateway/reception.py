"""Receive tasks: refuse, answer again, or journal and begin each of them."""

import logging
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NoReturn

from splitplace.bus.background import now_ms
from splitplace.bus.incoming import RawReceived
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

    async def receive(self, raw: RawReceived) -> None:
        """Accept, refuse, or answer again one message on a task topic."""
        if raw.retained and not raw.payload:  # somebody clears the topic
            return
        arrived_ms = raw.arrived_ms
        self.counts["received"] += 1
        identity = identify(raw)
        task: TaskId | None = None
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
            task = identity.client, identity.task, submission.content
            reply = reply_to(raw, self._settings.prefix, identity.client)
            if is_old:
                await self._refuse_retained(submission)
            self._refuse_copy(task, arrived_ms)
            if not await self._is_repeated(submission, reply, arrived_ms):
                valid = await self._valid(raw, submission)
                self._refuse_copy(task, arrived_ms)  # the other was refused meanwhile
                await self._accept(valid, reply, arrived_ms)
        except _AlreadyToldError:
            log.debug("dropped a retained task of %s that came before", identity.client)
        except TaskRefusedError as refusal:
            if task is not None and refusal.kind in TRY_AGAIN:
                self._refused.add(task, refusal.kind, refusal.reason, now_ms())
            self._refuse(raw, refusal.identity or identity, refusal)

    def close(self) -> None:
        """Receive nothing more."""
        self._room.close()

    def turn_away(self, raw: RawReceived) -> None:
        """Refuse a message for which there is no room, unread."""
        self.counts["received"] += 1
        reason = "overloaded: too many messages wait at the gateway; try again later"
        self._refuse(raw, identify(raw), TaskRefusedError("overloaded", reason))

    def _refuse_copy(self, task: TaskId, arrived_ms: float) -> None:
        """Refuse a copy of a task that was just refused, in the same words."""
        if (told := self._refused.find(task, arrived_ms)) is not None:
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

    async def _is_repeated(self, submission: Submission, reply: ReplyTo, arrived_ms: float) -> bool:
        """Whether a task that could not be taken now was sent before; then it is answered again.

        Comes before any refusal, so that no task hears two different answers.
        """
        application = self._catalogue.applications.get(submission.application)
        if application is not None and self._overload(submission, application, arrived_ms) is None:
            return False  # `Journal.accept` looks
        known = await self._look_up(submission)
        return known is not None and self._repeat(known, reply)

    async def _look_up(self, submission: Submission) -> Known | None:
        identity = submission.identity
        if self._journal.is_new(identity.client, identity.task):
            return None
        try:
            return await self._journal.known(identity.client, identity.task, submission.content)
        except JournalError as error:
            self._cannot_write(error)

    async def _valid(self, raw: RawReceived, submission: Submission) -> ValidTask:
        application = await self._catalogue.find(submission.application)
        self._refuse_overload(submission, application, raw.arrived_ms)
        async with self._under_way.working_on(raw):
            if submission.is_costly:
                client = submission.identity.client
                return await self._room.run(client, partial(decode, submission, application))
            return decode(submission, application)

    def _overload(
        self, submission: Submission, application: Application, arrived_ms: float
    ) -> tuple[RefusalKind, str] | None:
        """Return why this task is not taken now; None if it is. Decodes nothing."""
        return self._admission.refusal(
            submission.identity.client,
            announced_batch(submission, application),
            announced_bytes(submission, application),
            arrived_ms + announced_deadline_ms(submission, application) - now_ms(),
            now_ms(),
        )

    def _refuse_overload(self, submission: Submission, application: Application, arrived_ms: float) -> None:
        if (overload := self._overload(submission, application, arrived_ms)) is not None:
            refuse(*overload)

    async def _accept(self, valid: ValidTask, reply: ReplyTo, arrived_ms: float) -> None:
        client, batch, size = valid.identity.client, len(valid.inputs), valid.inputs.nbytes
        left_ms = arrived_ms + valid.deadline_ms - now_ms()
        overload = self._admission.refusal(client, batch, size, left_ms, now_ms())
        if overload is not None:  # others came while this was decoded
            refuse(*overload)
        client, task = valid.identity.client, valid.identity.task
        accepted = moments.now().earlier((now_ms() - arrived_ms) / 1e3)
        entry = Entry(
            key=task_key(client, task, secrets.token_hex(INCARNATION_BYTES)),
            client=client,
            task=task,
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
        )
        try:
            known = await self._journal.accept(entry)
        except JournalError as error:
            self._cannot_write(error)
        if known is None:
            self.counts["accepted"] += 1
            self._begin(entry, arrived_ms)
        else:
            self._repeat(known, reply)

    def _cannot_write(self, error: JournalError) -> NoReturn:
        log.error("refusing tasks: %s", error)
        refuse("journal", "the gateway cannot write its journal now; try again later")

    def _repeat(self, known: Known, reply: ReplyTo) -> bool:
        """Answer a task that was sent before once more. An unfinished one gets its answer when it ends."""
        if known.is_other:
            reason = "this task id belongs to an unfinished task with other inputs; use another id, or wait"
            refuse("reused-id", reason)
        self.counts["repeated"] += 1
        if known.answer is not None:
            self._tell(repeated(known.answer, reply), reply)
        return True

    def _refuse(self, raw: RawReceived, identity: TaskIdentity, refusal: TaskRefusedError) -> None:
        self.refusals[refusal.kind] += 1
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
