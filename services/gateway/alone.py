"""Work on one attempt that must not end the gateway."""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)


async def alone(work: Callable[[T], Awaitable[None]], instruction: T) -> None:
    """Log an error in the work on one attempt: it stalls and is tried again, and the others go on."""
    try:
        await work(instruction)
    except Exception:
        log.exception("working on an attempt")
