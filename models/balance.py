"""Where to cut a chain of measured segments so that a pipeline's slowest part is fastest. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class Target:
    """The devices and links a chain is balanced for.

    The defaults are a small board behind 100 Mbit/s Ethernet.
    """

    slowdown: float = 6.0
    """How many times slower a device computes than the machine that measured."""
    link_bytes_per_ms: float = 12_500.0
    tolerance: float = 0.05
    """Cuts whose slowest part is slower by at most this share are held to be equal; of those, the one that
    sends least is taken."""


def choose_cuts(
    segment_ms: Sequence[float],
    crossing_bytes: Sequence[float],
    stages: int,
    target: Target,
) -> tuple[int, ...]:
    """Groups segments into stages of at least one segment each, by dynamic programming.

    A stage computes one micro-batch while it sends the one before, so computing and sending are both parts of
    the pipeline, and the slowest of all of them sets its pace.

    Args:
        segment_ms: Measured time of each of S segments, in order.
        crossing_bytes: What crosses the S - 1 places between neighbouring segments, for one image.
        stages: Into how many stages, 1 to S.
        target: Devices, links and tolerance.

    Returns:
        The places to cut, `stages - 1` ascending indices into `crossing_bytes`.

    Raises:
        ValueError: The lengths do not fit together, or there are fewer segments than stages.
    """
    count = len(segment_ms)
    if len(crossing_bytes) != count - 1 or not 1 <= stages <= count:
        msg = f"cannot make {stages} stages of {count} segments with {len(crossing_bytes)} places to cut"
        raise ValueError(msg)
    totals = [0.0]
    for value in segment_ms:
        totals.append(totals[-1] + value)

    def pace(first: int, end: int) -> float:
        compute = (totals[end] - totals[first]) * target.slowdown
        send = crossing_bytes[end - 1] / target.link_bytes_per_ms if end < count else 0.0
        return max(compute, send)

    def sent(first: int, end: int) -> float:
        if pace(first, end) > slowest * (1 + target.tolerance):
            return inf
        return crossing_bytes[end - 1] if end < count else 0.0

    slowest, _ = _best_partition(count, stages, pace, max)
    _, cuts = _best_partition(count, stages, sent, lambda before, stage: before + stage)
    return cuts


def _best_partition(
    count: int,
    stages: int,
    cost: Callable[[int, int], float],
    join: Callable[[float, float], float],
) -> tuple[float, tuple[int, ...]]:
    """Least joined cost of dividing `count` segments into `stages`, and the places between them."""
    best: dict[int, tuple[float, tuple[int, ...]]] = {
        end: (cost(0, end), ()) for end in range(1, count - stages + 2)
    }
    for stage in range(2, stages + 1):
        best = {
            end: min(
                (join(best[first][0], cost(first, end)), (*best[first][1], first - 1))
                for first in range(stage - 1, end)
            )
            for end in range(stage, count - stages + stage + 1)
        }
    return best[count]
