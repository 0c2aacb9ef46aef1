"""Waiting for what other tasks, threads and processes bring about.

Tests wait here and nowhere else, and always for a condition: a fixed sleep is too long on a fast machine
and too short on a busy one.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

PATIENCE_S = 60.0
"""Ends tests that hang; what a busy machine needs at worst."""
_POLL_S = 0.005
_MOST_POLL_S = 0.05
_POLL_SHARE = 0.05
"""A share of the time waited so far: looking costs time that those who are waited for could use."""


async def until(condition: Callable[[], object], seconds: float = PATIENCE_S) -> float:
    """Wait until a condition holds; how many seconds that took. Raises TimeoutError."""
    clock = asyncio.get_running_loop().time
    start = clock()
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is awaited comes from outside and sets no event
            await asyncio.sleep(_pause_s(clock() - start))
    return clock() - start


def block_until(condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Wait as `until` does, where no event loop runs. Raises TimeoutError."""
    start = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - start
        if waited_s > seconds:
            raise TimeoutError(f"still waiting after {seconds} s")
        time.sleep(_pause_s(waited_s))


def _pause_s(waited_s: float) -> float:
    return min(_POLL_S + _POLL_SHARE * waited_s, _MOST_POLL_S)


def pass_time(seconds: float) -> None:
    """Let time pass where time is what a test is about: the length of made-up work, or idleness."""
    time.sleep(seconds)


async def every(seconds: float) -> AsyncIterator[float]:
    """Seconds since the first turn, one turn each `seconds`, for loads of a steady rate."""
    clock = asyncio.get_running_loop().time
    start = clock()
    while True:
        yield clock() - start
        await asyncio.sleep(seconds)
