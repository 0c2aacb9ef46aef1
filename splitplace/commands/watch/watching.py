"""Watch a system: feed the observation, and show all of it or the path of one task."""

import asyncio
import contextlib
import sys
from dataclasses import dataclass

from rich.console import Console

from splitplace.bus.settings import Settings
from splitplace.commands.shared.output import print_json
from splitplace.commands.shared.task_path import path_lines
from splitplace.commands.shared.task_record import TaskMessage
from splitplace.commands.watch.observation import Observation, observe
from splitplace.commands.watch.recording import Recorder
from splitplace.commands.watch.screen import Take, live, path_page, shown
from splitplace.commands.watch.words import is_named
from splitplace.messages.base import Message
from splitplace.messages.task import TaskFinished
from splitplace.terminal import printable


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """What to show, and how."""

    task: str | None = None
    """The task whose path is wanted; None shows everything."""
    plain: bool = False
    """Whether to print lines also on a terminal."""
    as_json: bool = False
    """Whether to print messages as JSON instead."""


class Watching:
    """One run of `splitplace watch`."""

    def __init__(self, settings: Settings, recorder: Recorder | None, options: WatchOptions) -> None:
        self._settings = settings
        self._recorder = recorder
        self._options = options
        self._seen = Observation()
        self._tell: Take = lambda _: None
        self._key: str | None = None
        """Key of the wanted task: the first that is named so."""
        self._ended = asyncio.Event()

    @property
    def found(self) -> bool:
        """Whether the wanted task has ended, or none is wanted."""
        return self._options.task is None or self._ended.is_set()

    async def run(self, seconds: float | None) -> None:
        """Show what comes, until the time is over or the wanted task has ended. Raises UnreachableError."""
        async with contextlib.AsyncExitStack() as stack:
            await self._begin(stack)
            work = (
                asyncio.create_task(observe(self._settings, self._seen, on_message=self._take)),
                asyncio.create_task(self._ended.wait()),
            )
            try:
                done, _ = await asyncio.wait(work, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    each.result()
            finally:
                for each in work:
                    each.cancel()
                await asyncio.gather(*work, return_exceptions=True)
        if self._options.task is not None and not self._options.as_json and not self._draws:
            self._print_path()

    @property
    def _draws(self) -> bool:
        return Console().is_terminal and not self._options.plain

    async def _begin(self, stack: contextlib.AsyncExitStack) -> None:
        options, title = self._options, f"{self._settings.broker}, {self._settings.prefix} (Ctrl-C ends)"
        if options.as_json:
            print(f"watching {title}", file=sys.stderr)
        elif options.task is None:
            self._tell = await stack.enter_async_context(shown(self._seen, title, plain=options.plain))
        elif self._draws:
            wanted = options.task
            await stack.enter_async_context(
                live(
                    Console(), lambda: path_page(self._seen.records.get(self._key or ""), wanted, self._seen)
                )
            )
        else:
            print(f"waiting for task {options.task} on {title}", file=sys.stderr)

    def _take(self, topic: str, message: Message) -> None:
        if self._recorder is not None:
            self._recorder.take(topic, message)
        wanted = self._options.task
        is_wanted = wanted is None or (isinstance(message, TaskMessage) and self._is_wanted(message, wanted))
        if self._options.as_json:
            if is_wanted:
                print_json({"topic": topic, "payload": message}, indent=None)
        else:
            self._tell(message)
        if wanted is not None and is_wanted and isinstance(message, TaskFinished):
            self._ended.set()

    def _is_wanted(self, message: TaskMessage, wanted: str) -> bool:
        if self._key is None and is_named(message.task, wanted):
            self._key = message.task
        return message.task == self._key

    def _print_path(self) -> None:
        record = self._seen.records.get(self._key or "")
        if record is not None:
            for each in path_lines(record, self._seen.applications.get(record.application)):
                print(printable(each))
