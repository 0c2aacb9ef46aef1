"""A part of the system as a process: logging and signals."""

import asyncio
import contextvars
import gc
import logging
import signal
from collections.abc import Coroutine
from typing import Any

from typing_extensions import override

from splitplace.bus.hints import OPEN_TO_ALL
from splitplace.bus.settings import Settings
from splitplace.terminal import printable

log = logging.getLogger(__name__)

PART = contextvars.ContextVar("PART", default="")
"""Which part a line of the log is about, where several share a process; else empty."""


class _PrintableFormatter(logging.Formatter):
    """Keeps control characters from outside away from the terminal, and forged lines out of the log.

    Only the first line of a record begins at the margin.
    """

    @override
    def format(self, record: logging.LogRecord) -> str:
        part = PART.get()
        record.part = f"{part}: " if part else ""
        return printable(super().format(record)).replace("\n", "\n    ")


def run_until_signal(work: Coroutine[Any, Any, None], settings: Settings) -> None:
    """Run until the work ends, or SIGINT or SIGTERM asks it to. Raises what the work raises."""
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter("%(asctime)s %(levelname)s %(part)s%(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    if settings.is_open_to_others:
        log.warning("%s: %s", settings.broker, OPEN_TO_ALL)

    async def main() -> None:
        task = asyncio.ensure_future(work)
        asked_to_end = asyncio.Event()

        def end() -> None:
            asked_to_end.set()
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, end)
        # What was imported stays: a full collection that looked at it again would stop everything for long.
        gc.freeze()
        try:
            await task
        except asyncio.CancelledError:
            if not asked_to_end.is_set():
                raise

    asyncio.run(main())
