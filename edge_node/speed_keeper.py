"""Measures this node's speed again: a moment while it is idle, seldom between two jobs."""

import asyncio
import logging
from collections.abc import Callable

from splitplace.bus.background import now_ms
from splitplace.edge_node.benchmark import measure_gains, measure_score
from splitplace.edge_node.executor import Executor
from splitplace.edge_node.own_speed import OwnSpeed, SpeedWatch

log = logging.getLogger(__name__)

_LOOK_S = 0.05
_GAINS_S = 0.3


class SpeedKeeper:
    """The speed that vitals tell."""

    def __init__(self, speed: OwnSpeed, on_change: Callable[[OwnSpeed], None]) -> None:
        """Keep a speed that has just been measured.

        Args:
            speed: What was measured.
            on_change: Told a new speed.
        """
        self._watch = SpeedWatch(speed, now_ms())
        self._on_change = on_change

    @property
    def speed(self) -> OwnSpeed:
        """What was measured last."""
        return self._watch.speed

    async def tick(self, executor: Executor) -> None:
        """Measure if it is time. Call it about once a second.

        On an idle node nothing waits for that: a measurement that work has disturbed is made again.
        """
        idle, executed = not executor.busy(), executor.load().executed
        due = self._watch.due(now_ms(), idle=idle)
        if due == "gains":
            gains = await asyncio.to_thread(measure_gains, self.speed.gains.threads, _GAINS_S)
        elif due == "look" and idle:
            score = await asyncio.to_thread(measure_score, _LOOK_S)
        elif due == "look":
            score = await asyncio.to_thread(executor.exclusively, lambda: measure_score(_LOOK_S))
        else:
            return
        if idle and (executor.busy() or executor.load().executed != executed):
            self._watch.put_off(now_ms())
            return
        before, factor = self.speed, 1.0
        if due == "gains":
            self._watch.gained(gains, now_ms())
        else:
            factor = self._watch.looked(score, now_ms())
        if self.speed != before:
            log.info("score %.1f GFLOP/s, before %.1f", self.speed.score, before.score)
            executor.measured_again(self.speed.gains, factor)
            self._on_change(self.speed)
