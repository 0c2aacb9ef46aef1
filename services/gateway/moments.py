"""Times that outlive the process, although the wall clock may jump.

A device without a clock begins in 1970 and jumps to the present once it hears of it. So a moment has two
clocks: the wall clock, and the time since the machine started, which counts within one run of the machine.
"""

import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment by both clocks."""

    unix_s: float
    boot: str | None = None
    """Id of this run of the machine; None where it has none."""
    boot_s: float = 0.0
    """Time since the machine started, including time that it slept."""

    def earlier(self, seconds: float) -> "Moment":
        """Return the moment this long before."""
        return Moment(self.unix_s - seconds, self.boot, self.boot_s - seconds)


def now() -> Moment:
    """Return the present moment."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
    if clock is None:
        return Moment(time.time())
    return Moment(time.time(), _boot_id(), time.clock_gettime(clock))


def passed_s(since: Moment, until: Moment, at_most_s: float) -> float:
    """Return the time between two moments, between 0 and a bound that no jump of a clock exceeds."""
    is_same_boot = since.boot is not None and since.boot == until.boot
    passed = until.boot_s - since.boot_s if is_same_boot else until.unix_s - since.unix_s
    return min(max(0.0, passed), at_most_s)


@cache
def _boot_id() -> str | None:
    try:
        return _BOOT_ID.read_text().strip()[:64] or None
    except OSError:
        return None
