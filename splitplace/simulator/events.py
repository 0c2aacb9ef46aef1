"""A virtual clock: what is to happen, in the order of time."""

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf

Action = Callable[[], None]


class Event:
    """Something that will happen unless it is cancelled."""

    __slots__ = ("action", "time_ms")

    def __init__(self, time_ms: float, action: Action) -> None:
        self.time_ms = time_ms
        self.action: Action | None = action
        """None once it was cancelled."""

    def cancel(self) -> None:
        """It will not happen. Of one that has happened, nothing changes."""
        self.action = None


class EventQueue:
    """Events by time; those of one moment happen in the order in which they were planned."""

    def __init__(self, now_ms: float = 0.0) -> None:
        self.now_ms = now_ms
        """The present moment: that of the event that happens, or happened last."""
        self._heap: list[tuple[float, int, Event]] = []
        self._planned = 0

    def at(self, time_ms: float, action: Action) -> Event:
        """Plan an event for a moment, now at the earliest."""
        event = Event(max(time_ms, self.now_ms), action)
        self._planned += 1
        heappush(self._heap, (event.time_ms, self._planned, event))
        return event

    def after(self, delay_ms: float, action: Action) -> Event:
        """Plan an event for a while from now."""
        return self.at(self.now_ms + delay_ms, action)

    @property
    def next_ms(self) -> float:
        """When the next event happens; infinite where there is none."""
        while self._heap and self._heap[0][2].action is None:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else inf

    def step(self) -> None:
        """Let the next event happen, if there is one."""
        if self.next_ms < inf:
            time_ms, _, event = heappop(self._heap)
            self.now_ms = time_ms
            action, event.action = event.action, None
            if action is not None:
                action()

    def pass_to(self, time_ms: float) -> None:
        """Let time pass in which nothing happens.

        Raises:
            ValueError: something does.
        """
        if self.next_ms < time_ms:
            raise ValueError(f"an event at {self.next_ms} ms comes before {time_ms} ms")
        self.now_ms = max(self.now_ms, time_ms)
