"""Waiting for what other tasks bring about."""

import asyncio
from collections.abc import Callable

_POLL_S = 0.005


async def until(condition: Callable[[], object], seconds: float = 5.0) -> float:
    """Wait until a condition holds; how many seconds that took. Raises TimeoutError."""
    clock = asyncio.get_running_loop().time
    start = clock()
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is awaited comes from outside and sets no event
            await asyncio.sleep(_POLL_S)
    return clock() - start
