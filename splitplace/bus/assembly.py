"""Assembles tensors from frames. Pure: bytes and times in, tensors out."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

from splitplace.messages.frames import Buffer, FrameError, TensorHeader, chunk_body, join_chunks
from splitplace.messages.limits import MEBIBYTE

MAX_WAITING_BYTES = 256 * MEBIBYTE
MAX_WAITING_TENSORS = 1024
MAX_REMEMBERED = 8192
MAX_REMEMBER_MS = 60_000.0
"""Longest time for which duplicates of a completed tensor are recognised."""
MAX_IDLE_MS = 30_000.0
"""Longest pause between two chunks of a tensor; after it, the sender or the broker has died."""


class TensorKey(NamedTuple):
    """Frames with equal values of this are chunks of one tensor."""

    task: str
    attempt: int
    stage: str
    micro_batch: int
    is_output: bool
    path: tuple[str, ...]
    """Nodes that it came through: a forged tensor cannot take the place of the right one."""
    second_run: bool


def key_of(header: TensorHeader) -> TensorKey:
    """Return the key of a header's tensor."""
    path = tuple(report.node for report in header.trace)
    return TensorKey(
        header.task,
        header.attempt,
        header.stage,
        header.micro_batch,
        header.route is None,
        path,
        header.second_run,
    )


@dataclass(slots=True)
class _Waiting:
    header: TensorHeader
    ends_ms: float
    last_chunk_ms: float
    chunks: dict[int, memoryview] = field(default_factory=dict)


class TensorAssembly:
    """Collects chunks in any order and gives out every tensor once, when it is complete.

    Repeated frames (MQTT repeats unacknowledged ones) change nothing, even after their tensor was completed.
    The first chunk reserves the bytes of the whole tensor, so that a tensor that has begun can always be
    completed; a tensor for which there is no room is refused.
    """

    def __init__(
        self,
        *,
        max_bytes: int = MAX_WAITING_BYTES,
        max_tensors: int = MAX_WAITING_TENSORS,
        max_idle_ms: float = MAX_IDLE_MS,
        max_remembered: int = MAX_REMEMBERED,
    ) -> None:
        """An empty assembly.

        Args:
            max_bytes: encoded bytes of all tensors that wait for chunks.
            max_tensors: how many may wait.
            max_idle_ms: longest pause between two chunks of a tensor.
            max_remembered: completed tensors whose duplicates are recognised.
        """
        self._max_bytes = max_bytes
        self._max_tensors = max_tensors
        self._max_idle_ms = max_idle_ms
        self._max_remembered = max_remembered
        self._waiting: dict[TensorKey, _Waiting] = {}
        self._completed: OrderedDict[TensorKey, float] = OrderedDict()
        self._reserved_bytes = 0

    @property
    def waiting_bytes(self) -> int:
        """Encoded bytes reserved by tensors that wait for chunks."""
        return self._reserved_bytes

    def __len__(self) -> int:
        """Number of tensors that wait for chunks."""
        return len(self._waiting)

    def add(
        self, header: TensorHeader, body: memoryview, now_ms: float
    ) -> tuple[TensorHeader, Buffer] | None:
        """Take one frame.

        Args:
            header: of the frame.
            body: the chunk; kept without a copy until its tensor is complete.
            now_ms: any clock that never goes back.

        Returns:
            Header (`chunk` 0) and encoded bytes of the tensor that this frame completed, if it did.

        Raises:
            FrameError: the chunk disagrees with its header or with earlier chunks, or there is no room.
        """
        chunk_body(header, body)
        key = key_of(header)
        if key in self._completed:
            return None
        if header.chunks == 1:
            self._remember(key, now_ms + header.expires_ms, now_ms)
            return header, body
        waiting = self._waiting.get(key) or self._begin(key, header, now_ms)
        first = header.model_copy(update={"chunk": 0})
        if first != waiting.header:
            raise FrameError(
                f"chunk {header.chunk} of {header.task}/{header.stage} contradicts the chunks before it"
            )
        waiting.chunks.setdefault(header.chunk, body)
        waiting.last_chunk_ms = now_ms
        if len(waiting.chunks) < header.chunks:
            return None
        self._forget(key)
        self._remember(key, waiting.ends_ms, now_ms)
        return first, join_chunks(waiting.chunks, header.chunks)

    def expire(self, now_ms: float) -> int:
        """Drop tensors that expired or whose chunks stopped coming. Returns their number."""
        gone = [
            key
            for key, waiting in self._waiting.items()
            if now_ms >= waiting.ends_ms or now_ms - waiting.last_chunk_ms >= self._max_idle_ms
        ]
        for key in gone:
            self._forget(key)
        for key in [key for key, ends_ms in self._completed.items() if now_ms >= ends_ms]:
            del self._completed[key]
        return len(gone)

    def drop(self, task: str, attempt: int) -> int:
        """Drop the tensors of a task, up to and including an attempt. Returns their number."""
        gone = [key for key in self._waiting if key.task == task and key.attempt <= attempt]
        for key in gone:
            self._forget(key)
        return len(gone)

    def _begin(self, key: TensorKey, header: TensorHeader, now_ms: float) -> _Waiting:
        if not self._has_room(header.body_bytes):
            self.expire(now_ms)
        if not self._has_room(header.body_bytes):
            raise FrameError(
                f"no room for {header.body_bytes} bytes: {len(self)} tensors already wait for chunks"
            )
        waiting = _Waiting(header.model_copy(update={"chunk": 0}), now_ms + header.expires_ms, now_ms)
        self._waiting[key] = waiting
        self._reserved_bytes += header.body_bytes
        return waiting

    def _has_room(self, encoded_bytes: int) -> bool:
        return (
            len(self._waiting) < self._max_tensors and self._reserved_bytes + encoded_bytes <= self._max_bytes
        )

    def _forget(self, key: TensorKey) -> None:
        self._reserved_bytes -= self._waiting.pop(key).header.body_bytes

    def _remember(self, key: TensorKey, ends_ms: float, now_ms: float) -> None:
        self._completed[key] = min(ends_ms, now_ms + MAX_REMEMBER_MS)
        if len(self._completed) > self._max_remembered:
            self._completed.popitem(last=False)
