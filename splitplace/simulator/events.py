"""A virtual clock: a queue of events in order of time."""

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf

Action = Callable[[], None]


class Event:
    """An action at a time, unless it is cancelled."""

    __slots__ = ("action", "time_ms")

    def __init__(self, time_ms: float, action: Action) -> None:
        self.time_ms = time_ms
        self.action: Action | None = action
        """None once the event happened or was cancelled."""

    def cancel(self) -> None:
        """Cancel the event; no effect once it has happened."""
        self.action = None


class EventQueue:
    """Events in order of time; simultaneous events happen in the order in which they were scheduled."""

    def __init__(self, now_ms: float = 0.0) -> None:
        self.now_ms = now_ms
        """The current time: that of the latest event."""
        self._heap: list[tuple[float, int, Event]] = []
        self._scheduled = 0

    def at(self, time_ms: float, action: Action) -> Event:
        """Schedule an event for a time, now at the earliest."""
        event = Event(max(time_ms, self.now_ms), action)
        self._scheduled += 1
        heappush(self._heap, (event.time_ms, self._scheduled, event))
        return event

    def after(self, delay_ms: float, action: Action) -> Event:
        """Schedule an event after a delay."""
        return self.at(self.now_ms + delay_ms, action)

    @property
    def next_ms(self) -> float:
        """Time of the next event; infinite if there is none."""
        while self._heap and self._heap[0][2].action is None:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else inf

    def step(self) -> None:
        """Run the next event, if there is one."""
        while self._heap:
            time_ms, _, event = heappop(self._heap)
            action, event.action = event.action, None
            if action is not None:
                self.now_ms = time_ms
                action()
                return

    def pass_to(self, time_ms: float) -> None:
        """Advance the clock without running events.

        Raises:
            ValueError: an event is due before that time.
        """
        if self.next_ms < time_ms:
            raise ValueError(f"an event at {self.next_ms} ms comes before {time_ms} ms")
        self.now_ms = max(self.now_ms, time_ms)
