"""Which tasks have ended lately, so that late messages about them change nothing. Pure."""

from collections import OrderedDict
from math import inf

KEEP_MS = 120_000.0
"""Time for which an ended task is remembered. Messages that come later waste a little work, and no more: a
key is never used again."""

MAX_ENDED = 10_000
"""Ended tasks that are remembered at most; the oldest are forgotten."""


def forgotten_ms(due_ms: float, grace_ms: float | None) -> float:
    """Return when a task whose end was never heard is forgotten; None is an unlimited grace."""
    return inf if grace_ms is None else due_ms + grace_ms + KEEP_MS


class EndedTasks:
    """Keys of ended tasks, each with its last attempt, for a bounded time.

    The time bounds the memory: it is full after two minutes of any load, not after ten thousand tasks.
    """

    def __init__(self, *, keep_ms: float = KEEP_MS, most: int = MAX_ENDED) -> None:
        """No tasks yet.

        Args:
            keep_ms: time for which a task is remembered.
            most: tasks that are remembered at most.
        """
        self._keep_ms = keep_ms
        self._most = most
        self._ended: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __contains__(self, task: str) -> bool:
        """Whether a task ended lately."""
        return task in self._ended

    def __len__(self) -> int:
        """Number of tasks that are remembered."""
        return len(self._ended)

    def attempt(self, task: str) -> int:
        """Return the last attempt of a task that ended; 0 for others."""
        return self._ended.get(task, (0, 0.0))[0]

    def add(self, task: str, attempt: int, now_ms: float) -> None:
        """Remember that a task ended with this attempt, or a later one that is known."""
        attempt = max(attempt, self.attempt(task))
        self._ended.pop(task, None)
        self._ended[task] = attempt, now_ms + self._keep_ms
        if len(self._ended) > self._most:
            self._ended.popitem(last=False)
        self.forget(now_ms)

    def forget(self, now_ms: float) -> None:
        """Drop the tasks whose time is over."""
        while self._ended and next(iter(self._ended.values()))[1] <= now_ms:
            self._ended.popitem(last=False)
