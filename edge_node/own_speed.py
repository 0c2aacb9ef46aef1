"""This node's speed: measured at its start, and again when it has drifted. Pure but for what it is given."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from splitplace.edge_node.gains import Gains
from splitplace.messages.cluster import NodeSpeed

DRIFT = 0.15
"""A look at the speed counts if it differs from what is known by more than this share."""
LOOK_EVERY_MS = 30_000.0
BUSY_LOOK_EVERY_MS = 120_000.0
"""Time between two looks while there is always something to compute: work waits for them."""


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
    """Decides when to look at the speed, and when it has drifted."""

    def __init__(
        self,
        speed: OwnSpeed,
        *,
        look: Callable[[], float],
        measure: Callable[[], tuple[float, Gains]],
        now_ms: float,
    ) -> None:
        """Watch a speed that has just been measured.

        Args:
            speed: what was measured.
            look: measures the score of one thread, quickly.
            measure: measures that score and the gains of threads with care.
            now_ms: the present moment.
        """
        self.speed = speed
        self._look = look
        self._measure = measure
        self._looked_ms = now_ms

    def is_due(self, now_ms: float, *, idle: bool) -> bool:
        """Whether it is time for a look."""
        return now_ms - self._looked_ms >= (LOOK_EVERY_MS if idle else BUSY_LOOK_EVERY_MS)

    def look(self, now_ms: float) -> float:
        """Look at the speed, and measure it if it has drifted. Nothing else should compute; blocks.

        Returns:
            Time of a call now against before; 1 if the speed has not drifted.
        """
        self._looked_ms = now_ms
        before = self.speed
        if not self._differs(self._look()):
            return 1.0
        thread_score, gains = self._measure()
        if not self._differs(thread_score):
            return 1.0
        self.speed = OwnSpeed(thread_score, gains, before.share)
        return before.score / self.speed.score

    def _differs(self, thread_score: float) -> bool:
        return abs(math.log(thread_score / self.speed.thread_score)) > math.log(1 + DRIFT)
