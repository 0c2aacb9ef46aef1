"""What a link still has to carry for tasks that were placed. Pure.

A fluid model: the bytes of a task count from its placement, as if all of them were there, and drain as fast
as the link carries them. So bytes that wait for a computation are taken to cross too early. Those of a task
that has ended are gone.
"""

from dataclasses import dataclass
from math import inf


@dataclass(slots=True)
class LinkBacklog:
    """The bytes of outstanding tasks on one direction of a link. Times are points on the caller's clock."""

    free_ms: float = -inf
    """When the link has carried all that was placed."""
    _outstanding_bytes: float = 0.0

    def put(self, size: float, byte_ms: float, now_ms: float) -> None:
        """Note bytes of a task that is placed now.

        Args:
            size: how many.
            byte_ms: time of a byte on the link; infinite where there is none.
            now_ms: the present moment.
        """
        self._outstanding_bytes += size
        if size > 0 and byte_ms < inf:
            self.free_ms = max(now_ms, self.free_ms) + size * byte_ms

    def drop(self, size: float, byte_ms: float, now_ms: float, *, done: bool) -> None:
        """Take back what was put: it has crossed (`done`), or never will."""
        self._outstanding_bytes = max(0.0, self._outstanding_bytes - size)
        if byte_ms < inf:
            gone_ms = 0.0 if done else size * byte_ms
            self.free_ms = min(self.free_ms - gone_ms, now_ms + self._outstanding_bytes * byte_ms)

    def backlog_ms(self, now_ms: float) -> float:
        """Return for how long it still carries what was placed."""
        return max(0.0, self.free_ms - now_ms)


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
