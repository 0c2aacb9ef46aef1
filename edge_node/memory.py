"""Reservations of the memory budget by fragments. Pure: nothing is loaded here."""

from collections import OrderedDict
from collections.abc import Container

from splitplace.errors import SplitPlaceError


class DoesNotFitError(SplitPlaceError):
    """A fragment needs more than the whole budget."""

    def __init__(self, needed_bytes: int, budget_bytes: int) -> None:
        super().__init__(f"needs {needed_bytes} bytes of memory, the budget is {budget_bytes}")
        self.needed_bytes = needed_bytes
        self.budget_bytes = budget_bytes


class MemoryBudget:
    """Reserves memory for every loaded fragment; the least recently used make room."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._reserved: OrderedDict[str, int] = OrderedDict()

    @property
    def reserved_bytes(self) -> int:
        """Sum of all reservations."""
        return sum(self._reserved.values())

    @property
    def reserved(self) -> tuple[str, ...]:
        """Fragments that hold a reservation, least recently used first."""
        return tuple(self._reserved)

    def reserve(self, fragment: str, needed_bytes: int, busy: Container[str]) -> tuple[str, ...] | None:
        """Reserve memory for a fragment that has none yet.

        Args:
            fragment: its hash.
            needed_bytes: its peak memory while it runs.
            busy: fragments that must stay.

        Returns:
            The fragments to unload, whose reservations were given up; None if there is no room before busy
            fragments have finished (then nothing has changed).

        Raises:
            DoesNotFitError: it needs more than the whole budget.
        """
        if needed_bytes > self.budget_bytes:
            raise DoesNotFitError(needed_bytes, self.budget_bytes)
        free = self.budget_bytes - self.reserved_bytes
        evicted: list[str] = []
        for candidate, size in self._reserved.items():
            if free >= needed_bytes:
                break
            if candidate not in busy:
                evicted.append(candidate)
                free += size
        if free < needed_bytes:
            return None
        for candidate in evicted:
            del self._reserved[candidate]
        self._reserved[fragment] = needed_bytes
        return tuple(evicted)

    def use(self, fragment: str) -> None:
        """Note that a fragment was used just now."""
        if fragment in self._reserved:
            self._reserved.move_to_end(fragment)

    def release(self, fragment: str) -> None:
        """Give a reservation back, if there is one."""
        self._reserved.pop(fragment, None)
