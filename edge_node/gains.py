"""What several threads gain. Pure."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Gains:
    """What several threads gain, as multiples of what one thread does in the same time."""

    threads: int
    alone: float
    """All threads on one run."""
    together: float
    """As many runs at once as there are threads, each in one."""
    spinning: bool = False
    """Whether threads that wait for others in a run spin."""


ONE_THREAD: Final = Gains(threads=1, alone=1.0, together=1.0)
