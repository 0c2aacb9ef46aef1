"""Ends the node's process when its work hangs, so that a supervisor starts it again.

Neither a run inside ONNX Runtime nor a read from a disk that hangs can be interrupted. So a thread of its own
looks at what is under way, and ends the process without asking anything that may hang itself.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NoReturn

from splitplace.bus.background import now_ms
from splitplace.errors import ExitCode

log = logging.getLogger(__name__)

LONGEST_STEP_MS = 1000.0
TICK_S = 0.25

FACTOR = 20.0
MAX_LIMIT_MS = 600_000.0
"""No prediction makes a limit longer: predictions follow from descriptions that came over the network."""

LOADING_FACTOR = 6.0
LOOP_FACTOR = 3.0
"""Limits for loading a fragment, and for a turn of the event loop, as multiples of the floor."""

_BLAME_S = 3.0


class AwakeClock:
    """Time in which this process ran.

    While a process is stopped, its device asleep, or its virtual machine paused, nothing hangs. So a gap
    between two ticks counts for `LONGEST_STEP_MS` at most.
    """

    def __init__(self, now_ms: float) -> None:
        self._ticked_ms = now_ms
        self._awake_ms = 0.0

    def tick(self, now_ms: float) -> None:
        """Note the time; call it several times a second."""
        self._awake_ms = self.read(now_ms)
        self._ticked_ms = now_ms

    def read(self, now_ms: float) -> float:
        """Return the time awake so far."""
        return self._awake_ms + min(max(0.0, now_ms - self._ticked_ms), LONGEST_STEP_MS)


@dataclass(frozen=True, slots=True)
class Activity:
    """Something that should end soon."""

    doing: Literal["run", "load", "prepare", "loop"]
    age_ms: float
    """Time awake since it began."""
    fragment: str | None = None
    expected_ms: float = 0.0


def limit_ms(activity: Activity, floor_ms: float) -> float:
    """Return the time after which an activity counts as hanging.

    Args:
        activity: what is under way. Expectations include pacing and what was measured of throttling.
        floor_ms: limit of the shortest runs.
    """
    if activity.doing == "load":
        return LOADING_FACTOR * floor_ms
    if activity.doing == "prepare":  # ends by itself after a timeout, unless the disk hangs
        return activity.expected_ms + LOADING_FACTOR * floor_ms
    if activity.doing == "loop":
        return LOOP_FACTOR * floor_ms
    return max(floor_ms, min(FACTOR * activity.expected_ms, MAX_LIMIT_MS))


def describe(activity: Activity) -> str:
    """Say what hangs."""
    seconds = f"{activity.age_ms / 1000:.0f} s"
    if activity.doing == "loop":
        return f"the event loop has stood still for {seconds}"
    if activity.doing == "load":
        return f"fragment {activity.fragment} has been loading for {seconds}"
    if activity.doing == "prepare":
        return f"fragment {activity.fragment} has been prepared for {seconds} without an end"
    return f"fragment {activity.fragment} has run for {seconds}, expected {activity.expected_ms / 1000:.2g} s"


class Watchdog:
    """The thread that looks."""

    def __init__(
        self,
        *,
        floor_ms: float,
        activities: Callable[[], Iterable[Activity]],
        blame: Callable[[str, str], None],
        end: Callable[[], None] | None = None,
    ) -> None:
        """A watchdog that does not look yet.

        Args:
            floor_ms: limit of the shortest runs.
            activities: what is under way. Must not wait for anything.
            blame: told the fragment that hangs and the reason, in a thread, for `_BLAME_S` at most.
            end: ends the process; by default at once, without any clean-up.
        """
        self._clock = AwakeClock(now_ms())
        self._floor_ms = floor_ms
        self._activities = activities
        self._blame = blame
        self._end = end or _end_process
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def awake_ms(self) -> float:
        """Return the time in which this process ran."""
        return self._clock.read(now_ms())

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()

    def _watch(self) -> None:
        while not self._stopping.wait(TICK_S):
            self._clock.tick(now_ms())
            for activity in self._activities():
                if activity.age_ms >= limit_ms(activity, self._floor_ms):
                    self._give_up(activity)
                    return

    def _give_up(self, activity: Activity) -> None:
        log.critical("%s: ending this process, so that it can be started again", describe(activity))
        if activity.fragment is not None:
            blaming = threading.Thread(
                target=self._blame, args=(activity.fragment, describe(activity)), daemon=True
            )
            blaming.start()
            blaming.join(_BLAME_S)  # the disk may be what hangs
        self._end()


def _end_process() -> NoReturn:
    logging.shutdown()
    os._exit(ExitCode.PROBLEM)
