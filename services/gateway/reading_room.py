"""Threads in which messages are parsed and decoded, shared fairly among sensors.

A process would not do better: Pillow lets the interpreter go while it decodes (docs/performance.md, Bursts).
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from splitplace.services.gateway.refusals import refuse

THREADS = 2
"""More would not be faster, and would take the interpreter from the event loop more often."""
MOST_OF_ONE_SENSOR = 16
"""Messages of a sensor that may wait for a thread."""

ResultT = TypeVar("ResultT")


class ReadingRoom:
    """Runs costly work in threads: one message of a sensor at a time, the sensors in turn."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="reading")
        self._turns: dict[str, asyncio.Lock] = {}
        self._waiting: Counter[str] = Counter()

    async def run(self, sensor: str, work: Callable[[], ResultT]) -> ResultT:
        """Run this in a thread when it is the sensor's turn.

        Raises:
            TaskRefusedError: too many messages of the sensor wait.
        """
        if self._waiting[sensor] >= MOST_OF_ONE_SENSOR:
            refuse("quota", f"{MOST_OF_ONE_SENSOR} large messages of this sensor wait; wait for answers")
        self._waiting[sensor] += 1
        try:
            async with self._turns.setdefault(sensor, asyncio.Lock()):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting[sensor] -= 1
            if not self._waiting[sensor]:
                del self._waiting[sensor], self._turns[sensor]

    def close(self) -> None:
        """End the threads when what runs in them is done."""
        self._threads.shutdown(wait=False, cancel_futures=True)
