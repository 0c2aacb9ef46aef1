"""This node's speed: measured at its start, and again when it has drifted. Pure."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from splitplace.edge_node.gains import Gains
from splitplace.messages.cluster import NodeSpeed

DRIFT = 0.15
"""A look at the speed raises doubts if it differs from what is known by more than this share."""
DOUBTS = 3
"""Looks in a row that must differ in the same direction until the speed counts as changed."""
DOUBTFUL_LOOK_EVERY_MS = 2_000.0
LOOK_EVERY_MS = 30_000.0
BUSY_LOOK_EVERY_MS = 120_000.0
"""Time between two looks while there is always something to compute: work waits for them."""
GAINS_EVERY_MS = 600_000.0
"""Time between two measurements of what threads gain, but the first is made as soon as the node has been idle
for `LOOK_EVERY_MS`: when it starts, everything else on the device may start as well."""


@dataclass(frozen=True, slots=True)
class OwnSpeed:
    """What a node has measured of itself."""

    thread_score: float
    """Speed of one thread in GFLOP/s, without a quota."""
    gains: Gains
    share: float = math.inf
    """CPU seconds a second that the node is limited to."""

    @property
    def score(self) -> float:
        """Speed of one run at a time on all cores, within the share."""
        return self.thread_score * self._speed_up

    @property
    def message(self) -> NodeSpeed:
        """What the vitals say of it."""
        together = min(self.gains.together, self.share) / self._speed_up
        return NodeSpeed(
            score=self.score,
            threads=self.gains.threads,
            speed_up=max(1.0, self.gains.alone),
            together=max(1.0, together),
        )

    @property
    def _speed_up(self) -> float:
        return min(max(1.0, self.gains.alone), self.share)


class SpeedWatch:
    """Decides when to look at the speed, and when it has changed."""

    def __init__(self, speed: OwnSpeed, now_ms: float) -> None:
        """Watch a speed that has just been measured."""
        self.speed = speed
        self._next_look_ms = now_ms + LOOK_EVERY_MS
        self._looked_ms = now_ms
        self._next_gains_ms = now_ms + LOOK_EVERY_MS
        self._doubts: list[float] = []
        """Scores of the last looks that differed."""

    def due(self, now_ms: float, *, idle: bool) -> Literal["look", "gains"] | None:
        """Return what to measure now; None if nothing."""
        if not idle:
            return "look" if now_ms >= self._looked_ms + BUSY_LOOK_EVERY_MS else None
        if self.speed.gains.threads > 1 and self._next_gains_ms <= min(now_ms, self._next_look_ms):
            return "gains"
        return "look" if now_ms >= self._next_look_ms else None

    def put_off(self, now_ms: float) -> None:
        """Note that a measurement was disturbed by work."""
        self._next_look_ms = max(self._next_look_ms, now_ms + DOUBTFUL_LOOK_EVERY_MS)
        self._next_gains_ms = max(self._next_gains_ms, now_ms + DOUBTFUL_LOOK_EVERY_MS)

    def looked(self, thread_score: float, now_ms: float) -> float:
        """Note a look at the score of one thread.

        Returns:
            Time of a call in one thread now against before; 1 if the speed has not changed.
        """
        self._looked_ms = now_ms
        difference = self._difference(thread_score)
        if abs(difference) <= math.log(1 + DRIFT):
            self._doubts.clear()
        elif self._doubts and (self._difference(self._doubts[-1]) > 0) != (difference > 0):
            self._doubts = [thread_score]
        else:
            self._doubts.append(thread_score)
        self._next_look_ms = now_ms + (DOUBTFUL_LOOK_EVERY_MS if self._doubts else LOOK_EVERY_MS)
        if len(self._doubts) < DOUBTS:
            return 1.0
        newest = max(self._doubts)  # other work can only make a look too slow
        self._doubts.clear()
        self._next_look_ms = now_ms + LOOK_EVERY_MS
        before, self.speed = self.speed, replace(self.speed, thread_score=newest)
        return before.thread_score / newest

    def gained(self, gains: Gains, now_ms: float) -> None:
        """Note what threads gain. Sessions spin or rest as when they began."""
        self._next_gains_ms = now_ms + GAINS_EVERY_MS
        gains = replace(gains, spinning=self.speed.gains.spinning)
        self.speed = replace(self.speed, gains=gains)

    def _difference(self, thread_score: float) -> float:
        return math.log(thread_score / self.speed.thread_score)
