"""The thread that owns the journal's file: opens and migrates it, and groups writes into transactions."""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from splitplace.errors import SplitPlaceError
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
DROP INDEX IF EXISTS finished;
CREATE INDEX IF NOT EXISTS ended ON tasks(finished_unix_s) WHERE delivered > 0;
CREATE INDEX IF NOT EXISTS named ON tasks(client, task);
"""

_ADDED_COLUMNS = ("content", "warnings", "quarantined")
"""Text columns that a journal of 0.1 does not have; NULL there."""

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]


class JournalError(SplitPlaceError):
    """The journal cannot be opened or written. The gateway must not accept tasks then."""


class JournalThread:
    """Runs operations on the file, one transaction for all that wait. Each fails alone."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        self._path = path
        self._durable = durable
        self._work: queue.SimpleQueue[tuple[Operation[Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._opened: Future[None] = Future()
        self.writes = 0
        self.write_seconds = 0.0

    async def start(self) -> None:
        """Open the file. Raises JournalError."""
        self._thread.start()
        await asyncio.wrap_future(self._opened)

    async def stop(self) -> None:
        """Finish what waits and close the file."""
        self._work.put(None)
        await asyncio.to_thread(self._thread.join)

    async def do(self, operation: Operation[T]) -> T:
        """Run an operation and wait until it is committed. Raises JournalError."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._work.put((operation, done))
        return await done

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
            _migrate(connection)
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
            # Nobody waits for a write whose future was cancelled.
            wanted = [item for item in batch if item is not None and not item[1].cancelled()]
            self._commit(connection, wanted)
        connection.close()

    def _commit(
        self, connection: sqlite3.Connection, batch: list[tuple[Operation[Any], asyncio.Future[Any]]]
    ) -> None:
        began = time.perf_counter()
        results: list[tuple[asyncio.Future[Any], Any]] = []
        failures: list[tuple[asyncio.Future[Any], Exception]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for operation, done in batch:
                try:
                    results.append((done, _in_savepoint(connection, operation)))
                except Exception as error:
                    if not connection.in_transaction:  # SQLite gave up all of it, as on a full disk
                        raise
                    failures.append((done, error))
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            results = []
            failures = [(done, error) for _, done in batch]
        else:
            self.writes += len(results)
            self.write_seconds += time.perf_counter() - began
        # All at once: each call wakes the event loop.
        for loop in {done.get_loop() for _, done in batch}:
            loop.call_soon_threadsafe(self._tell, loop, results, failures)

    def _tell(
        self,
        loop: asyncio.AbstractEventLoop,
        results: list[tuple[asyncio.Future[Any], Any]],
        failures: list[tuple[asyncio.Future[Any], Exception]],
    ) -> None:
        for done, value in results:
            if done.get_loop() is loop and not done.done():
                done.set_result(value)
        for done, failure in failures:
            if done.get_loop() is loop and not done.done():
                done.set_exception(JournalError(f"journal {self._path}: {failure}"))


def _in_savepoint(connection: sqlite3.Connection, operation: Operation[T]) -> T:
    """Run an operation so that its failure undoes nothing else in the transaction."""
    connection.execute("SAVEPOINT operation")
    try:
        result = operation(connection)
    except Exception:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO operation")
            connection.execute("RELEASE operation")
        raise
    connection.execute("RELEASE operation")
    return result


def _migrate(connection: sqlite3.Connection) -> None:
    """Add the columns that an older journal lacks."""
    present = {row[1] for row in connection.execute("PRAGMA table_info(tasks)")}
    for name in _ADDED_COLUMNS:
        if name not in present:
            connection.execute(f"ALTER TABLE tasks ADD COLUMN {name} TEXT")
