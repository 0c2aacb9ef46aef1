"""Remembers for a moment what senders were told to try again later. Pure.

A sender whose publication is not acknowledged publishes it again, so copies of a task come together, often
after a while in which the gateway was away. If the first is refused and room is found for the second, the
sender hears `refused` and then an answer. So the copies of a refused task are refused alike. What the broker
delivers once more is a copy however late it comes: a broker that stood still delivers it when it goes on.
"""

from collections import OrderedDict
from dataclasses import dataclass

from splitplace.services.gateway.refusals import RefusalKind

COPIES_WITHIN_MS = 1000.0
"""A task that comes this soon after its refusal is a copy; later, its sender tries again."""
MAX_REMEMBERED = 10_000

TaskId = tuple[str, str, str]
"""Sender, task id, hash of the content."""


@dataclass(frozen=True, slots=True)
class RecentRefusal:
    """A refusal that its sender was told."""

    kind: RefusalKind
    reason: str
    told_ms: float


class RecentRefusals:
    """The refusals of the last moments, bounded."""

    def __init__(self) -> None:
        self._told: OrderedDict[TaskId, RecentRefusal] = OrderedDict()

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._told)

    def add(self, task: TaskId, kind: RefusalKind, reason: str, now_ms: float) -> None:
        """Remember a refusal. Of copies the first counts, so that the time does not begin anew."""
        before = self._told.get(task)
        if before is not None and now_ms <= before.told_ms + COPIES_WITHIN_MS:
            return
        self._told[task] = RecentRefusal(kind, reason, now_ms)
        self._told.move_to_end(task)
        if len(self._told) > MAX_REMEMBERED:
            self._told.popitem(last=False)

    def find(self, task: TaskId, arrived_ms: float, *, redelivered: bool = False) -> RecentRefusal | None:
        """Return the refusal that a copy must hear; None if the task is new, or tried again.

        Args:
            task: who sent what.
            arrived_ms: when this copy came: one that waited here while the other was refused is a copy too.
            redelivered: whether the broker says that it has delivered this very message before.
        """
        told = self._told.get(task)
        if told is None or redelivered:
            return told
        if arrived_ms > told.told_ms + COPIES_WITHIN_MS:
            del self._told[task]
            return None
        return told
