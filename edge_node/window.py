"""How much a node requests at a time, and for how long it waits: both follow what the link gives. Pure.

All downloads of a node share one window, because they share one link. It grows while chunks come without
queueing, and shrinks when they queue or are lost, as TCP's does. A chunk counts as lost when nothing at all
has come for a multiple of the time that chunks take, or when later ones have overtaken it.
"""

from dataclasses import dataclass
from typing import NamedTuple

MAX_WINDOW = 32
"""Max. chunks on their way to a node."""
MAX_QUEUEING_MS = 500.0
"""Longest time that a chunk should wait behind others on the link."""
FIRST_PATIENCE_MS = 4000.0
"""Time without any chunk after which a request is repeated, before the link has been measured."""
MIN_PATIENCE_MS = 1000.0
MAX_PATIENCE_MS = 60_000.0
PATIENCE = 4.0
"""Patience as a multiple of the time that chunks take."""
MAX_OVERTAKEN = 3
"""Number of later chunks that may come first."""
_SMOOTHING = 0.25
_BACK_OFF = 0.75


class Key(NamedTuple):
    """One chunk of one file."""

    file: str
    """SHA-256 of the file."""
    chunk: int


@dataclass(slots=True)
class _Request:
    requested_ms: float
    """When it was requested last."""
    overtaken: int = 0


class Window:
    """The chunks on their way to a node."""

    def __init__(self) -> None:
        self.silent_rounds = 0
        """Times in a row that patience ended without any chunk."""
        self._size = 1.0
        self._is_starting = True
        """Whether the window still doubles."""
        self._requests: dict[Key, _Request] = {}
        """In the order of the requests."""
        self._first_requested_ms: dict[Key, float] = {}
        """When chunks that were lost, or seemed so, were requested first."""
        self._delay_ms: float | None = None
        self._least_delay_ms: float | None = None
        self._last_arrival_ms = float("-inf")
        self._last_cut_ms = float("-inf")

    @property
    def size(self) -> int:
        """Number of chunks that may be on their way."""
        return int(self._size)

    @property
    def room(self) -> int:
        """Number of chunks to request now. 0 while more than half of the window is on its way."""
        return 0 if len(self._requests) > self.size // 2 else self.size - len(self._requests)

    @property
    def patience_ms(self) -> float:
        """Time without any chunk after which those on their way count as lost."""
        if self._delay_ms is None:
            patience_ms = FIRST_PATIENCE_MS
        else:
            patience_ms = max(MIN_PATIENCE_MS, PATIENCE * self._delay_ms)
        return min(MAX_PATIENCE_MS, patience_ms * 2.0 ** min(self.silent_rounds, 10))

    def begin(self) -> None:
        """Note a new download. It does not pay for the silence before it."""
        if not self._requests:
            self.silent_rounds = 0

    def leave(self, file: str) -> None:
        """Forget the requests of a download that has ended."""
        for key in [key for key in self._requests if key.file == file]:
            del self._requests[key]
        for key in [key for key in self._first_requested_ms if key.file == file]:
            del self._first_requested_ms[key]

    def request(self, key: Key, now_ms: float) -> None:
        """Note the request of a chunk."""
        self._requests[key] = _Request(now_ms)

    def is_requested(self, key: Key) -> bool:
        """Whether a chunk is on its way."""
        return key in self._requests

    def is_repeat(self, key: Key) -> bool:
        """Whether a chunk was requested before and counts as lost."""
        return key in self._first_requested_ms and key not in self._requests

    def arrive(self, key: Key, now_ms: float) -> None:
        """Note a new chunk, also one that another node has requested."""
        self._last_arrival_ms = now_ms
        self.silent_rounds = 0
        request = self._requests.pop(key, None)
        first_ms = self._first_requested_ms.pop(key, None)
        if request is None:
            return
        for earlier in self._requests.values():
            if earlier.requested_ms >= request.requested_ms:
                break
            earlier.overtaken += 1
        self._measure(now_ms - (request.requested_ms if first_ms is None else first_ms), now_ms)

    def drop(self, key: Key, now_ms: float) -> None:
        """Note a chunk that came and could not be kept."""
        self._first_requested_ms.setdefault(key, now_ms)
        self._requests.pop(key, None)

    def expire(self, now_ms: float) -> None:
        """Count chunks as lost that are overdue: request them again."""
        late = [key for key, request in self._requests.items() if self._due_ms(request) <= now_ms]
        if not late:
            return
        if len(late) == len(self._requests) and now_ms - self._last_arrival_ms >= self.patience_ms:
            self.silent_rounds += 1
        self._lose(late)
        self._cut(0.5, now_ms)

    def restart(self) -> None:
        """Count all chunks on their way as lost, because the connection is a new one."""
        self.silent_rounds = 0
        self._lose(list(self._requests))
        self._size, self._is_starting = 1.0, True

    def next_check_ms(self, now_ms: float) -> float:
        """Return the ms until `expire` may have something to do."""
        due_ms = min(
            (self._due_ms(each) for each in self._requests.values()), default=now_ms + MIN_PATIENCE_MS
        )
        return max(0.0, due_ms - now_ms)

    def _due_ms(self, request: _Request) -> float:
        """When a chunk counts as lost: what has been overtaken does not wait for silence."""
        if request.overtaken >= MAX_OVERTAKEN:
            return request.requested_ms + self.patience_ms
        return max(request.requested_ms, self._last_arrival_ms) + self.patience_ms

    def _lose(self, keys: list[Key]) -> None:
        for key in keys:
            self._first_requested_ms.setdefault(key, self._requests.pop(key).requested_ms)

    def _measure(self, delay_ms: float, now_ms: float) -> None:
        if self._delay_ms is None or self._least_delay_ms is None:
            self._delay_ms = self._least_delay_ms = delay_ms
        self._delay_ms = max(delay_ms, self._delay_ms + _SMOOTHING * (delay_ms - self._delay_ms))
        self._least_delay_ms = min(delay_ms, self._least_delay_ms)
        if delay_ms - self._least_delay_ms > MAX_QUEUEING_MS:
            self._cut(_BACK_OFF, now_ms)
        elif self._is_starting:
            self._size = min(self._size + 1, MAX_WINDOW)
        else:
            self._size = min(self._size + 1 / self._size, MAX_WINDOW)

    def _cut(self, factor: float, now_ms: float) -> None:
        """Shrink the window, once in the time that a chunk takes: what is on its way cannot know yet."""
        self._is_starting = False
        if now_ms - self._last_cut_ms >= (self._delay_ms or 0.0):
            self._size = max(1.0, self._size * factor)
            self._last_cut_ms = now_ms
