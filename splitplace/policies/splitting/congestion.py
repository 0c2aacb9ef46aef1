"""The price of work: reward that other tasks lose by a millisecond of it.

Work is computing time, or what a task takes of the broker's link, where that is more (`Arm.burden_ms`).

Work delays other tasks, and a delayed task may miss its deadline. Three facts about queues, with
measurements of recent tasks, give the reward that a little more work costs all of them together:

1. **Loss grows with the square of the load**: deadlines absorb small delays, not great ones. With c = mean
   loss / mean load^2, a task loses 2 c L more reward per millisecond by which the load L grows.
2. **Load is work**: of the load that recent tasks met, a task of w times their mean work brought w times a
   task's share. Both together: per unit of work `2 (mean loss / mean work) (L / mean load)`.
3. **Work makes further work wait.** In a queue with Poisson arrivals and utilisation rho the load is
   `L = rho / (1 - rho) * E[w^2] / (2 E[w])` (Pollaczek and Khinchine), and it grows with the work 1 / (1 -
   rho) times as fast as fact 2 counts. Solved for that: `1 / (1 - rho) = 1 + 2 L E[w] / E[w^2]`. This keeps a
   system away from saturation: near it, even a light task costs more than it earns.

The load is the present one. So the price is 0 as soon as a system is idle, whatever happened before, and
refusals end.
"""

from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import Field

from splitplace.messages.base import Part
from splitplace.policies.state import State, validated_state

NEWEST_WEIGHT = 0.02
"""Weight of the newest task: about 50 tasks count."""

LEAST_MS = 1e-3
"""Load or work below this, over all recent tasks, counts as none."""

_Sum = Annotated[float, Field(ge=0, le=1e36, allow_inf_nan=False)]


class _SavedState(Part):
    """The saved state."""

    tasks: _Sum
    load_ms: _Sum
    work_ms: _Sum
    work_ms_squared: _Sum
    lost: _Sum


@dataclass(frozen=True, slots=True)
class _Sums:
    """Discounted sums over recent tasks."""

    tasks: float = 0.0
    load_ms: float = 0.0
    work_ms: float = 0.0
    work_ms_squared: float = 0.0
    lost: float = 0.0


class Congestion:
    """Load, work and losses of recent tasks, and the price that follows."""

    def __init__(self) -> None:
        """Begin without tasks: work is free."""
        self._sums = _Sums()

    def price(self, load_ms: float) -> float:
        """Return the reward that others lose by a millisecond of work.

        Args:
            load_ms: mean backlog of the nodes now, or that of the broker's link if it is longer.
        """
        sums = self._sums
        if sums.load_ms < LEAST_MS or sums.work_ms < LEAST_MS:
            return 0.0
        relative = load_ms * sums.tasks / sums.load_ms
        knock_on = 1 + 2 * load_ms * sums.work_ms / sums.work_ms_squared
        return 2 * sums.lost / sums.work_ms * relative * knock_on

    def observe(self, load_ms: float, work_ms: float, lost: float) -> None:
        """Count a decided task.

        Args:
            load_ms: the same at the decision.
            work_ms: its work (`Arm.burden_ms`).
            lost: reward that it is expected to lose to the work of others.
        """
        sums, faded = self._sums, 1 - NEWEST_WEIGHT
        self._sums = _Sums(
            tasks=faded * sums.tasks + 1,
            load_ms=faded * sums.load_ms + load_ms,
            work_ms=faded * sums.work_ms + work_ms,
            work_ms_squared=faded * sums.work_ms_squared + work_ms**2,
            lost=faded * sums.lost + lost,
        )

    def state(self) -> State:
        """Return the sums over recent tasks, to be saved."""
        return asdict(self._sums)

    def restore(self, state: State) -> None:
        """Replace the sums by saved ones. Raises StateError."""
        self._sums = _Sums(**validated_state(_SavedState, state).model_dump())
