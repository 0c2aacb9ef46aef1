"""Choose where a network is cut into pieces, from what its segments cost. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import inf

MOST_PIECES = 24
SHARE = 1 / 12
"""Aim for the share of one piece in the network's time and in its weights. A stage can be any run of pieces,
so small pieces let stages fit nodes; still more of them only make the manifest longer."""
LEAST_MS = 0.25
LEAST_WEIGHT_BYTES = 4 * 1024**2
"""A piece is worth its place if it takes that long or holds that much, on average."""
_COARSER = 1.1


@dataclass(frozen=True)
class Segments:
    """A network between all places where it can be cut, in order."""

    milliseconds: Sequence[float]
    """Time of each of S segments for one image."""
    weight_bytes: Sequence[float]
    crossing_bytes: Sequence[float]
    """Bytes that cross each of the S - 1 places between them, for one image."""
    required: Collection[int] = field(default=())
    """Places that must be bounds, because a variant is cut there."""
    most_weight_bytes: float = inf
    """Most that a node takes of one piece."""


def piece_bounds(segments: Segments) -> tuple[int, ...]:
    """Return the places between pieces, ascending indices of `crossing_bytes`.

    No piece has more than `SHARE` of the time or of the weights, unless it is a single segment. Of the ways
    with the fewest pieces, the one with the fewest bytes over all bounds is chosen. Networks of little time
    and few weights get fewer and larger pieces, none of more than `most_weight_bytes` where that is possible.
    Takes O(S^2) time for each share tried.

    Raises:
        ValueError: The lengths of the fields do not match.
    """
    count = len(segments.milliseconds)
    if len(segments.weight_bytes) != count or len(segments.crossing_bytes) != count - 1:
        raise ValueError(
            f"{count} segments with {len(segments.weight_bytes)} weights "
            f"and {len(segments.crossing_bytes)} places between them"
        )
    most = max(_most_pieces(segments), len(set(segments.required)) + 1)
    share = SHARE
    while len(bounds := _bounds(segments, share)) >= most and share < 1:
        share *= _COARSER
    return bounds


def _most_pieces(segments: Segments) -> int:
    worth = max(sum(segments.milliseconds) / LEAST_MS, sum(segments.weight_bytes) / LEAST_WEIGHT_BYTES)
    return max(1, min(MOST_PIECES, int(worth)))


def _bounds(segments: Segments, share: float) -> tuple[int, ...]:
    """Return the bounds for one share, by dynamic programming over the end of the last piece."""
    count = len(segments.milliseconds)
    times, weights = _shares(segments.milliseconds), _shares(segments.weight_bytes)
    most = segments.most_weight_bytes / max(1, sum(segments.weight_bytes))
    required = {place + 1 for place in segments.required}
    best: list[tuple[int, float]] = [(0, 0.0)] + [(count + 1, inf)] * count
    start_of = [0] * (count + 1)
    for end in range(1, count + 1):
        time = weight = 0.0
        for start in range(end - 1, -1, -1):
            time += times[start]
            weight += weights[start]
            is_too_large = max(time, weight) > share + 1e-9 or weight > most
            if is_too_large and start < end - 1:
                break
            pieces, crossing = best[start]
            here = segments.crossing_bytes[start - 1] if start else 0.0
            if (pieces + 1, crossing + here) < best[end]:
                best[end] = (pieces + 1, crossing + here)
                start_of[end] = start
            if start in required:
                break
    bounds = []
    end = start_of[count]
    while end > 0:
        bounds.append(end - 1)
        end = start_of[end]
    return tuple(reversed(bounds))


def _shares(values: Sequence[float]) -> list[float]:
    total = sum(values)
    return [value / total if total else 0.0 for value in values]
