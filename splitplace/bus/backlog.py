"""What a service was told to do and has not done: the newest attempt at each task, in order of arrival."""

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from splitplace.bus.background import now_ms


class Attempted(Protocol):
    """A message about an attempt at a task."""

    @property
    def task(self) -> str:
        """Its key."""

    @property
    def attempt(self) -> int:
        """Its number."""

    @property
    def slack_ms(self) -> float:
        """What was left of the deadline when the message was sent."""

    @property
    def grace_ms(self) -> float | None:
        """How long after the deadline an answer is still given; None = unlimited."""


WorkT = TypeVar("WorkT", bound=Attempted)


class Backlog(Generic[WorkT]):
    """Messages that are handled one at a time, and dropped unread where nobody wants that any more."""

    def __init__(self, handle: Callable[[WorkT, float], None]) -> None:
        """An empty backlog.

        Args:
            handle: gets a message and the slack that is left of it, in ms. Must not fail.
        """
        self._handle = handle
        self._waiting: dict[str, tuple[WorkT, float]] = {}
        """Message and time of arrival, by task."""
        self._is_turn_due = False
        self.dropped = 0
        """Messages that were superseded, finished, or too late."""

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: WorkT) -> None:
        """Add a message. One about an earlier attempt at the same task is dropped."""
        before = self._waiting.get(message.task)
        if before is not None:
            self.dropped += 1
            if before[0].attempt >= message.attempt:
                return
            del self._waiting[message.task]
        self._waiting[message.task] = message, now_ms()
        self._turn_soon()

    def drop(self, task: str) -> None:
        """Drop what waits about a task: it has ended."""
        if self._waiting.pop(task, None) is not None:
            self.dropped += 1

    def _turn_soon(self) -> None:
        if self._waiting and not self._is_turn_due:
            self._is_turn_due = True  # in the next turn: what arrives before may supersede or end what waits
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Handle the next message that is still wanted."""
        self._is_turn_due = False
        while self._waiting:
            message, arrived_ms = self._waiting.pop(next(iter(self._waiting)))
            left_ms = message.slack_ms - (now_ms() - arrived_ms)
            if message.grace_ms is None or left_ms + message.grace_ms > 0:
                self._turn_soon()
                self._handle(message, left_ms)
                return
            self.dropped += 1
