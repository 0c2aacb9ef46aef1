"""The state of one file's download: which chunks are here and which to request. Pure.

Chunks come on a topic that all nodes share, so every one that arrives is used, whoever requested it.
"""

from collections.abc import Collection
from dataclasses import dataclass

from splitplace.edge_node.window import Key, Window
from splitplace.errors import SplitPlaceError
from splitplace.messages.limits import CHUNK_BYTES
from splitplace.messages.pieces import StoredFile

MAX_REQUEST = 16
"""Max. chunks of one request."""
MAX_SILENT_ROUNDS = 4
"""Rounds of requests in a row without any chunk after which the download fails."""


class DownloadError(SplitPlaceError):
    """A file that cannot be fetched."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run of chunks to request."""

    first_chunk: int
    chunks: int
    follows: bool = False
    """Whether chunks that were sent since an earlier request are still expected."""


class Download:
    """Tracks which chunks of a file of known size are here, requested, or missing."""

    def __init__(self, file: StoredFile, window: Window, written: Collection[int] = ()) -> None:
        """Begin a download; the chunks `written` are here already."""
        self.file_bytes = file.file_bytes
        self.chunks = -(-file.file_bytes // CHUNK_BYTES)
        self._sha256 = file.sha256
        self._window = window
        self._missing = set(range(self.chunks)).difference(written)
        self._has_asked = False
        window.begin()
        self._silent_before = window.silent_rounds

    @property
    def is_complete(self) -> bool:
        """Whether all chunks are here. The hash tells whether they are right."""
        return not self._missing

    def receive(self, chunk: int, body_bytes: int, file_bytes: int, now_ms: float) -> bool:
        """Note a chunk. Returns whether to keep it: new, of this file, and of the right size."""
        expected = min(CHUNK_BYTES, self.file_bytes - chunk * CHUNK_BYTES)
        if file_bytes != self.file_bytes or body_bytes != expected or chunk not in self._missing:
            return False
        self._missing.discard(chunk)
        self._window.arrive(Key(self._sha256, chunk), now_ms)
        return True

    def drop(self, chunk: int, now_ms: float) -> None:
        """Note a chunk that came and could not be kept: it has to be sent again."""
        if chunk in self._missing:
            self._window.drop(Key(self._sha256, chunk), now_ms)

    def wanted(self, now_ms: float) -> Wanted | None:
        """Return what to request now; None while enough is on its way.

        Raises:
            DownloadError: nothing has come in `MAX_SILENT_ROUNDS` rounds of requests.
        """
        self._window.expire(now_ms)
        self._silent_before = min(self._silent_before, self._window.silent_rounds)
        if self._missing and self._window.silent_rounds - self._silent_before >= MAX_SILENT_ROUNDS:
            missing = f"{len(self._missing)} of {self.chunks} chunks"
            raise DownloadError(f"{missing} did not come, though requested {MAX_SILENT_ROUNDS} times")
        room = min(self._window.room, MAX_REQUEST)
        first = min((chunk for chunk in self._missing if not self._is_requested(chunk)), default=None)
        if not room or first is None:
            return None
        repeats = self._window.is_repeat(Key(self._sha256, first))
        run = 1
        while (
            run < room
            and (chunk := first + run) in self._missing
            and not self._is_requested(chunk)
            and self._window.is_repeat(Key(self._sha256, chunk)) == repeats
        ):
            run += 1
        for chunk in range(first, first + run):
            self._window.request(Key(self._sha256, chunk), now_ms)
        follows, self._has_asked = self._has_asked and not repeats, True
        return Wanted(first, run, follows)

    def next_check_ms(self, now_ms: float) -> float:
        """Return the ms to wait for a chunk before calling `wanted` again."""
        return self._window.next_check_ms(now_ms)

    def end(self) -> None:
        """Leave the window to other downloads."""
        self._window.leave(self._sha256)

    def _is_requested(self, chunk: int) -> bool:
        return self._window.is_requested(Key(self._sha256, chunk))
