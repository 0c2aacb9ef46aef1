"""`splitplace watch`."""

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from splitplace.bus.settings import Settings
from splitplace.commands.shared.options import BrokerOption, CredentialsOption, PrefixOption, settings_from
from splitplace.commands.shared.output import JsonOption, print_json
from splitplace.commands.watch.observation import Observation, observe
from splitplace.commands.watch.recording import Recorder, recording
from splitplace.commands.watch.screen import shown
from splitplace.messages.base import Message


def command(
    *,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    credentials: CredentialsOption = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Stop after this many seconds.", show_default="never")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="Append decisions and task ends to this file, for `splitplace replay`."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show metrics and decisions as they come.

    Counts of tasks and decisions start at zero; the other figures come from the services. Without a terminal
    it prints a line every five seconds. `--json` prints each message as one line with `topic` and `payload`.
    """
    settings = settings_from(broker, prefix, credentials)
    with contextlib.suppress(KeyboardInterrupt), recording(record) as recorder:
        asyncio.run(_watch(settings, seconds, recorder, as_json=as_json))


async def _watch(
    settings: Settings, seconds: float | None, recorder: Recorder | None, *, as_json: bool
) -> None:
    observation = Observation()

    def take(topic: str, message: Message) -> None:
        if recorder is not None:
            recorder.take(topic, message)
        if as_json:
            print_json({"topic": topic, "payload": message}, indent=None)

    async with contextlib.AsyncExitStack() as stack:
        if as_json:
            print(f"watching {settings.broker}, {settings.prefix} (Ctrl-C ends)", file=sys.stderr)
        else:
            title = f"{settings.broker}, {settings.prefix} (Ctrl-C ends)"
            await stack.enter_async_context(shown(observation, title))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await observe(settings, observation, on_message=take)
