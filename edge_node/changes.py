"""A bell for coroutines that wait until something is different."""

import asyncio


class Changes:
    """Wakes those who wait for anything to change."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def note(self) -> None:
        """Wake them."""
        self._changed.set()

    async def wait(self) -> None:
        """Wait for the next change."""
        self._changed.clear()
        await self._changed.wait()
