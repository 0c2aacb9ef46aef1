"""A forecast of the tasks to come: which applications, how urgent, how large. Pure: time is an argument.

What came counts by half after each half-life. No trend is assumed, and no time of day.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import floor, log, log2

MAX_GROUPS = 64
"""Groups that are kept; of more, those with the fewest tasks are forgotten."""

LEAST_WEIGHT = 0.01
"""Weight of the tasks of a group below which it is forgotten."""

LEAST_SHARE = 0.125
"""Share of a half-life that the first tasks count as spread over: the first one alone tells no rate."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Tasks of one application that leave about as much time."""

    application: str
    per_second: float
    """Tasks that are expected in a second."""
    batch: float
    """Mean number of inputs."""
    slack_ms: float
    """Mean time that was left when they were decided, in ms."""
    shares: Mapping[str, float]
    """Share of them for which each variant was chosen; together less than 1 where some were refused."""


@dataclass(slots=True)
class _Group:
    """Sums over the tasks of a group, as they count at `at_ms`."""

    at_ms: float
    tasks: float = 0.0
    inputs: float = 0.0
    slack_ms: float = 0.0
    variants: dict[str, float] = field(default_factory=dict)

    def fade(self, now_ms: float, half_life_ms: float) -> None:
        """Let the sums count as they do now."""
        left = 0.5 ** (max(0.0, now_ms - self.at_ms) / half_life_ms)
        self.at_ms = max(now_ms, self.at_ms)
        self.tasks *= left
        self.inputs *= left
        self.slack_ms *= left
        for variant in self.variants:
            self.variants[variant] *= left


class Forecast:
    """Counts tasks by application and by octave of the time they leave: 250 to 500 ms, 500 to 1000 ms ..."""

    def __init__(self, half_life_ms: float) -> None:
        """A forecast from nothing.

        Args:
            half_life_ms: time after which a task counts half as much as a new one.
        """
        self.half_life_ms = half_life_ms
        self._groups: dict[tuple[str, int], _Group] = {}
        self._began_ms: float | None = None

    def arrived(
        self, application: str, variant: str | None, batch: int, slack_ms: float, now_ms: float
    ) -> None:
        """Count a task.

        Args:
            application: its application.
            variant: what was chosen for it; None if it was refused.
            batch: number of its inputs.
            slack_ms: time that was left for it.
            now_ms: the present moment.
        """
        if self._began_ms is None:
            self._began_ms = now_ms
        key = application, floor(log2(max(1.0, slack_ms)))
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= MAX_GROUPS:
                self._forget(now_ms)
            group = self._groups[key] = _Group(now_ms)
        group.fade(now_ms, self.half_life_ms)
        group.tasks += 1
        group.inputs += batch
        group.slack_ms += max(0.0, slack_ms)
        if variant is not None:
            group.variants[variant] = group.variants.get(variant, 0.0) + 1

    def demands(self, now_ms: float) -> tuple[Demand, ...]:
        """Return what is expected from now on; nothing before the first task.

        A task that came now adds `ln 2 / half-life` to the rate. At the beginning the sums miss what would
        have come before the first task, and are scaled up for it.
        """
        if self._began_ms is None:
            return ()
        passed = max(LEAST_SHARE, (now_ms - self._began_ms) / self.half_life_ms)
        per_ms = log(2) / self.half_life_ms / (1 - 0.5**passed)
        found = []
        for (application, octave), group in sorted(self._groups.items()):
            group.fade(now_ms, self.half_life_ms)
            if group.tasks < LEAST_WEIGHT:
                del self._groups[application, octave]
                continue
            shares = {variant: count / group.tasks for variant, count in sorted(group.variants.items())}
            found.append(
                Demand(
                    application,
                    1000 * per_ms * group.tasks,
                    group.inputs / group.tasks,
                    group.slack_ms / group.tasks,
                    shares,
                )
            )
        return tuple(found)

    def _forget(self, now_ms: float) -> None:
        """Forget the group with the fewest tasks."""
        for group in self._groups.values():
            group.fade(now_ms, self.half_life_ms)
        del self._groups[min(self._groups, key=lambda key: (self._groups[key].tasks, key))]
