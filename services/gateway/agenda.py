"""When which task needs attention next: a heap in which a newer plan replaces an older one. Pure."""

from heapq import heapify, heappop, heappush
from math import inf

_FEWEST = 64
"""Replaced plans that are kept in any case."""


class Agenda:
    """At most one moment for each key."""

    def __init__(self) -> None:
        self._planned: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        """Holds also plans that were replaced; they are dropped when they come up, or are the most."""

    @property
    def next_ms(self) -> float:
        """The earliest moment; infinite where there is none."""
        while self._heap and self._planned.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else inf

    def plan(self, key: str, at_ms: float) -> None:
        """Plan the moment of a key anew; an infinite one never comes."""
        if self._planned.get(key) == at_ms:
            return
        self._planned[key] = at_ms
        if at_ms < inf:
            self._drop_replaced()
            heappush(self._heap, (at_ms, key))

    def forget(self, key: str) -> None:
        """Plan nothing for a key any more."""
        self._planned.pop(key, None)

    def take_due(self, now_ms: float) -> list[str]:
        """Remove and return the keys whose moment has come, earliest first."""
        due = []
        while self.next_ms <= now_ms:
            _, key = heappop(self._heap)
            del self._planned[key]
            due.append(key)
        return due

    def _drop_replaced(self) -> None:
        """Drop replaced plans when they are the most: their moment may be a day away."""
        if len(self._heap) > 2 * len(self._planned) + _FEWEST:
            self._heap = [(at_ms, key) for key, at_ms in self._planned.items() if at_ms < inf]
            heapify(self._heap)
