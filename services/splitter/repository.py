"""Serves fragment files, piece by piece, on a topic that all nodes share.

Pieces that were asked for and have not been sent yet are due once, however many nodes ask: whoever asks is
listening already. Sending waits a moment after the first request, so that nodes that start together, or are
told together to prepare, share one broadcast.
"""

import asyncio
import logging
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from splitplace.bus.connection import Bus, Received
from splitplace.bus.settings import Settings
from splitplace.messages.cluster import FragmentMissing, FragmentRequest
from splitplace.messages.frames import FragmentHeader, pack
from splitplace.messages.limits import CHUNK_BYTES
from splitplace.messages.topics import FRAGMENT_CHUNK, FRAGMENT_MISSING, FRAGMENT_REQUEST
from splitplace.storage.model_store import ModelStore, StoreError, verify

log = logging.getLogger(__name__)

GATHER_S = 0.005
"""How long requests are gathered before the first piece is sent."""

MAX_DUE = 1024
"""Pieces due at a time (256 MB); what is asked for beyond is dropped, and nodes ask again."""


class Piece(NamedTuple):
    """A piece of a fragment file."""

    fragment: str
    chunk: int


class DuePieces:
    """Which pieces are to be sent, in the order in which they were first asked for. Pure."""

    def __init__(self, most: int = MAX_DUE) -> None:
        """Nothing is due."""
        self._most = most
        self._due: OrderedDict[Piece, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._due)

    def ask(self, request: FragmentRequest, file_bytes: int) -> int:
        """Note what a request asks for and the file has; returns how many pieces that adds."""
        before = len(self._due)
        last = min(request.first_chunk + request.chunks, -(-file_bytes // CHUNK_BYTES))
        for chunk in range(request.first_chunk, last):
            if len(self._due) >= self._most:
                break
            self._due.setdefault(Piece(request.fragment, chunk))
        return len(self._due) - before

    def next(self) -> Piece:
        """Take the piece that has been due longest. Raises KeyError where none is."""
        piece, _ = self._due.popitem(last=False)
        return piece


class Repository:
    """The store's fragments, on a connection of their own: decisions never wait behind files."""

    def __init__(self, settings: Settings, store: ModelStore) -> None:
        """A repository that is not connected yet."""
        self.bus = Bus(settings, "splitplace-splitter-fragments")
        self._store = store
        self._files: dict[str, tuple[Path, int]] = {}
        """Path and size of every fragment whose content was found to be right."""
        self._due = DuePieces()
        self._something_due = asyncio.Event()
        self.bus.subscribe(FRAGMENT_REQUEST, self._on_request)

    async def run(self) -> None:
        """Serve until cancelled."""
        async with self.bus:
            while True:
                await self._something_due.wait()
                await asyncio.sleep(GATHER_S)
                while self._due:
                    await self._send(self._due.next())
                self._something_due.clear()

    async def _on_request(self, received: Received[FragmentRequest]) -> None:
        request = received.message
        try:
            _, file_bytes = await self._file(request.fragment)
        except StoreError as error:
            log.info("%s asks for a fragment that cannot be served: %s", request.node, error)
            reason = f"the repository has no fragment {request.fragment}"
            self.bus.send(FRAGMENT_MISSING, FragmentMissing(fragment=request.fragment, reason=reason))
            return
        if self._due.ask(request, file_bytes):
            self._something_due.set()

    async def _file(self, sha256: str) -> tuple[Path, int]:
        """Path and size of a fragment. Raises StoreError where it is missing or not what its name says."""
        if sha256 not in self._files:
            self._files[sha256] = await asyncio.to_thread(self._find, sha256)
        return self._files[sha256]

    def _find(self, sha256: str) -> tuple[Path, int]:
        path = self._store.fragment_path(sha256)
        verify(path, sha256)
        return path, path.stat().st_size

    async def _send(self, piece: Piece) -> None:
        path, file_bytes = self._files[piece.fragment]
        try:
            body = await asyncio.to_thread(_read, path, piece.chunk)
        except OSError as error:
            log.warning("%s cannot be read: %s", path, error)
            self._files.pop(piece.fragment, None)
            return
        header = FragmentHeader(fragment=piece.fragment, file_bytes=file_bytes, chunk=piece.chunk)
        await self.bus.send_frame(FRAGMENT_CHUNK, pack(header, body), fragment=piece.fragment)


def _read(path: Path, chunk: int) -> bytes:
    with path.open("rb") as file:
        file.seek(chunk * CHUNK_BYTES)
        return file.read(CHUNK_BYTES)
