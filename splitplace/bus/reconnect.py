"""When to give up an attempt to connect, and when to try again. Pure but for its random numbers."""

import random

FIRST_PATIENCE_S = 3.0
LAST_PATIENCE_S = 30.0
"""Bounds of the wait for the broker's word (CONNACK). A slow link may need long for it."""

FIRST_PAUSE_S = 0.05
LAST_PAUSE_S = 2.0
"""Bounds of the pause before the next attempt, on average."""

HELD_S = 5.0
"""A connection that lasts this long was a good one."""

MANY_BRIEF = 3
"""Connections in a row that did not last: something ends them on purpose."""


class Reconnect:
    """Patience of one connection. Doubles with silence; pauses double with every attempt."""

    def __init__(self) -> None:
        self.patience_s = FIRST_PATIENCE_S
        """How long the next attempt may wait for the broker's word."""
        self.brief = 0
        """Connections since the last good one."""
        self._pause_s = FIRST_PAUSE_S

    def failed(self, after_s: float) -> float:
        """Note an attempt that came to nothing. Return the pause before the next, in seconds."""
        if after_s >= self.patience_s:
            self.patience_s = min(2 * self.patience_s, LAST_PATIENCE_S)
        return self._next_pause_s()

    def broke(self, held_s: float) -> float:
        """Note the end of a connection. Return the pause before the next attempt, in seconds."""
        self.patience_s = FIRST_PATIENCE_S
        self.brief += 1
        if held_s >= HELD_S:
            self.brief = 0
            self._pause_s = FIRST_PAUSE_S
        return self._next_pause_s()

    def _next_pause_s(self) -> float:
        pause_s = self._pause_s * random.uniform(0.5, 1.5)
        self._pause_s = min(2 * self._pause_s, LAST_PAUSE_S)
        return pause_s
