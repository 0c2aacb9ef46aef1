"""What a link still has to carry for tasks that were placed. Pure.

A fluid model: the bytes of a task count from its placement, as if all of them were there, and drain as fast
as the link carries them, one task after the other. So bytes that wait for a computation are taken to cross
too early. Those of a task that has ended are gone.
"""

from collections import OrderedDict
from math import inf


class LinkBacklog:
    """The bytes of outstanding tasks on one direction of a link. Times are points on the caller's clock."""

    __slots__ = ("_at_ms", "_left", "_left_bytes", "byte_ms")

    def __init__(self, byte_ms: float = 0.0) -> None:
        """A link that has nothing to carry.

        Args:
            byte_ms: time of a byte on it; 0: it is never what limits a transfer; infinite: there is none.
        """
        self.byte_ms = byte_ms
        self._at_ms = -inf
        """When the figures below were right."""
        self._left: OrderedDict[str, float] = OrderedDict()
        """Bytes of each task, the earliest first."""
        self._left_bytes = 0.0

    @property
    def free_ms(self) -> float:
        """When it has carried all that was placed."""
        if not self._left_bytes:  # infinitely long for nothing is no number
            return self._at_ms
        return self._at_ms + self._left_bytes * self.byte_ms

    def backlog_ms(self, now_ms: float) -> float:
        """Return for how long it still carries what was placed."""
        return max(0.0, self.free_ms - now_ms)

    def tasks(self, now_ms: float) -> int:
        """Return the number of tasks that it still carries something for."""
        self._drain(now_ms)
        return len(self._left)

    def put(self, task: str, size: float, now_ms: float) -> None:
        """Note bytes of a task that is placed now."""
        self._drain(now_ms)
        if size > 0 and self.byte_ms:
            self._left[task] = self._left.get(task, 0.0) + size
            self._left_bytes += size

    def drop(self, task: str, now_ms: float) -> None:
        """Forget what it has not carried of a task: that came otherwise, or never will."""
        self._drain(now_ms)
        self._take(task, self._left.get(task, 0.0))

    def change(self, byte_ms: float, now_ms: float) -> None:
        """Note that it is faster or slower from now on."""
        if byte_ms != self.byte_ms:
            self._drain(now_ms)
            self.byte_ms = byte_ms
            self._drain(now_ms)

    def _drain(self, now_ms: float) -> None:
        """Bring the figures up to date."""
        if not self.byte_ms:
            self._left.clear()
            self._left_bytes = 0.0
        elif self._left:
            carried = max(0.0, now_ms - self._at_ms) / self.byte_ms
            while self._left and carried > 0:
                task, size = next(iter(self._left.items()))
                self._take(task, min(size, carried))
                carried -= size
        self._at_ms = max(self._at_ms, now_ms)

    def _take(self, task: str, size: float) -> None:
        left = self._left.pop(task, 0.0) - size
        self._left_bytes -= size
        if left > 0:
            self._left[task] = left
            self._left.move_to_end(task, last=False)
        if not self._left:
            self._left_bytes = 0.0  # without rounding errors


def share_of_link(size: float, backlog_bytes: float, tasks: int) -> float:
    """Return the share of a link that a job has beside outstanding tasks, in (0, 1].

    A task delays the job by as many bytes as the job has itself, and all of them by no more than they have
    left: processor sharing, if all bytes were there.

    Args:
        size: bytes of the job.
        backlog_bytes: what the link still has to carry for others.
        tasks: number of the others.
    """
    return 1.0 if size <= 0 else 1 / (1 + min(backlog_bytes / size, tasks))
