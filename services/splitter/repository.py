"""Serves the files of fragments, chunk by chunk, on a topic that all nodes share.

A chunk that several nodes have asked for is sent once: whoever asks is listening already. Sending begins a
moment after the first request, so that nodes that start together share one broadcast.
"""

import asyncio
import logging
from pathlib import Path

from splitplace.bus.connection import Received
from splitplace.bus.service import Service
from splitplace.messages.cluster import FragmentMissing, FragmentRequest
from splitplace.messages.frames import FragmentHeader, pack
from splitplace.messages.limits import CHUNK_BYTES
from splitplace.messages.topics import FRAGMENT_CHUNK, FRAGMENT_MISSING, FRAGMENT_REQUEST
from splitplace.services.splitter.due_chunks import Chunk, DueChunks
from splitplace.storage.model_store import ModelStore, StoreError, verify

log = logging.getLogger(__name__)

GATHER_S = 0.005
"""Pause between the first request and the first chunk."""


class Repository:
    """Answers requests for files on a connection of its own: decisions never wait behind files."""

    def __init__(self, service: Service, store: ModelStore) -> None:
        """Add the repository of a model store to a service."""
        self._service = service
        self._store = store
        self._files: dict[str, tuple[Path, int]] = {}
        """Path and size of every file whose hash was checked."""
        self._unusable: dict[str, str] = {}
        self._due = DueChunks()
        self._is_sending = False
        self._bus = service.connection("fragments")
        self._bus.subscribe(FRAGMENT_REQUEST, self._on_request)

    @property
    def broken(self) -> tuple[str, ...]:
        """What is wrong with files that were asked for and are not what their name says."""
        return tuple(self._unusable.values())

    async def _on_request(self, received: Received[FragmentRequest]) -> None:
        request = received.message
        try:
            _, file_bytes = await self._file(request.fragment)
        except StoreError as error:
            log.info("%s asks for a file that cannot be served: %s", request.node, error)
            reason = f"the repository has no file {request.fragment}"
            self._bus.send(FRAGMENT_MISSING, FragmentMissing(fragment=request.fragment, reason=reason))
            return
        self._due.ask(request, file_bytes)
        if self._due and not self._is_sending:
            self._is_sending = True
            self._service.spawn(self._send_due(), "send files")

    async def _send_due(self) -> None:
        await asyncio.sleep(GATHER_S)
        while self._due:
            await self._send(self._due.next())
        self._is_sending = False

    async def _file(self, sha256: str) -> tuple[Path, int]:
        """Path and size of a file. Raises StoreError if it is missing or has another hash."""
        if sha256 not in self._files:
            path = await asyncio.to_thread(self._store.file_path, sha256)
            try:
                self._files[sha256] = await asyncio.to_thread(_verified, path, sha256)
            except StoreError as error:
                self._note_unusable(sha256, error)
                raise
            self._unusable.pop(sha256, None)
        return self._files[sha256]

    def _note_unusable(self, sha256: str, error: StoreError) -> None:
        """Say once of each file that it is not usable. Only files that are there count: they are few."""
        if sha256 not in self._unusable:
            log.warning("nodes cannot have a file: %s", error)
        self._unusable[sha256] = str(error)

    async def _send(self, chunk: Chunk) -> None:
        if chunk.file not in self._files:
            return  # it could not be read a moment ago; nodes ask again
        path, file_bytes = self._files[chunk.file]
        expected = min(CHUNK_BYTES, file_bytes - chunk.number * CHUNK_BYTES)
        try:
            body = await asyncio.to_thread(_read, path, chunk.number)
            if len(body) != expected:
                raise OSError("it was cut off")  # noqa: TRY301
        except OSError as error:
            self._note_unusable(chunk.file, StoreError(path, f"cannot be read: {error}"))
            self._files.pop(chunk.file, None)
            return
        header = FragmentHeader(fragment=chunk.file, file_bytes=file_bytes, chunk=chunk.number)
        await self._bus.send_frame(FRAGMENT_CHUNK, pack(header, body), fragment=chunk.file)


def _verified(path: Path, sha256: str) -> tuple[Path, int]:
    verify(path, sha256)
    return path, path.stat().st_size


def _read(path: Path, number: int) -> bytes:
    with path.open("rb") as file:
        file.seek(number * CHUNK_BYTES)
        return file.read(CHUNK_BYTES)
