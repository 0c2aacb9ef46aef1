"""Frames of a camera: which of them are sent, and the one that waits."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

THUMBNAIL = (64, 48)
"""Width and height at which frames are compared."""
_CHANGED_VALUE = 20
"""Difference of grey values from which a pixel of the thumbnail has changed."""
_CHANGED_SHARE = 0.01
"""Share of changed pixels from which there is motion."""
_EXAMINED_S = 0.2
"""Time between two frames that are compared: slow motion shows, and few frames are scaled."""


@dataclass(frozen=True)
class Frame:
    """One picture of a camera. It is encoded and scaled only if that is asked for."""

    name: str
    at_s: float | None
    """When it was taken, by the clock of its source; None for pictures that have no time: all are sent."""
    content: Callable[[], bytes]
    """Returns a picture file."""
    thumbnail: Callable[[], NDArray[Any]]
    """Returns `uint8[48, 64]` in grey."""


class Chooser:
    """Decides which frames are sent: one in a while, and only those with motion, if that is asked for."""

    def __init__(self, every_s: float, *, on_motion: bool) -> None:
        """Choose the first frame, then one at most every so many seconds."""
        self._every_s = every_s
        self._on_motion = on_motion
        self._sent_s: float | None = None
        self._examined_s: float | None = None
        self._before: NDArray[np.int16] | None = None

    def wants(self, frame: Frame) -> bool:
        """Whether to send this frame, the next one in order."""
        at_s = frame.at_s
        moved = not self._on_motion or self._moved(frame)
        if at_s is not None and self._sent_s is not None and 0 <= at_s - self._sent_s < self._every_s:
            return False
        if moved:
            self._sent_s = at_s
        return moved

    def _moved(self, frame: Frame) -> bool:
        if (
            frame.at_s is not None
            and self._examined_s is not None
            and 0 <= frame.at_s - self._examined_s < _EXAMINED_S
        ):
            return False
        before, now = self._before, frame.thumbnail().astype(np.int16)
        self._before, self._examined_s = now, frame.at_s
        return before is None or bool((np.abs(now - before) > _CHANGED_VALUE).mean() > _CHANGED_SHARE)


class Waiting:
    """The one frame that waits to be sent."""

    def __init__(self) -> None:
        self.replaced = 0
        """Frames that a newer one has replaced."""
        self._frame: Frame | None = None
        self._taken: Frame | None = None
        self._is_closed = False
        self._changed = asyncio.Condition()

    async def put(self, frame: Frame, *, replaces: bool) -> None:
        """Let a frame wait: in place of the one that waits, or after that one was taken."""
        async with self._changed:
            if not replaces:
                await self._changed.wait_for(lambda: self._frame is None)
            self.replaced += self._frame is not None
            self._frame = frame
            self._changed.notify_all()

    async def close(self) -> None:
        """Say that no frame follows."""
        async with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    async def take(self) -> Frame | None:
        """Return the next frame, or again the one that was not settled; None after the last one."""
        if self._taken is not None:
            return self._taken
        async with self._changed:
            await self._changed.wait_for(lambda: self._frame is not None or self._is_closed)
            self._taken, self._frame = self._frame, None
            self._changed.notify_all()
            return self._taken

    def settle(self) -> None:
        """Say that the frame that was taken has its answer, or is not wanted any more."""
        self._taken = None
