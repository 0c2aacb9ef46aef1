"""Background tasks that cannot die unseen, and work that repeats or is due at a time."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn, TypeVar

from splitplace.errors import ConfigurationError

log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

_CANCEL_S = 1.0
TURN_MS = 2.0
"""How long a worker may keep pings and other workers waiting, apart from a single item of its work."""


def now_ms() -> float:
    """Return the time of a clock that never goes back, in milliseconds."""
    return time.monotonic() * 1000


class Turn:
    """The time that workers with a full queue have together before they let others run."""

    def __init__(self) -> None:
        self._began_ms = now_ms()

    async def end_if_over(self) -> None:
        """Let other tasks of the event loop run, if the turn was long enough."""
        while now_ms() - self._began_ms > TURN_MS:
            ended_ms = self._began_ms
            await asyncio.sleep(0)
            if self._began_ms == ended_ms:  # else another worker has begun the next turn
                self._began_ms = now_ms()
                return


class BackgroundTasks:
    """Tasks that nobody awaits. The first that fails is reported to whoever waits in `failed`."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._errors: asyncio.Queue[BaseException] = asyncio.Queue()
        self._is_stopped = False

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, ResultT], name: str) -> asyncio.Task[ResultT]:
        """Run a coroutine in the background. The name appears in the log if it fails.

        After `stop`, the task is cancelled before it begins.
        """
        task = asyncio.create_task(work, name=name)
        if self._is_stopped:
            task.cancel()
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def failed(self) -> NoReturn:
        """Wait until a task fails, then raise its error."""
        raise await self._errors.get()

    async def wait(self, timeout_s: float) -> None:
        """Give the tasks this long to end by themselves."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def stop(self) -> None:
        """Cancel all tasks and wait for their end."""
        self._is_stopped = True
        while self._tasks:
            for task in self._tasks:
                task.cancel()  # again if a library swallowed the first: `wait_for` of Python 3.11 may
            await asyncio.wait(self._tasks, timeout=_CANCEL_S)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            is_for_the_user = isinstance(error, ConfigurationError)  # printed when it ends the program
            log.log(
                logging.DEBUG if is_for_the_user else logging.ERROR, "%s failed: %r", task.get_name(), error
            )
            self._errors.put_nowait(error)


class PeriodicWork:
    """An action that runs now and again after each period."""

    def __init__(
        self,
        period_s: float,
        action: Callable[[], Awaitable[None]],
        ready: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Work that does not run yet.

        Args:
            period_s: pause from the end of a round to the beginning of the next.
            action: one round.
            ready: awaited before each round.
        """
        self.name = getattr(action, "__qualname__", repr(action))
        self._period_s = period_s
        self._action = action
        self._ready = ready
        self._due_ms = math.inf

    async def run(self) -> None:
        """Repeat until cancelled, or until a round fails."""
        while True:
            if self._ready is not None:
                self._due_ms = math.inf
                await self._ready()
            self._due_ms = now_ms()
            await self._action()
            self._due_ms = now_ms() + 1000 * self._period_s
            await asyncio.sleep(self._period_s)

    @property
    def late_ms(self) -> float:
        """Time since the present round began or the next one was due; 0 while it is on time."""
        return max(0.0, now_ms() - self._due_ms)


class Alarm:
    """Calls an action at a time that may be moved at any moment."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.name = getattr(action, "__qualname__", repr(action))
        self._action = action
        self._due_ms: float | None = None
        self._wakes_ms = math.inf
        self._is_earlier = asyncio.Event()

    def set(self, due_ms: float | None) -> None:
        """Move the time, by the clock of `now_ms`; None calls it off."""
        self._due_ms = due_ms
        if due_ms is not None and due_ms < self._wakes_ms:
            self._is_earlier.set()

    async def run(self) -> None:
        """Call the action whenever it is due, until cancelled."""
        while True:
            self._is_earlier.clear()
            self._wakes_ms = math.inf if self._due_ms is None else self._due_ms
            pause_s = None if self._due_ms is None else max(0.0, self._due_ms - now_ms()) / 1000
            try:
                async with asyncio.timeout(pause_s):
                    await self._is_earlier.wait()
            except TimeoutError:
                if self._due_ms is not None and self._due_ms <= now_ms():
                    self._due_ms = None
                    self._action()
