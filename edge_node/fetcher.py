"""Fetches files over the bus into the store, chunk by chunk, and checks their hashes.

Chunks that an earlier fetch has written are not fetched again, even if its process died.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from splitplace.bus.background import now_ms
from splitplace.bus.connection import Bus, Received
from splitplace.edge_node.download import Download, DownloadError
from splitplace.edge_node.fragment_store import FragmentStore, PartialFile
from splitplace.edge_node.link_meter import LinkMeter
from splitplace.edge_node.window import Window
from splitplace.messages.cluster import FragmentMissing, FragmentRequest
from splitplace.messages.frames import FragmentHeader
from splitplace.messages.limits import MAX_FILE_BYTES
from splitplace.messages.pieces import StoredFile
from splitplace.messages.topics import FRAGMENT_CHUNK, FRAGMENT_MISSING, FRAGMENT_REQUEST
from splitplace.storage.model_store import StoreError

log = logging.getLogger(__name__)

MAX_TRIES = 3
"""Number of times that a file with a wrong hash is fetched from the beginning."""
MAX_PARALLEL = 8
"""Files that are fetched at a time."""
MAX_PARALLEL_OF_FRAGMENT = 4
"""Files of a fragment that are fetched at a time: one that does not come holds up no other."""
_MAX_UNWRITTEN = 64
"""Max. chunks buffered for the disk; further chunks are dropped and requested again."""


class Fetcher:
    """Downloads files that are not in the store yet."""

    def __init__(self, bus: Bus, store: FragmentStore, node: str, meter: LinkMeter | None = None) -> None:
        """A fetcher on a connection.

        Args:
            bus: carries requests and chunks.
            store: gets the files.
            node: name of this node.
            meter: told of requests and chunks.
        """
        self._bus = bus
        self._meter = LinkMeter() if meter is None else meter
        self._store = store
        self._node = node
        self._slots = asyncio.Semaphore(MAX_PARALLEL)
        self._locks = WeakValueDictionary[str, asyncio.Lock]()
        """By file, while it is fetched: fragments may share files."""
        self._window = Window()
        self._transfers: set[_Transfer] = set()
        bus.on_connect(self._on_connect)

    async def _on_connect(self) -> None:
        """Request again what was on its way when the connection broke."""
        self._window.restart()
        self._wake()

    def _wake(self) -> None:
        """Let all transfers look at the window, which they share."""
        for transfer in self._transfers:
            transfer.wake()

    async def fetch(self, files: Sequence[StoredFile]) -> tuple[Path, ...]:
        """Return where the files lie, in their order, with their hashes checked.

        The first that cannot be fetched ends the fetching of all; what has come stays.

        Raises:
            DownloadError: nobody has one, chunks do not come, or the content is not as described.
            OSError: one cannot be written.
        """
        for file in files:
            if not 0 < file.file_bytes <= MAX_FILE_BYTES:
                raise DownloadError(
                    f"described as a file of {file.file_bytes} bytes (limit {MAX_FILE_BYTES})"
                )
        own = asyncio.Semaphore(MAX_PARALLEL_OF_FRAGMENT)
        try:
            async with asyncio.TaskGroup() as group:
                fetching = [group.create_task(self._fetch(file, own)) for file in files]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        return tuple(task.result() for task in fetching)

    async def _fetch(self, file: StoredFile, own: asyncio.Semaphore) -> Path:
        async with own, self._locks.setdefault(file.sha256, asyncio.Lock()), self._slots:
            path = await asyncio.to_thread(self._store.find, file.sha256)
            if path is not None:  # fetched for another fragment
                return path
            for _ in range(MAX_TRIES):
                partial = await self._begun(file)
                with partial:
                    await self._transfer(file, partial)
                    try:
                        return await asyncio.to_thread(self._store.finish, partial, file.sha256)
                    except StoreError as error:
                        log.warning("fetched a file with wrong content: %s", error)
        raise DownloadError(f"the content had a wrong hash, {MAX_TRIES} times")

    async def _begun(self, file: StoredFile) -> PartialFile:
        """Open a file for its chunks. If this is cancelled meanwhile, it is closed once it is open."""
        opening = asyncio.get_running_loop().run_in_executor(None, self._store.begin, file)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close)
            raise

    async def _transfer(self, file: StoredFile, partial: PartialFile) -> None:
        download = Download(file, self._window, partial.written)
        transfer = _Transfer(
            self._bus,
            self._node,
            file.sha256,
            download,
            partial=partial,
            on_arrival=self._wake,
            meter=self._meter,
        )
        self._transfers.add(transfer)
        try:
            await transfer.run()
        finally:
            self._transfers.discard(transfer)
            self._meter.forget(file.sha256)
            download.end()
            self._wake()


def _close(opened: asyncio.Future[PartialFile]) -> None:
    if not opened.cancelled() and opened.exception() is None:
        opened.result().close()


class _Transfer:
    """One download of one file."""

    def __init__(
        self,
        bus: Bus,
        node: str,
        sha256: str,
        download: Download,
        *,
        partial: PartialFile,
        on_arrival: Callable[[], None],
        meter: LinkMeter,
    ) -> None:
        self._bus = bus
        self._meter = meter
        self._node = node
        self._sha256 = sha256
        self._download = download
        self._partial = partial
        self._on_arrival = on_arrival
        self._is_awake = False
        self._unwritten: asyncio.Queue[tuple[int, memoryview] | None] = asyncio.Queue()
        """Chunk numbers and bodies; None only wakes `run`."""
        self._missing: str | None = None

    async def run(self) -> None:
        """Request and write chunks until all are there. Raises DownloadError, OSError."""
        async with (
            self._bus.watching(FRAGMENT_CHUNK, self._on_chunk, fragment=self._sha256),
            self._bus.watching(FRAGMENT_MISSING, self._on_missing, fragment=self._sha256),
        ):
            while not self._download.is_complete or not self._unwritten.empty():
                self._ask()
                try:
                    async with asyncio.timeout(self._download.next_check_ms(now_ms()) / 1000):
                        chunk = await self._unwritten.get()
                except TimeoutError:
                    continue
                if chunk is None:
                    self._is_awake = False
                else:
                    await asyncio.to_thread(self._partial.write, *chunk)

    def wake(self) -> None:
        """Look at the window again."""
        if not self._is_awake:
            self._is_awake = True
            self._unwritten.put_nowait(None)

    def _ask(self) -> None:
        if self._missing is not None:
            raise DownloadError(self._missing)
        wanted = self._download.wanted(now_ms())
        if wanted is not None:
            request = FragmentRequest(
                node=self._node,
                fragment=self._sha256,
                first_chunk=wanted.first_chunk,
                chunks=wanted.chunks,
                follows=wanted.follows,
            )
            for chunk in range(wanted.first_chunk, wanted.first_chunk + wanted.chunks):
                self._meter.requested(self._sha256, chunk, now_ms())
            self._bus.send(FRAGMENT_REQUEST, request)

    def _on_chunk(self, received: Received[FragmentHeader]) -> None:
        header = received.message
        self._meter.chunk(self._sha256, header.chunk, len(received.body), now_ms())
        if self._unwritten.qsize() >= _MAX_UNWRITTEN:
            self._download.drop(header.chunk, now_ms())
        elif self._download.receive(header.chunk, len(received.body), header.file_bytes, now_ms()):
            self._unwritten.put_nowait((header.chunk, received.body))
            self._on_arrival()

    def _on_missing(self, received: Received[FragmentMissing]) -> None:
        self._missing = received.message.reason
        self.wake()
