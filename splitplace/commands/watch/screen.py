"""Show an observation while it grows."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from rich.console import Console
from rich.live import Live

from splitplace.commands.watch.observation import Observation
from splitplace.commands.watch.view import decision_line, line, page
from splitplace.terminal import printable

_REFRESH_S = 0.25
_LINE_EVERY_S = 5.0


@contextlib.asynccontextmanager
async def shown(observation: Observation, title: str) -> AsyncIterator[None]:
    """Show the observation inside the block: a live page on a terminal, else plain lines."""
    showing = asyncio.create_task(_show(observation, title, Console()), name="screen")
    try:
        yield
    finally:
        showing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await showing


async def _show(observation: Observation, title: str, console: Console) -> None:
    if console.is_terminal:
        with Live(page(observation, title), console=console, auto_refresh=False, screen=False) as live:
            while True:
                await asyncio.sleep(_REFRESH_S)
                live.update(page(observation, title), refresh=True)
    started = time.monotonic()
    said: set[str] = set()
    next_line = started + _LINE_EVERY_S
    while True:
        await asyncio.sleep(_REFRESH_S)
        for variant, decided in observation.examples.items():
            if variant not in said:
                said.add(variant)
                print(printable(f"first decision {decision_line(decided)}"), flush=True)
        if time.monotonic() >= next_line:
            next_line += _LINE_EVERY_S
            print(printable(f"{time.monotonic() - started:5.0f} s: {line(observation)}"), flush=True)
