"""The journal: every accepted task, in SQLite, written by one thread.

Writes that arrive while a transaction is under way share the next one, so that hundreds of tasks a second
cost few commits. With the default settings a write survives the death of the process (kill -9), not a power
failure; `durable` flushes the disk as well.
"""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from splitplace.errors import SplitPlaceError
from splitplace.messages.task import Answer
from splitplace.storage.exclusive import exclusive

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (
    key TEXT PRIMARY KEY,
    client TEXT NOT NULL,
    task TEXT NOT NULL,
    application TEXT NOT NULL,
    deadline_ms REAL NOT NULL,
    accepted_unix_s REAL NOT NULL,
    attempt INTEGER NOT NULL,
    dtype TEXT NOT NULL,
    shape TEXT NOT NULL,
    inputs BLOB,
    labels TEXT,
    response_topic TEXT,
    correlation_data BLOB,
    packed INTEGER NOT NULL,
    answer TEXT,
    delivered INTEGER NOT NULL DEFAULT 0,
    finished_unix_s REAL
) STRICT;
CREATE INDEX IF NOT EXISTS unfinished ON tasks(delivered) WHERE delivered = 0;
CREATE INDEX IF NOT EXISTS finished ON tasks(finished_unix_s) WHERE delivered = 1;
"""

_COLUMNS = (
    "key, client, task, application, deadline_ms, accepted_unix_s, attempt, dtype, shape, inputs, labels,"
    " response_topic, correlation_data, packed"
)

T = TypeVar("T")


class JournalError(SplitPlaceError):
    """The journal cannot be opened or written. The gateway must not accept tasks then."""


@dataclass(frozen=True, slots=True)
class ReplyTo:
    """Where the answer goes, if not to `answer/<client>/<task>`."""

    response_topic: str | None = None
    correlation_data: bytes | None = None
    packed: bool = False
    """Whether the answer is msgpack, as the request was."""


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


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A terminal answer that the broker has not acknowledged."""

    client: str
    task: str
    reply: ReplyTo
    answer: Answer


@dataclass(frozen=True, slots=True)
class Known:
    """A task id that was used before. `answer` is None while the task is unfinished."""

    answer: Answer | None


class Journal:
    """An asynchronous context manager. Every method waits until its write is in the file."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        self._path = path
        self._durable = durable
        self._work: queue.SimpleQueue[tuple[Callable[[sqlite3.Connection], Any], Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._opened: Future[None] = Future()
        self.writes = 0
        self.write_seconds = 0.0

    async def __aenter__(self) -> Self:
        self._thread.start()
        await asyncio.wrap_future(self._opened)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._work.put(None)
        await asyncio.to_thread(self._thread.join)

    # --- operations --------------------------------------------------------------------------------

    async def accept(self, entry: Entry) -> Known | None:
        """Write a new task. Return what is known about its key if it was used before."""

        def write(connection: sqlite3.Connection) -> Known | None:
            row = _row(entry)  # here, in the thread: it copies the inputs
            marks = ", ".join("?" * len(row))
            sql = f"INSERT OR IGNORE INTO tasks ({_COLUMNS}) VALUES ({marks})"  # noqa: S608 - constants only
            if connection.execute(sql, row).rowcount:
                return None
            found = connection.execute("SELECT answer FROM tasks WHERE key = ?", (entry.key,)).fetchone()
            return Known(Answer.model_validate_json(found[0]) if found[0] else None)

        return await self._do(write)

    async def begin_attempt(self, key: str, attempt: int) -> None:
        """Write the number of an attempt, before it is announced."""
        await self._do(
            lambda connection: (
                connection.execute("UPDATE tasks SET attempt = ? WHERE key = ?", (attempt, key)).rowcount
            )
        )

    async def finish(self, key: str, answer: Answer) -> bool:
        """Write the terminal answer. Return False if there is one already: the first wins."""

        def write(connection: sqlite3.Connection) -> bool:
            sql = (
                "UPDATE tasks SET answer = ?, inputs = NULL, finished_unix_s = ?"
                " WHERE key = ? AND answer IS NULL"
            )
            return connection.execute(sql, (answer.model_dump_json(), time.time(), key)).rowcount == 1

        return await self._do(write)

    async def delivered(self, key: str) -> None:
        """Note that the broker has acknowledged the answer."""
        await self._do(
            lambda connection: (
                connection.execute("UPDATE tasks SET delivered = 1 WHERE key = ?", (key,)).rowcount
            )
        )

    async def forget(self, older_than_s: float) -> int:
        """Delete delivered answers that are older. Return how many."""
        limit = time.time() - older_than_s
        return await self._do(
            lambda connection: (
                connection.execute(
                    "DELETE FROM tasks WHERE delivered = 1 AND finished_unix_s < ?", (limit,)
                ).rowcount
            )
        )

    async def unfinished(self) -> tuple[Entry, ...]:
        """Return accepted tasks without a terminal answer, oldest first."""

        def read(connection: sqlite3.Connection) -> tuple[Entry, ...]:
            sql = f"SELECT {_COLUMNS} FROM tasks WHERE answer IS NULL ORDER BY accepted_unix_s"  # noqa: S608
            return tuple(_entry(row) for row in connection.execute(sql))

        return await self._do(read)

    async def undelivered(self) -> tuple[Undelivered, ...]:
        """Return terminal answers that must be published again after a restart."""

        def read(connection: sqlite3.Connection) -> tuple[Undelivered, ...]:
            sql = (
                "SELECT client, task, response_topic, correlation_data, packed, answer FROM tasks"
                " WHERE delivered = 0 AND answer IS NOT NULL"
            )
            return tuple(
                Undelivered(
                    client, task, ReplyTo(topic, data, bool(packed)), Answer.model_validate_json(answer)
                )
                for client, task, topic, data, packed, answer in connection.execute(sql)
            )

        return await self._do(read)

    # --- the thread --------------------------------------------------------------------------------

    async def _do(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        done: Future[T] = Future()
        self._work.put((operation, done))
        return await asyncio.wrap_future(done)

    def _run(self) -> None:
        lock = self._path.with_name(f"{self._path.name}.lock")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with exclusive(lock):
                self._serve()
        except BlockingIOError:
            message = (
                f"journal {self._path}: another gateway uses it; give each system a --state-dir of its own"
            )
            self._opened.set_exception(JournalError(message))
        except OSError as error:
            self._opened.set_exception(
                JournalError(f"journal {self._path}: {error}; is the folder writable?")
            )

    def _serve(self) -> None:
        try:
            connection = sqlite3.connect(self._path, isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
            connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            message = f"journal {self._path}: {error}; is the folder writable, and the file a journal?"
            self._opened.set_exception(JournalError(message))
            return
        self._opened.set_result(None)
        stop = False
        while not stop:
            batch = [self._work.get()]
            while not self._work.empty():
                batch.append(self._work.get())
            stop = None in batch
            # Nobody waits for a write whose future was cancelled; from here on none can be.
            wanted = [item for item in batch if item is not None and item[1].set_running_or_notify_cancel()]
            self._commit(connection, wanted)
        connection.close()

    def _commit(
        self,
        connection: sqlite3.Connection,
        batch: list[tuple[Callable[[sqlite3.Connection], Any], Future[Any]]],
    ) -> None:
        began = time.perf_counter()
        results: list[tuple[Future[Any], Any]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            results.extend((done, operation(connection)) for operation, done in batch)
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            for _, done in batch:
                done.set_exception(JournalError(f"journal {self._path}: {error}"))
            return
        self.writes += len(batch)
        self.write_seconds += time.perf_counter() - began
        for done, value in results:
            done.set_result(value)


def _row(entry: Entry) -> tuple[Any, ...]:
    shape = ",".join(map(str, entry.inputs.shape))
    labels = ",".join(map(str, entry.labels)) if entry.labels is not None else None
    return (
        *(entry.key, entry.client, entry.task, entry.application, entry.deadline_ms),
        *(entry.accepted_unix_s, entry.attempt, str(entry.inputs.dtype), shape),
        *(np.ascontiguousarray(entry.inputs).tobytes(), labels, entry.reply.response_topic),
        *(entry.reply.correlation_data, int(entry.reply.packed)),
    )


def _entry(row: tuple[Any, ...]) -> Entry:
    key, client, task, application, deadline_ms, accepted, attempt, dtype, shape, inputs, labels, *reply = row
    array = np.frombuffer(inputs, dtype=dtype).reshape([int(size) for size in shape.split(",")])
    truth = tuple(int(label) for label in labels.split(",")) if labels else None
    topic, data, packed = reply
    return Entry(
        *(key, client, task, application, deadline_ms, accepted, attempt, array, truth),
        reply=ReplyTo(topic, data, bool(packed)),
    )
