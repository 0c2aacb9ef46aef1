"""The journal: every accepted task, in SQLite, written by one thread.

Writes that arrive while a transaction is under way share the next one, so that hundreds of tasks a second
cost few commits. With the default settings a write survives the death of the process (kill -9), not a power
failure; `durable` flushes the disk as well.

A row that cannot be read is quarantined: it stays in the file with the error beside it, and the others are
worked on.
"""

import contextlib
import json
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from splitplace.messages.base import Attempt, Name
from splitplace.messages.names import SensorName, TaskKey
from splitplace.messages.pictures import View
from splitplace.messages.task import Answer, Deadline
from splitplace.messages.trace_context import is_traceparent
from splitplace.services.gateway import moments
from splitplace.services.gateway.journal_file import CACHE_KIB, give_back
from splitplace.services.gateway.journal_thread import JournalError, JournalThread
from splitplace.services.gateway.moments import Moment

__all__ = ["Damaged", "Entry", "Journal", "JournalError", "Known", "ReplyTo", "Undelivered"]

log = logging.getLogger(__name__)

_COLUMNS = (
    "key, client, task, application, deadline_ms, accepted_unix_s, attempt, dtype, shape, inputs, labels,"
    " content, boot, boot_s, views, response_topic, correlation_data, packed, warnings, traceparent"
)
_IS_OLD = "(CASE WHEN finished_boot = ? THEN finished_boot_s < ? ELSE finished_unix_s < ? END)"
_REPLY_COLUMNS = "response_topic, correlation_data, packed, warnings, traceparent"
_VIEWS: TypeAdapter[tuple[View, ...]] = TypeAdapter(tuple[View, ...])
_DELIVERED, _UNDELIVERABLE = 1, 2
_CHECKS: Mapping[str, TypeAdapter[Any]] = {
    "key": TypeAdapter(TaskKey),
    "client": TypeAdapter(SensorName),
    "task": TypeAdapter(SensorName),
    "application": TypeAdapter(Name),
    "deadline_ms": TypeAdapter(Deadline),
    "attempt": TypeAdapter(Attempt),
}


@dataclass(frozen=True, slots=True)
class ReplyTo:
    """Where the answer goes, if not to `answer/<client>/<task>`."""

    response_topic: str | None = None
    correlation_data: bytes | None = None
    packed: bool = False
    """Whether the answer is msgpack, as the request was."""
    warnings: tuple[str, ...] = ()
    """What the sender should know beside the answer."""
    traceparent: str | None = None
    """The sender's span, given back with the answer."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An accepted task in the journal."""

    key: str
    client: str
    task: str
    application: str
    deadline_ms: float
    accepted_unix_s: float
    attempt: int
    inputs: NDArray[Any]
    labels: tuple[int, ...] | None
    reply: ReplyTo
    content: str | None = None
    """Hash of application and inputs; None in a journal of 0.1."""
    boot: str | None = None
    """Run of the machine in which it was accepted; None in older journals."""
    boot_s: float = 0.0
    """When it was accepted, by the clock of that run."""
    views: tuple[View, ...] = ()
    """Where the input lies on each picture, where answers name places on it."""

    @property
    def accepted(self) -> Moment:
        """When the task was accepted."""
        return Moment(self.accepted_unix_s, self.boot, self.boot_s)


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A terminal answer that the broker has not acknowledged."""

    key: str
    reply: ReplyTo
    answer: Answer


@dataclass(frozen=True, slots=True)
class Damaged:
    """A task whose row cannot be read. Its sender has no answer yet."""

    key: str
    client: str
    task: str
    reply: ReplyTo
    error: str


@dataclass(frozen=True, slots=True)
class Known:
    """A task id that was used before."""

    answer: Answer | None
    """None while the task is unfinished."""
    is_other: bool = False
    """Whether the id belongs to an unfinished task with other inputs."""


class Journal:
    """An asynchronous context manager. Methods wait until their write is in the file, if they wait."""

    def __init__(
        self,
        path: Path,
        *,
        durable: bool,
        is_own: bool = False,
        keep_answers_s: float = 3600.0,
        clock: Callable[[], Moment] = moments.now,
    ) -> None:
        """A journal that is not open yet.

        Args:
            path: the file.
            durable: flush the disk for every group of writes.
            is_own: whether the file is the gateway's whatever it holds: the default one of its state folder.
            keep_answers_s: how long after its end a task's id and inputs are remembered.
            clock: returns the present moment.
        """
        self._clock = clock
        self._keep_answers_s = keep_answers_s
        self._path = path
        self._thread = JournalThread(path, durable=durable, is_own=is_own)
        self._reader: sqlite3.Connection | None = None
        self._arriving: Counter[tuple[str, str]] = Counter()
        """Names of tasks whose rows are being written."""

    async def __aenter__(self) -> Self:
        await self._thread.start()
        with contextlib.suppress(sqlite3.Error, ValueError):  # then `is_new` says no
            where = f"{self._path.resolve().as_uri()}?mode=ro"
            self._reader = sqlite3.connect(where, uri=True, isolation_level=None, timeout=0.0)
            self._reader.execute(f"PRAGMA cache_size = {-CACHE_KIB}")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        await self._thread.stop()

    @property
    def mean_write_ms(self) -> float:
        """Mean time of a write since the start."""
        return 1e3 * self._thread.write_seconds / max(1, self._thread.writes)

    @property
    def trouble(self) -> str:
        """What is wrong with the file, as a sentence; empty if all is well."""
        failure = self._thread.failure
        refusing = f"journal {self._path}: {failure}; new tasks are refused" if failure else ""
        return "; ".join(filter(None, [refusing, self._thread.deleted, self._thread.finding]))

    @property
    def size_bytes(self) -> int:
        """Size of the file and its write-ahead log."""
        sizes = 0
        for path in (self._path, self._path.with_name(f"{self._path.name}-wal")):
            with contextlib.suppress(OSError):
                sizes += path.stat().st_size
        return sizes

    async def damaged(self) -> NoReturn:
        """Wait until the file turns out to be damaged while it is in use. Raises JournalError."""
        await self._thread.damaged()

    # --- operations --------------------------------------------------------------------------------

    async def accept(self, entry: Entry) -> Known | None:
        """Write a new task. Write nothing and return what is known of its id, if that is in use."""

        def write(connection: sqlite3.Connection) -> Known | None:
            known = self._find(connection, entry.client, entry.task, entry.content)
            if known is None:
                row = _row(entry)  # here, in the thread: it copies the inputs
                marks = ", ".join("?" * len(row))
                sql = f"INSERT INTO tasks ({_COLUMNS}) VALUES ({marks})"  # noqa: S608 - constants only
                connection.execute(sql, row)
            return known

        name = entry.client, entry.task
        self._arriving[name] += 1
        try:
            return await self._thread.do(write)
        finally:
            self._arriving[name] -= 1
            if not self._arriving[name]:
                del self._arriving[name]

    def is_new(self, client: str, task: str) -> bool:
        """Whether a task id was certainly never used, as far as the journal goes back.

        A look into an index, here and now: under a flood, the way to the thread and back costs more than all
        else that a refusal needs.
        """
        if self._reader is None or (client, task) in self._arriving:
            return False
        try:
            sql = "SELECT 1 FROM tasks WHERE client = ? AND task = ? LIMIT 1"
            return self._reader.execute(sql, (client, task)).fetchone() is None
        except sqlite3.Error:
            return False

    async def known(self, client: str, task: str, content: str) -> Known | None:
        """Return what is known of a task id that is sent with this content."""
        return await self._thread.do(lambda connection: self._find(connection, client, task, content))

    async def begin_attempt(self, key: str, attempt: int) -> None:
        """Write the number of an attempt, before it is announced."""
        sql = "UPDATE tasks SET attempt = ? WHERE key = ?"
        await self._thread.do(lambda connection: connection.execute(sql, (attempt, key)).rowcount)

    async def finish(self, key: str, answer: Answer) -> bool:
        """Write the terminal answer. Return False if there is one already: the first wins."""

        def write(connection: sqlite3.Connection) -> bool:
            sql = (
                "UPDATE tasks SET answer = ?, inputs = NULL, finished_unix_s = ?, finished_boot = ?,"
                " finished_boot_s = ? WHERE key = ? AND answer IS NULL"
            )
            now = self._clock()
            values = (answer.model_dump_json(), now.unix_s, now.boot, now.boot_s, key)
            return connection.execute(sql, values).rowcount == 1

        return await self._thread.do(write)

    def delivered(self, key: str, *, taken: bool = True) -> None:
        """Note that the broker has acknowledged the answer, or will never take it.

        Nobody waits for that: it goes with the next write. If the process dies first, the answer is published
        once more, as it is when it dies before the broker's acknowledgement.
        """
        sql = "UPDATE tasks SET delivered = ? WHERE key = ?"
        state = _DELIVERED if taken else _UNDELIVERABLE
        self._thread.do_with_next(lambda connection: connection.execute(sql, (state, key)).rowcount)

    async def forget(self) -> int:
        """Delete answers that are no longer kept, but none that must still be delivered. Return how many."""

        def write(connection: sqlite3.Connection) -> int:
            sql = f"DELETE FROM tasks WHERE delivered > 0 AND quarantined IS NULL AND {_IS_OLD}"  # noqa: S608
            deleted = connection.execute(sql, self._before_unknown).rowcount
            give_back(connection)
            return deleted

        return await self._thread.do(write)

    async def unfinished(self) -> tuple[tuple[Entry, ...], tuple[Damaged, ...]]:
        """Return accepted tasks without a terminal answer, oldest first, and those that cannot be read."""

        def read(connection: sqlite3.Connection) -> tuple[tuple[Entry, ...], tuple[Damaged, ...]]:
            entries: list[Entry] = []
            damaged: list[Damaged] = []
            sql = (
                f"SELECT {_COLUMNS} FROM tasks WHERE answer IS NULL AND delivered = 0"  # noqa: S608
                " ORDER BY accepted_unix_s"
            )
            for row in connection.execute(sql).fetchall():
                try:
                    entries.append(_entry(row))
                except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the others are not
                    damaged.append(_quarantine(connection, (*row[:3], *row[-5:]), error))
            return tuple(entries), tuple(damaged)

        return await self._thread.do(read)

    async def undelivered(self) -> tuple[tuple[Undelivered, ...], tuple[Damaged, ...]]:
        """Return answers that must be published again after a restart, and those that cannot be read."""

        def read(connection: sqlite3.Connection) -> tuple[tuple[Undelivered, ...], tuple[Damaged, ...]]:
            left: list[Undelivered] = []
            damaged: list[Damaged] = []
            sql = (
                f"SELECT key, client, task, {_REPLY_COLUMNS}, answer FROM tasks"  # noqa: S608
                " WHERE delivered = 0 AND answer IS NOT NULL"
            )
            for *row, answer in connection.execute(sql).fetchall():
                try:
                    left.append(Undelivered(row[0], _reply(row[3:]), Answer.model_validate_json(answer)))
                except Exception as error:  # noqa: BLE001 - as above
                    damaged.append(_quarantine(connection, tuple(row), error))
            return tuple(left), tuple(damaged)

        return await self._thread.do(read)

    # --- in the thread -----------------------------------------------------------------------------

    @property
    def _before_unknown(self) -> tuple[str | None, float, float]:
        """The values of `_IS_OLD`."""
        before = self._clock().earlier(self._keep_answers_s)
        return before.boot, before.boot_s, before.unix_s

    def _find(
        self, connection: sqlite3.Connection, client: str, task: str, content: str | None
    ) -> Known | None:
        sql = (
            "SELECT key, content, answer FROM tasks WHERE client = ? AND task = ? AND quarantined IS NULL"  # noqa: S608
            f" AND NOT (delivered > 0 AND {_IS_OLD}) ORDER BY rowid DESC"
        )
        is_other = False
        for key, known, answer in connection.execute(sql, (client, task, *self._before_unknown)).fetchall():
            if known not in {None, content}:
                is_other |= answer is None
                continue
            if answer is None:
                return Known(None)
            try:
                return Known(Answer.model_validate_json(answer))
            except ValidationError as error:
                _quarantine(connection, (key, client, task), error)
        return Known(None, is_other=True) if is_other else None


def _quarantine(connection: sqlite3.Connection, row: tuple[Any, ...], error: Exception) -> Damaged:
    key, client, task, *reply = row
    reason = f"{type(error).__name__}: {error}"[:500]
    log.error("journal: the row of task %r cannot be read and is put aside: %s", key, reason)
    connection.execute("UPDATE tasks SET quarantined = ? WHERE key = ?", (reason, key))
    try:
        return Damaged(key, client, task, _reply(reply), reason)
    except (ValueError, TypeError):
        return Damaged(key, client, task, ReplyTo(), reason)


def _row(entry: Entry) -> tuple[Any, ...]:
    shape = ",".join(map(str, entry.inputs.shape))
    labels = ",".join(map(str, entry.labels)) if entry.labels is not None else None
    reply = entry.reply
    return (
        *(entry.key, entry.client, entry.task, entry.application, entry.deadline_ms),
        *(entry.accepted_unix_s, entry.attempt, str(entry.inputs.dtype), shape),
        *(np.ascontiguousarray(entry.inputs).tobytes(), labels, entry.content, entry.boot, entry.boot_s),
        _VIEWS.dump_json(entry.views).decode() if entry.views else None,
        reply.response_topic,
        *(reply.correlation_data, int(reply.packed), json.dumps(reply.warnings) if reply.warnings else None),
        reply.traceparent,
    )


def _entry(row: tuple[Any, ...]) -> Entry:
    key, client, task, application, deadline_ms, accepted, attempt, dtype, shape, *more = row
    inputs, labels, content, boot, boot_s, views, *reply = more
    given = {"key": key, "client": client, "task": task, "application": application}
    for name, value in {**given, "deadline_ms": deadline_ms, "attempt": attempt}.items():
        _CHECKS[name].validate_python(value)
    array = np.frombuffer(inputs, dtype=dtype).reshape([int(size) for size in shape.split(",")])
    truth = tuple(int(label) for label in labels.split(",")) if labels else None
    return Entry(
        *(key, client, task, application, deadline_ms, accepted, attempt, array, truth),
        reply=_reply(reply),
        content=content,
        boot=boot,
        boot_s=boot_s or 0.0,
        views=_VIEWS.validate_json(views) if views else (),
    )


def _reply(row: list[Any] | tuple[Any, ...]) -> ReplyTo:
    topic, data, packed, warnings, parent = row or (None, None, 0, None, None)
    parent = parent if parent and is_traceparent(parent) else None
    return ReplyTo(topic, data, bool(packed), tuple(json.loads(warnings)) if warnings else (), parent)
