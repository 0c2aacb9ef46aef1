"""Warnings that must not flood the log."""

import logging
from collections.abc import Callable
from time import monotonic

PERIOD_S = 60.0
MAX_KEYS = 50
"""Different things that may be warned of in one period; the others wait for the next."""


class SeldomWarnings:
    """Warns of each thing at most once a minute."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = monotonic) -> None:
        self._log = log
        self._clock = clock
        self._warned_s: dict[str, float] = {}

    def warn(self, key: str, message: str, *arguments: object) -> None:
        """Log a warning, unless there was one with this key within the last minute."""
        now_s = self._clock()
        for old in [each for each, said_s in self._warned_s.items() if now_s - said_s >= PERIOD_S]:
            del self._warned_s[old]
        if key not in self._warned_s and len(self._warned_s) < MAX_KEYS:
            self._warned_s[key] = now_s
            self._log.warning(message, *arguments)
