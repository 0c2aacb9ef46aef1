"""Reservations of memory by fragments and by their preparation. Pure: nothing is loaded here."""

import threading
from collections import OrderedDict
from collections.abc import Container
from dataclasses import dataclass
from math import inf

from splitplace.errors import SplitPlaceError

_PREPARING = ""
"""Stands for the preparation among the names of fragments."""


class DoesNotFitError(SplitPlaceError):
    """A fragment needs more than the whole budget."""

    def __init__(self, needed_bytes: int, budget_bytes: int) -> None:
        super().__init__(f"needs {needed_bytes} bytes of memory, the budget is {budget_bytes}")
        self.needed_bytes = needed_bytes
        self.budget_bytes = budget_bytes


@dataclass(frozen=True, slots=True)
class _Size:
    """What a fragment takes."""

    private_bytes: int
    mapped_bytes: int


class MemoryBudget:
    """Reserves private memory for every loaded fragment; the least recently used make room.

    Mapped weights are page cache, which gives way where memory is short, at the price of reading them again.
    So they do not count against the budget. Idle fragments make room for them as well, if they can.

    What is left is lent for a moment to further runs of a fragment at the same time, in any thread. Whoever
    waits for room comes first.
    """

    def __init__(self, budget_bytes: int, all_bytes: int | None = None) -> None:
        """A budget with nothing reserved.

        Args:
            budget_bytes: Bound of private memory.
            all_bytes: Bound of private and mapped memory together, which may be exceeded; None = none.
        """
        self.budget_bytes = budget_bytes
        self._all_bytes = all_bytes
        self._sizes: OrderedDict[str, _Size] = OrderedDict()
        self._preparing_bytes = 0
        self._lent_bytes = 0
        self._awaited: set[str] = set()
        """Fragments that wait for room, the empty name for a preparation: nothing is lent meanwhile."""
        self._lock = threading.Lock()
        """Held while anything changes."""

    @property
    def reserved_bytes(self) -> int:
        """Private memory of all reservations."""
        return sum(size.private_bytes for size in self._sizes.values()) + self._preparing_bytes

    @property
    def mapped_bytes(self) -> int:
        """Mapped weights of all fragments with a reservation."""
        return sum(size.mapped_bytes for size in self._sizes.values())

    @property
    def reserved(self) -> tuple[str, ...]:
        """Fragments that hold a reservation, least recently used first."""
        return tuple(self._sizes)

    def fits_beside(self, private_bytes: int, mapped_bytes: int = 0) -> bool:
        """Whether there is room without unloading anything."""
        if self.reserved_bytes + private_bytes > self.budget_bytes:
            return False
        return private_bytes + mapped_bytes <= self._room_for_all()

    def reserve(
        self, fragment: str, needed_bytes: int, busy: Container[str], mapped_bytes: int = 0
    ) -> tuple[str, ...] | None:
        """Reserve memory for a fragment that has none yet.

        Args:
            fragment: its hash.
            needed_bytes: its peak of private memory while it runs.
            busy: fragments that must stay.
            mapped_bytes: its mapped weights.

        Returns:
            The fragments to unload, whose reservations were given up; None if there is no room before busy
            fragments have finished (then nothing has changed).

        Raises:
            DoesNotFitError: it needs more than the whole budget.
        """
        with self._lock:
            evicted = self._evict(fragment, _Size(needed_bytes, mapped_bytes), busy)
            if evicted is not None:
                self._sizes[fragment] = _Size(needed_bytes, mapped_bytes)
            return evicted

    def reserve_preparing(self, needed_bytes: int, busy: Container[str]) -> tuple[str, ...] | None:
        """Reserve memory for a child process that prepares a fragment; there is one at a time.

        It holds until `release_preparing`. Arguments, result and error are those of `reserve`.
        """
        with self._lock:
            evicted = self._evict(_PREPARING, _Size(needed_bytes, 0), busy)
            if evicted is not None:
                self._preparing_bytes = needed_bytes
            return evicted

    def release_preparing(self) -> None:
        """Give the reservation of a preparation back, or no longer wait for it."""
        with self._lock:
            self._awaited.discard(_PREPARING)
            self._preparing_bytes = 0

    def lend(self, size: int) -> bool:
        """Whether so many bytes are free and nobody waits for room; then they are lent until `repay`."""
        with self._lock:
            if self._awaited or size > self.budget_bytes - self.reserved_bytes - self._lent_bytes:
                return False
            self._lent_bytes += size
            return True

    def repay(self, size: int) -> None:
        """Take back what was lent."""
        with self._lock:
            self._lent_bytes -= size

    def use(self, fragment: str) -> None:
        """Note that a fragment was used just now."""
        with self._lock:
            if fragment in self._sizes:
                self._sizes.move_to_end(fragment)

    def release(self, fragment: str) -> None:
        """Give a reservation back, if there is one; a fragment that waits for room waits no more."""
        with self._lock:
            self._awaited.discard(fragment)
            self._sizes.pop(fragment, None)

    def _evict(self, name: str, wanted: _Size, busy: Container[str]) -> tuple[str, ...] | None:
        """Drop reservations until something fits. Return them; None if private memory does not suffice."""
        if wanted.private_bytes > self.budget_bytes:
            raise DoesNotFitError(wanted.private_bytes, self.budget_bytes)
        self._awaited.add(name)
        free_bytes = self.budget_bytes - self.reserved_bytes
        if free_bytes - self._lent_bytes < wanted.private_bytes <= free_bytes:
            return None  # what is lent will be back in a moment
        free_bytes -= self._lent_bytes
        room_bytes = self._room_for_all()
        evicted: list[str] = []
        for candidate, size in self._sizes.items():
            if free_bytes >= wanted.private_bytes and (
                room_bytes >= wanted.private_bytes + wanted.mapped_bytes
            ):
                break
            if candidate not in busy:
                evicted.append(candidate)
                free_bytes += size.private_bytes
                room_bytes += size.private_bytes + size.mapped_bytes
        if free_bytes < wanted.private_bytes:
            return None
        for candidate in evicted:
            del self._sizes[candidate]
        self._awaited.discard(name)
        return tuple(evicted)

    def _room_for_all(self) -> float:
        """Return what the bound of private and mapped memory leaves; it may be negative."""
        if self._all_bytes is None:
            return inf
        return self._all_bytes - self.reserved_bytes - self.mapped_bytes
