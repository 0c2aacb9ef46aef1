"""A part of the system as a process: settings from the command line, logging, signals, exit code."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from splitplace.bus.settings import Settings
from splitplace.errors import SplitPlaceError

log = logging.getLogger(__name__)

SettingsT = TypeVar("SettingsT", bound=Settings)


class Main(Protocol):
    """The entry point of a process."""

    def __call__(self, argv: Sequence[str] | None = None) -> None:
        """Run until a signal; `argv` defaults to the arguments of the process."""


def process(
    name: str, settings: type[SettingsT], run: Callable[[SettingsT], Coroutine[Any, Any, None]]
) -> Main:
    """Return the entry point of `splitplace <name>`.

    Args:
        name: the sub-command.
        settings: read from flags, variables and the TOML file.
        run: the part's work until it is cancelled. Its own errors (`SplitPlaceError`) end the process with
            their message, all others with a traceback.
    """

    def main(argv: Sequence[str] | None = None) -> None:
        program = f"splitplace {name}"
        chosen = settings.from_arguments(sys.argv[1:] if argv is None else argv, program)

        async def work() -> None:
            await run(chosen)

        try:
            run_until_signal(work(), chosen)
        except SplitPlaceError as error:
            sys.exit(f"{program}: {error}")

    return main


def run_until_signal(work: Coroutine[Any, Any, None], settings: Settings) -> None:
    """Run until the work ends, or SIGINT or SIGTERM asks it to. Raises what the work raises."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )

    async def main() -> None:
        task = asyncio.ensure_future(work)
        asked_to_end = asyncio.Event()

        def end() -> None:
            asked_to_end.set()
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, end)
        try:
            await task
        except asyncio.CancelledError:
            if not asked_to_end.is_set():
                raise

    asyncio.run(main())
