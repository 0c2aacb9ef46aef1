"""When what a node offers has changed enough to tell others. Pure."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from splitplace.messages.cluster import NodeInfo

MUCH, SOME = 0.5, 0.1
"""Relative changes of a figure: much is told at once, some only a while after the last telling."""
PAUSE_MS = 5000.0
_FLOOR = 0.05
"""Figures below this, as in milliseconds, count as this: their changes matter to nobody."""


class News:
    """What was told of a node, and whether there is more to tell."""

    def __init__(self) -> None:
        """Nothing was told yet."""
        self._told: Mapping[str, Any] | None = None
        self._told_ms = -inf

    def is_due(self, info: NodeInfo, now_ms: float) -> bool:
        """Whether to tell this: a figure changed by half, anything else at all; by a tenth after a pause."""
        if self._told is None:
            return True
        change = _change(self._told, info.model_dump())
        return change > MUCH or (change > SOME and now_ms - self._told_ms >= PAUSE_MS)

    def told(self, info: NodeInfo, now_ms: float) -> None:
        """Note that this is told."""
        self._told, self._told_ms = info.model_dump(), now_ms


def _change(before: object, now: object) -> float:
    """Return the greatest relative change of a figure; infinite if anything else differs."""
    match before, now:
        case float(), float():
            return abs(now - before) / max(_FLOOR, abs(before))
        case Mapping(), Mapping() if before.keys() == now.keys():
            return max((_change(before[key], now[key]) for key in now), default=0.0)
        case tuple(), tuple():
            return _change_of_list(before, now)
    return 0.0 if before == now else inf


def _change_of_list(before: Sequence[Any], now: Sequence[Any]) -> float:
    """The same for fragments, or what is told of each, in whatever order."""
    if all(isinstance(each, Mapping) for each in (*before, *now)):
        return _change({each["fragment"]: each for each in before}, {each["fragment"]: each for each in now})
    return 0.0 if frozenset(before) == frozenset(now) else inf
