"""What the system behind the gateway can do: measured, not configured. Pure."""

from collections import OrderedDict
from math import inf

MEMORY = 32.0
"""Ends of tasks over which the pace is averaged, about."""
FEWEST = 8.0
"""Ends of tasks before the pace says anything."""

UNUSUAL = 3.0
"""A silence this many times as long as usual counts, although no task has ended yet."""

LEAST_SLOWDOWN, MOST_SLOWDOWN = 1.5, 2.0
"""Responses as multiples of the quickest: below, the window grows; above, it shrinks. Whoever comes beside a
flood waits for the tasks in the window, so this bounds how much a flood delays others."""
FORGETTING = 0.05
"""Share of the difference by which a quickest response follows those that come while nobody waits."""
MAX_KINDS = 256


class Pace:
    """How long the system takes for a task, measured only while others wait: idle time says nothing."""

    def __init__(self) -> None:
        self._busy_ms = 0.0
        self._cost = 0.0
        self._ends = 0.0
        self._since_ms: float | None = None
        """The last end of a task, or when tasks began to wait; None while none waits."""

    def waiting(self, tasks: int, now_ms: float) -> None:
        """Note how many tasks wait for their turn."""
        if not tasks:
            self._since_ms = None
        elif self._since_ms is None:
            self._since_ms = now_ms

    def ended(self, cost: float, now_ms: float) -> None:
        """A task that was begun has ended."""
        if self._since_ms is None:
            return
        kept = 1.0 - 1.0 / MEMORY
        self._busy_ms = kept * self._busy_ms + now_ms - self._since_ms
        self._cost = kept * self._cost + cost
        self._ends = kept * self._ends + 1.0
        self._since_ms = now_ms

    def cost_ms(self, now_ms: float) -> float | None:
        """Return the time for each unit of cost; None where too little is known."""
        if self._ends < FEWEST:
            return None
        silent_ms = now_ms - self._since_ms if self._since_ms is not None else 0.0
        usual_ms = self._busy_ms / self._ends
        return (self._busy_ms + max(0.0, silent_ms - UNUSUAL * usual_ms)) / self._cost


class Window:
    """How many tasks are begun at once: enough to keep everybody busy, and few that wait behind each other.

    TCP Vegas: the quickest response of tasks of a kind is what they take alone; what a response exceeds it by
    was spent waiting.
    """

    def __init__(self) -> None:
        self._size = 1.0
        self._nodes = 0
        self._quickest_ms: OrderedDict[str, float] = OrderedDict()

    def size(self, nodes: int) -> float:
        """Return the window: at first a task for each node, one to decide and one to answer; never less than
        one, and one for every two nodes: some of them are slower than the quickest response says.
        """
        if nodes > self._nodes:
            self._size = max(self._size, nodes + 2.0)
        self._nodes = nodes
        self._size = max(self._size, 1.0 + nodes / 2)
        return self._size

    def ended(self, kind: str, response_ms: float, *, is_full: bool) -> None:
        """A task has ended.

        Args:
            kind: tasks of the same kind take about as long.
            response_ms: since it was begun.
            is_full: whether others wait, so that a larger window would be used.
        """
        quickest_ms = self._quickest_ms.pop(kind, inf)
        if not is_full and quickest_ms < inf:  # the system may have become slower
            quickest_ms += FORGETTING * (response_ms - quickest_ms)
        quickest_ms = min(response_ms, quickest_ms)
        self._quickest_ms[kind] = quickest_ms
        if len(self._quickest_ms) > MAX_KINDS:
            self._quickest_ms.popitem(last=False)
        if response_ms < LEAST_SLOWDOWN * quickest_ms and is_full:
            self._size += 1.0 / self._size
        elif response_ms > MOST_SLOWDOWN * quickest_ms:
            self._size = max(1.0, self._size - 1.0 / self._size)
