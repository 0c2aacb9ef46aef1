"""The line of tasks that wait to be begun: fair among sensors, whatever each of them sends. Pure.

Self-clocked fair queueing: every task gets a tag, the tag of its sensor's task before it plus its own cost,
and the smallest tag is next. A sensor that floods waits behind itself. One that sends little waits for one
task of each other sensor.
"""

from bisect import bisect_left, insort
from collections.abc import Container, Iterator, KeysView
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task in the line."""

    key: str
    sensor: str
    cost: float
    """Expected work, where a task of one input costs about 1."""
    due_ms: float
    """The deadline, as a point on the clock."""
    kind: str = ""
    """Tasks of the same kind take about as long."""


_Place = tuple[float, int, Waiting]
"""Tag, number of arrival, task. Arrivals have different numbers, so tasks are never compared."""


class Line:
    """Tasks in the order of their turns."""

    def __init__(self) -> None:
        self._places: list[_Place] = []
        self._last_tags: dict[str, float] = {}
        """The tag of the last task of each sensor that has any in the line."""
        self._counts: dict[str, int] = {}
        self._tag = 0.0
        """The tag of the task that left last."""
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Waiting]:
        """Yield the tasks in the order of their turns."""
        return (task for _, _, task in self._places)

    def add(self, task: Waiting) -> None:
        """Let a task wait for its turn."""
        tag = self._tag_of(task.sensor, task.cost)
        self._last_tags[task.sensor] = tag
        self._counts[task.sensor] = self._counts.get(task.sensor, 0) + 1
        self._arrivals += 1
        insort(self._places, (tag, self._arrivals, task))

    def cost_ahead(self, sensor: str, cost: float) -> float:
        """Return the cost of the tasks that would come before a further one of this sensor."""
        place = (self._tag_of(sensor, cost), self._arrivals + 1)
        return sum([task.cost for _, _, task in self._places[: bisect_left(self._places, place)]])

    @property
    def sensors(self) -> KeysView[str]:
        """The sensors that have tasks in the line."""
        return self._counts.keys()

    def take(self, ready: Container[str] | None = None, besides: Container[str] = ()) -> Waiting | None:
        """Remove and return the first task that is ready; None if there is none.

        Args:
            ready: keys of the tasks that may be begun; None = all.
            besides: sensors whose tasks are left out.
        """
        places = (
            index
            for index, (_, _, task) in enumerate(self._places)
            if (ready is None or task.key in ready) and task.sensor not in besides
        )
        index = next(places, None)
        if index is None:
            return None
        tag, _, task = self._places.pop(index)
        self._tag = max(self._tag, tag)
        self._left(task)
        return task

    def remove(self, tasks: set[str]) -> list[Waiting]:
        """Remove and return tasks by key, in the order of their turns."""
        removed = [task for _, _, task in self._places if task.key in tasks]
        if removed:
            self._places = [place for place in self._places if place[2].key not in tasks]
            for task in removed:
                self._left(task)
        return removed

    def _tag_of(self, sensor: str, cost: float) -> float:
        return max(self._tag, self._last_tags.get(sensor, 0.0)) + cost

    def _left(self, task: Waiting) -> None:
        """A sensor without a task in the line is like one that never was there."""
        self._counts[task.sensor] -= 1
        if not self._counts[task.sensor]:
            del self._counts[task.sensor], self._last_tags[task.sensor]
