"""Outstanding work on a node by deadline: what is ahead of a task is found without a walk over all tasks."""

from bisect import bisect_left, bisect_right
from itertools import accumulate
from math import inf

_LAST = "\U0010ffff"
"""Sorts behind every task key."""


class EarlierWork:
    """What tasks still need of one node, ordered by deadline."""

    def __init__(self) -> None:
        self._order: list[tuple[float, str]] = []
        """Deadline and key of each task."""
        self._work_ms: list[float] = []
        self._sums_ms: list[float] = []
        """Sums of `_work_ms` up to each task; those missing at the end are added when somebody asks."""

    def put(self, task: str, due_ms: float, work_ms: float) -> None:
        """Add or replace the work of a task. Its deadline must not change."""
        entry = (due_ms, task)
        index = bisect_left(self._order, entry)
        if index < len(self._order) and self._order[index] == entry:
            self._work_ms[index] = work_ms
        else:
            self._order.insert(index, entry)
            self._work_ms.insert(index, work_ms)
        del self._sums_ms[index:]

    def drop(self, task: str, due_ms: float) -> None:
        """Remove the work of a task. Unknown tasks are ignored."""
        entry = (due_ms, task)
        index = bisect_left(self._order, entry)
        if index < len(self._order) and self._order[index] == entry:
            del self._order[index], self._work_ms[index], self._sums_ms[index:]

    def until_ms(self, due_ms: float) -> float:
        """Return the work of all tasks that are due at `due_ms` or before."""
        count = len(self._order) if due_ms == inf else bisect_right(self._order, (due_ms, _LAST))
        if not count:
            return 0.0
        summed = len(self._sums_ms)
        if summed < count:
            before_ms = self._sums_ms[-1] if summed else 0.0
            more = accumulate(self._work_ms[summed:], initial=before_ms)
            next(more)
            self._sums_ms.extend(more)
        return self._sums_ms[count - 1]
