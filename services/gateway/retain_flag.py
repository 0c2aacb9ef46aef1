"""What the retain flag of an arriving task means: that it was set, or that the task is old."""

import asyncio
import contextlib

from pydantic import ValidationError

from splitplace.bus.incoming import RawReceived, parse
from splitplace.messages.frames import FrameError
from splitplace.messages.topics import SERVICE_STATUS

PATIENCE_S = 5.0
"""Time for the broker to deliver our announcement. Without it, a flagged task counts as old."""


class RetainFlag:
    """Learns how the broker delivers retained messages, from the gateway's own announcement.

    The intake asks for live tasks only, with the flag as it was published (MQTT 5). A broker that does so
    delivers our announcement flagged, and every flagged task is live. The embedded broker ignores both:
    there the flag means that the broker had kept the task.
    """

    def __init__(self, boot: str) -> None:
        """Know nothing yet.

        Args:
            boot: the boot id in our announcement.
        """
        self._boot = boot
        self._is_as_published: bool | None = None
        self._is_known = asyncio.Event()

    async def on_status(self, received: RawReceived) -> None:
        """Look at the first delivery of our announcement. Later ones may come from the broker's memory."""
        try:
            status = parse(SERVICE_STATUS, SERVICE_STATUS.at(**received.parameters), received.payload).message
        except (ValidationError, FrameError):
            return  # counted on the control connection
        if self._is_as_published is None and status.boot == self._boot and status.online:
            self._is_as_published = received.retained
            self._is_known.set()

    async def is_old(self, raw: RawReceived) -> bool:
        """Whether the broker had kept this task. Waits for our announcement."""
        if not raw.retained:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await self._is_known.wait()
        return not self._is_as_published
