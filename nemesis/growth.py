"""Whether memory, descriptors and threads stay flat. Pure."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nemesis.history import Measured

_WARM_UP_SHARE = 0.3
"""Share of a process's life that does not count."""
_FEWEST = 10
_MOST_NEW_DESCRIPTORS = 16
_MOST_NEW_THREADS = 16


@dataclass(frozen=True)
class Slope:
    """How one process grew after its warm-up."""

    part: str
    pid: int
    observed_s: float
    mib_per_minute: float
    grown_mib: float
    """The most memory since, less that after warm-up."""
    descriptors: int
    """Descriptors at the end beyond the most until the warm-up was over; threads likewise."""
    threads: int
    end_mib: float


def slopes(measured: Iterable[Measured]) -> list[Slope]:
    """Return the slope of the longest-lived process of every part, least squares after warm-up."""
    lives: dict[tuple[str, int], list[Measured]] = defaultdict(list)
    for record in measured:
        lives[record.part, record.pid].append(record)
    longest: dict[str, list[Measured]] = {}
    for (part, _), life in lives.items():
        if len(life) >= _FEWEST and len(life) > len(longest.get(part, ())):
            longest[part] = life
    return [_slope(life) for life in longest.values()]


def _slope(life: list[Measured]) -> Slope:
    begin = int(len(life) * _WARM_UP_SHARE)
    before, warm = life[: begin + 1], life[begin:]
    times = np.array([record.at_s for record in warm]) / 60
    memory = np.array([record.memory_mib for record in warm])
    spread = times - times.mean()
    return Slope(
        part=life[0].part,
        pid=life[0].pid,
        observed_s=warm[-1].at_s - warm[0].at_s,
        mib_per_minute=float((spread * (memory - memory.mean())).sum() / (spread**2).sum()),
        grown_mib=float(memory.max() - memory[0]),
        # The most until then: where many were away at that moment, their return is no growth.
        descriptors=warm[-1].descriptors - max(record.descriptors for record in before),
        threads=warm[-1].threads - max(record.threads for record in before),
        end_mib=float(memory[-1]),
    )


def grown(slope: Slope, *, most_mib: float, most_mib_per_minute: float, after_s: float) -> str | None:
    """Return what grew too much, or None."""
    if slope.observed_s >= after_s and slope.mib_per_minute > most_mib_per_minute:
        return f"{slope.mib_per_minute:+.2f} MiB a minute over {slope.observed_s / 60:.0f} minutes"
    if slope.grown_mib > most_mib:
        return (
            f"{slope.grown_mib:+.0f} MiB within {slope.observed_s:.0f} s; {slope.end_mib:.0f} MiB at the end"
        )
    if slope.descriptors > _MOST_NEW_DESCRIPTORS:
        return f"{slope.descriptors:+d} descriptors"
    if slope.threads > _MOST_NEW_THREADS:
        return f"{slope.threads:+d} threads"
    return None
