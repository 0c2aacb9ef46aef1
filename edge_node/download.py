"""The state of one fragment's download: which chunks are here and which to request. Pure.

Chunks come on a topic that all nodes share, so any that arrives is taken, whoever asked for it.
"""

from collections.abc import Collection
from dataclasses import dataclass

from splitplace.errors import SplitPlaceError
from splitplace.messages.limits import CHUNK_BYTES

WINDOW = 16
"""Chunks requested at a time."""
PATIENCE_MS = 1000.0
"""Request a chunk again after this many ms."""
MAX_SILENT_ROUNDS = 8
"""Rounds of requests in a row without a new chunk after which the download fails."""


class DownloadError(SplitPlaceError):
    """A fragment that cannot be fetched."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run of chunks to request."""

    first_chunk: int
    chunks: int


class Download:
    """Tracks which chunks of a file of known size are here, requested, or missing."""

    def __init__(self, file_bytes: int, written: Collection[int] = ()) -> None:
        """Begin a download; the chunks `written` are here already."""
        self.file_bytes = file_bytes
        self.chunks = -(-file_bytes // CHUNK_BYTES)
        self._missing = set(range(self.chunks)).difference(written)
        self._asked: dict[int, float] = {}
        self._silent_rounds = 0

    @property
    def is_complete(self) -> bool:
        """Whether all chunks are here. The hash tells whether they are right."""
        return not self._missing

    def receive(self, chunk: int, body_bytes: int, file_bytes: int) -> bool:
        """Whether a chunk is to be kept: new, of this file, and of the right size."""
        expected = min(CHUNK_BYTES, self.file_bytes - chunk * CHUNK_BYTES)
        if file_bytes != self.file_bytes or body_bytes != expected or chunk not in self._missing:
            return False
        self._missing.discard(chunk)
        self._asked.pop(chunk, None)
        self._silent_rounds = 0
        return True

    def wanted(self, now_ms: float) -> Wanted | None:
        """Return what to request now; None while enough is on its way.

        Raises:
            DownloadError: nothing new has come for `MAX_SILENT_ROUNDS` rounds of asking.
        """
        late = [chunk for chunk, asked_ms in self._asked.items() if now_ms - asked_ms >= PATIENCE_MS]
        if late and len(late) == len(self._asked):
            self._silent_rounds += 1
            if self._silent_rounds >= MAX_SILENT_ROUNDS:
                missing = f"{len(self._missing)} of {self.chunks} chunks"
                raise DownloadError(f"{missing} did not come, though asked for {MAX_SILENT_ROUNDS} times")
        for chunk in late:
            del self._asked[chunk]
        unasked = self._missing - self._asked.keys()
        if not unasked or len(self._asked) > WINDOW // 2:
            return None
        first = min(unasked)
        run = 1
        while run < WINDOW - len(self._asked) and first + run in unasked:
            run += 1
        self._asked.update(dict.fromkeys(range(first, first + run), now_ms))
        return Wanted(first, run)

    def next_check_ms(self, now_ms: float) -> float:
        """Return the ms to wait for a chunk before calling `wanted` again."""
        oldest = min(self._asked.values(), default=now_ms)
        return max(0.0, oldest + PATIENCE_MS - now_ms)
