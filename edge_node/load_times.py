"""How long loading takes once all files are there: a fixed time, and one that grows with their size.

A least-squares line through the most recent loads, older ones fading. Pure.
"""

from typing import NamedTuple

_KEPT = 0.8
"""Weight of all loads before the newest one."""
_LEAST_SPREAD = 1e-6
"""Variance of sizes, in MB squared, from which on they tell what size costs."""


class LoadLine(NamedTuple):
    """Time to load a fragment: `fixed_ms`, and `megabyte_ms` for each megabyte of its files."""

    fixed_ms: float
    megabyte_ms: float

    def load_ms(self, file_bytes: float) -> float:
        """Return the time for a fragment whose files have this size."""
        return self.fixed_ms + self.megabyte_ms * file_bytes / 1e6


class LoadTimes:
    """Loads so far, as decayed sums."""

    def __init__(self) -> None:
        self._count = self._megabytes = self._ms = self._squares = self._products = 0.0

    def add(self, file_bytes: float, took_ms: float) -> None:
        """Note a load."""
        size = file_bytes / 1e6
        self._count = _KEPT * self._count + 1.0
        self._megabytes = _KEPT * self._megabytes + size
        self._ms = _KEPT * self._ms + took_ms
        self._squares = _KEPT * self._squares + size * size
        self._products = _KEPT * self._products + size * took_ms

    def line(self) -> LoadLine | None:
        """Return the line, never falling and never below zero; None before the first load."""
        if not self._count:
            return None
        size, took_ms = self._megabytes / self._count, self._ms / self._count
        spread = self._squares / self._count - size * size
        if spread < _LEAST_SPREAD:
            return LoadLine(took_ms, 0.0)
        slope = max(0.0, (self._products / self._count - size * took_ms) / spread)
        if slope * size > took_ms:
            return LoadLine(0.0, took_ms / size)
        return LoadLine(took_ms - slope * size, slope)
