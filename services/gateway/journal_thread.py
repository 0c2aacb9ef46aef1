"""The thread that owns the journal's file, and groups writes into transactions."""

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from splitplace.bus.seldom import SeldomWarnings
from splitplace.errors import SplitPlaceError
from splitplace.services.gateway.journal_file import is_damage, is_temporary, open_journal
from splitplace.storage.exclusive import exclusive

log = logging.getLogger(__name__)

OPEN_AGAIN_S = 1.0
TAKEN_ALONG_S = 0.2
"""How long what nobody waits for may wait for a transaction to take it along."""

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]


class JournalError(SplitPlaceError):
    """The journal cannot be opened or written. The gateway must not accept tasks then."""


class JournalThread:
    """Runs operations on the file, one transaction for all that wait. Each fails alone."""

    def __init__(self, path: Path, *, durable: bool, is_own: bool = False) -> None:
        self._path = path
        self._durable = durable
        self._is_own = is_own
        self._work: queue.SimpleQueue[tuple[Operation[Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._later: deque[Operation[Any]] = deque()
        """What the next transaction takes along."""
        self._is_flush_due = False
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._opened: Future[None] = Future()
        self._damaged: asyncio.Future[JournalError]
        self._warnings = SeldomWarnings(log)
        self.writes = 0
        self.write_seconds = 0.0
        self.finding = ""
        """What had to be done to open the file; empty as a rule."""
        self.failure = ""
        """Why the last writes failed; empty if they did not."""
        self._is_ending = threading.Event()

    async def start(self) -> None:
        """Open the file. Waits while it is locked or the disk is full. Raises JournalError."""
        self._damaged = asyncio.get_running_loop().create_future()
        self._thread.start()
        try:
            await asyncio.wrap_future(self._opened)
        except BaseException:
            self._is_ending.set()
            raise

    @property
    def deleted(self) -> str:
        """That somebody has deleted the file, which goes on without a name until it is closed; else empty."""
        with contextlib.suppress(OSError):  # a disk that does not answer tells nothing
            if self._opened.done() and not self._path.exists():
                return (
                    f"journal {self._path} was deleted while in use, and what it holds is lost when the "
                    "gateway ends: start it again while no task waits"
                )
        return ""

    async def damaged(self) -> NoReturn:
        """Wait until the open file turns out to be damaged, then raise JournalError.

        A new start sets the file aside and rescues what it can.
        """
        raise await asyncio.shield(self._damaged)

    async def stop(self) -> None:
        """Finish what waits and close the file."""
        self._work.put(None)
        await asyncio.to_thread(self._thread.join)

    def do_with_next(self, operation: Operation[Any]) -> None:
        """Run an operation in the next transaction, or one of its own soon. Nobody waits for it.

        It is lost if the process dies before that. If the transaction fails, it is tried again.
        """
        self._later.append(operation)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_later(TAKEN_ALONG_S, self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if self._later:  # no transaction has taken it along
            done = asyncio.get_running_loop().create_future()
            done.add_done_callback(self._flushed)
            self._work.put((_nothing, done))

    def _flushed(self, done: "asyncio.Future[None]") -> None:
        if not done.cancelled() and done.exception() is not None:
            self._flush_soon()

    async def do(self, operation: Operation[T]) -> T:
        """Run an operation and wait until it is committed. Raises JournalError."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._work.put((operation, done))
        return await done

    def _run(self) -> None:
        lock = self._path.with_name(f"{self._path.name}.lock")
        is_ours = self._is_own or lock.exists()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with exclusive(lock):
                try:
                    connection = self._open(is_ours=is_ours)
                except (sqlite3.Error, OSError):
                    if not is_ours:
                        lock.unlink(missing_ok=True)  # the file is somebody else's
                    raise
                if connection is not None:
                    self._serve(connection)
        except BlockingIOError:
            message = (
                f"journal {self._path}: another gateway uses it; give each system a --state-dir of its own"
            )
            self._opened.set_exception(JournalError(message))
        except sqlite3.Error as error:
            advice = "is the folder writable?"
            if not is_ours and self._path.exists():
                advice = (
                    "it stays as it is; if it is no journal, name another file with --journal; if it is a "
                )
                advice += "damaged one, move it away and start again"
            self._opened.set_exception(JournalError(f"journal {self._path}: {error}; {advice}"))
        except OSError as error:
            self._opened.set_exception(
                JournalError(f"journal {self._path}: {error}; is the folder writable?")
            )

    def _open(self, *, is_ours: bool) -> sqlite3.Connection | None:
        """Open the file, however long it is locked or the disk full. Return None if nobody waits any more."""
        while not self._is_ending.is_set():
            try:
                connection, self.finding = open_journal(self._path, durable=self._durable, is_ours=is_ours)
            except sqlite3.Error as error:
                if not is_temporary(error):
                    raise
                self._warnings.warn("open", "journal %s: %s; trying again", self._path, error)
                self._is_ending.wait(OPEN_AGAIN_S)
            else:
                return connection
        return None

    def _serve(self, connection: sqlite3.Connection) -> None:
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
        later = [self._later.popleft() for _ in range(len(self._later))]
        began = time.perf_counter()
        results: list[tuple[asyncio.Future[Any], Any]] = []
        failures: list[tuple[asyncio.Future[Any], Exception]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._take_along(connection, later)
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
            self._later.extendleft(reversed(later))
            failures = [(done, error) for _, done in batch]
            self.failure = str(error)
        else:
            self.failure = ""
            self.writes += len(results) + len(later)
            self.write_seconds += time.perf_counter() - began
        broken = next((error for _, error in failures if is_damage(error)), None)
        # All at once: each call wakes the event loop.
        for loop in {done.get_loop() for _, done in batch}:
            loop.call_soon_threadsafe(self._tell, loop, results, failures)
        if broken is not None and not self._damaged.get_loop().is_closed():
            self._damaged.get_loop().call_soon_threadsafe(self._say_damaged, broken)

    def _take_along(self, connection: sqlite3.Connection, later: Iterable[Operation[Any]]) -> None:
        """Run what nobody waits for. Raises sqlite3.Error only where all of the transaction is lost."""
        for operation in later:
            try:
                _in_savepoint(connection, operation)
            except sqlite3.Error as error:
                if not connection.in_transaction or is_damage(error):
                    raise
                log.warning("journal %s: %s", self._path, error)

    def _say_damaged(self, error: Exception) -> None:
        if not self._damaged.done():
            message = f"journal {self._path}: {error}; the next start sets it aside and rescues what it can"
            self._damaged.set_result(JournalError(message))

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


def _nothing(_: sqlite3.Connection) -> None:
    """Let a transaction happen."""


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
