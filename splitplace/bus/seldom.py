"""Warnings that must not flood the log."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

PERIOD_S = 60.0
MAX_KEYS = 50
"""Different things that may be warned of in one period; the others wait for the next."""


@dataclass(slots=True)
class _Said:
    at_s: float
    held_back: int = 0
    """Repetitions since then."""


class SeldomWarnings:
    """Warns of each thing at most once a minute, and counts the repetitions in between."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = monotonic) -> None:
        self._log = log
        self._clock = clock
        self._said: dict[str, _Said] = {}

    def warn(self, key: str, message: str, *arguments: object) -> None:
        """Log a warning; a debug message if there was a warning with this key within the last minute.

        The next warning with the key tells how many were held back.
        """
        now_s = self._clock()
        for old in [each for each, said in self._said.items() if now_s - said.at_s >= 2 * PERIOD_S]:
            if old != key:
                del self._said[old]
        said = self._said.get(key)
        if said is not None and now_s - said.at_s < PERIOD_S:
            said.held_back += 1
        elif said is not None or self._has_room(now_s):
            self._said[key] = _Said(now_s)
            if said is not None and said.held_back:
                message, arguments = f"{message} [%d more like this]", (*arguments, said.held_back)
            self._log.warning(message, *arguments)
            return
        self._log.debug(message, *arguments)

    def _has_room(self, now_s: float) -> bool:
        return sum(now_s - said.at_s < PERIOD_S for said in self._said.values()) < MAX_KEYS
