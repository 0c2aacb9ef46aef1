"""The state of one fragment's download: which chunks are here and which to request. Pure.

Chunks come on a topic that all nodes share, so every one that arrives is used, whoever requested it.
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
        self._requested_ms: dict[int, float] = {}
        self._silent_rounds = 0

    @property
    def is_complete(self) -> bool:
        """Whether all chunks are here. The hash tells whether they are right."""
        return not self._missing

    def receive(self, chunk: int, body_bytes: int, file_bytes: int) -> bool:
        """Note a chunk. Returns whether to keep it: new, of this file, and of the right size."""
        expected = min(CHUNK_BYTES, self.file_bytes - chunk * CHUNK_BYTES)
        if file_bytes != self.file_bytes or body_bytes != expected or chunk not in self._missing:
            return False
        self._missing.discard(chunk)
        self._requested_ms.pop(chunk, None)
        self._silent_rounds = 0
        return True

    def wanted(self, now_ms: float) -> Wanted | None:
        """Return what to request now; None while enough is on its way.

        Raises:
            DownloadError: no new chunk has come in `MAX_SILENT_ROUNDS` rounds of requests.
        """
        late = [
            chunk
            for chunk, requested_ms in self._requested_ms.items()
            if now_ms - requested_ms >= PATIENCE_MS
        ]
        if late and len(late) == len(self._requested_ms):
            self._silent_rounds += 1
            if self._silent_rounds >= MAX_SILENT_ROUNDS:
                missing = f"{len(self._missing)} of {self.chunks} chunks"
                raise DownloadError(f"{missing} did not come, though requested {MAX_SILENT_ROUNDS} times")
        for chunk in late:
            del self._requested_ms[chunk]
        unrequested = self._missing - self._requested_ms.keys()
        if not unrequested or len(self._requested_ms) > WINDOW // 2:
            return None
        first = min(unrequested)
        run = 1
        while run < WINDOW - len(self._requested_ms) and first + run in unrequested:
            run += 1
        self._requested_ms.update(dict.fromkeys(range(first, first + run), now_ms))
        return Wanted(first, run)

    def next_check_ms(self, now_ms: float) -> float:
        """Return the ms to wait for a chunk before calling `wanted` again."""
        oldest = min(self._requested_ms.values(), default=now_ms)
        return max(0.0, oldest + PATIENCE_MS - now_ms)
