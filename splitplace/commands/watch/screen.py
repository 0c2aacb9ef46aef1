"""Show an observation while it grows: a live page on a terminal, else plain lines."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from splitplace.commands.shared.task_path import path_lines
from splitplace.commands.shared.task_record import TaskRecord
from splitplace.commands.watch.observation import Observation
from splitplace.commands.watch.view import line, page
from splitplace.commands.watch.words import Teller
from splitplace.messages.base import Message
from splitplace.terminal import printable

_REFRESH_S = 0.25
_LINE_EVERY_S = 5.0

Take = Callable[[Message], None]
"""Called with each message, after the observation has taken it in."""


@contextlib.asynccontextmanager
async def shown(observation: Observation, title: str, *, plain: bool = False) -> AsyncIterator[Take]:
    """Show the observation inside the block.

    Args:
        observation: What to show; somebody feeds it.
        title: Stands above the page.
        plain: Whether to print lines also on a terminal.
    """
    console = Console()
    if console.is_terminal and not plain:
        async with live(console, lambda: page(observation, title)):
            yield lambda _: None
        return
    teller = Teller(observation)

    def tell(message: Message) -> None:
        for said in teller.lines(message):
            print(printable(said), flush=True)

    async with _running(_print_figures(observation)):
        yield tell


@contextlib.asynccontextmanager
async def live(console: Console, content: Callable[[], RenderableType]) -> AsyncIterator[None]:
    """Draw what `content` returns again and again inside the block."""
    with Live(content(), console=console, auto_refresh=False, screen=False) as drawing:

        async def refresh() -> None:
            while True:
                await asyncio.sleep(_REFRESH_S)
                drawing.update(content(), refresh=True)

        async with _running(refresh()):
            yield
        drawing.update(content(), refresh=True)


def path_page(record: TaskRecord | None, wanted: str, observation: Observation) -> RenderableType:
    """Return the path of one task as far as it is known."""
    if record is None:
        return Text(f"waiting for task {printable(wanted)}")
    lines = path_lines(record, observation.applications.get(record.application))
    return Group(*(Text(printable(each), no_wrap=True) for each in lines))


async def _print_figures(observation: Observation) -> None:
    started = time.monotonic()
    while True:
        await asyncio.sleep(_LINE_EVERY_S)
        print(printable(f"{time.monotonic() - started:5.0f} s: {line(observation)}"), flush=True)


@contextlib.asynccontextmanager
async def _running(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name="screen")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
