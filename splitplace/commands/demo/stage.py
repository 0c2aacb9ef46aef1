"""Where the demo speaks: words and tables in their order, with what happens now below them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable

from rich.console import Console, Group, RenderableType
from rich.text import Text

from splitplace.commands.watch.observation import Observation
from splitplace.commands.watch.screen import live
from splitplace.commands.watch.view import nodes_table
from splitplace.terminal import printable

_LINE_EVERY_S = 5.0


class Stage:
    """The terminal, or a plain file in its place."""

    def __init__(self, observation: Observation, *, plain: bool = False, on_stderr: bool = False) -> None:
        """Show progress from an observation; somebody feeds it.

        Args:
            observation: What is seen of the system.
            plain: Whether to print lines also on a terminal.
            on_stderr: Whether standard output is kept for something else.
        """
        self._seen = observation
        self._console = Console(stderr=on_stderr)
        self._is_live = self._console.is_terminal and not plain
        self._doing: Callable[[], str] = lambda: ""

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Show what is being done inside the block: live on a terminal, else a line now and then."""
        if self._is_live:
            async with live(self._console, self._now):
                yield
            return
        lines = asyncio.create_task(self._lines(), name="progress")
        try:
            yield
        finally:
            lines.cancel()
            await asyncio.gather(lines, return_exceptions=True)

    def say(self, *parts: RenderableType) -> None:
        """Print paragraphs and tables, each after an empty line."""
        for part in parts:
            self._console.print()
            self._console.print(Text(printable(part)) if isinstance(part, str) else part)

    def head(self, title: str) -> None:
        """Print the title of an act."""
        self._console.print()
        self._console.rule(Text(printable(title), style="bold"), align="left")

    def lines(self, lines: Iterable[str]) -> None:
        """Print lines as they are."""
        self._console.print()
        for line in lines:
            self._console.print(Text(printable(line), no_wrap=True, overflow="ellipsis"))

    def doing(self, what: Callable[[], str]) -> None:
        """Set what is being done now."""
        self._doing = what

    def progress(self, act: str, clients: Iterable[str], tasks: int) -> None:
        """Show how many tasks of some sensors have come and ended."""
        prefixes = tuple(f"{client}." for client in clients)
        self.doing(lambda: f"{act}: {progress_line(self._seen, prefixes, tasks)}")

    def _now(self) -> RenderableType:
        return Group(Text(""), Text(printable(self._doing()), style="bold"), nodes_table(self._seen))

    async def _lines(self) -> None:
        started = time.monotonic()
        while True:
            await asyncio.sleep(_LINE_EVERY_S)
            if said := self._doing():
                line = printable(f"{time.monotonic() - started:5.0f} s  {said}")
                self._console.print(Text(line), soft_wrap=True)


def progress_line(seen: Observation, prefixes: tuple[str, ...], tasks: int) -> str:
    """Return how many tasks have come and how they ended."""
    came = sum(key.startswith(prefixes) for key in seen.accepted)
    ended = [event for key, event in seen.finished.items() if key.startswith(prefixes)]
    in_time = sum(event.on_time for event in ended)
    late = sum(event.status == "answered" and not event.on_time for event in ended)
    return (
        f"{came} of {tasks} tasks sent, {in_time} answered in time, {late} late, "
        f"{len(ended) - in_time - late} refused or expired, {came - len(ended)} open"
    )
