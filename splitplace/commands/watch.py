"""`splitplace watch`."""

import asyncio
import contextlib
from pathlib import Path
from typing import Annotated

import aiomqtt
import typer

from splitplace.bus.settings import Settings
from splitplace.commands.shared.exit_codes import ExitCode
from splitplace.commands.shared.options import BrokerOption, PrefixOption, fail, settings_from
from splitplace.commands.watching.observation import Observation, observe
from splitplace.commands.watching.recording import Recorder, RecordingError, recording
from splitplace.commands.watching.screen import shown


async def _watch(settings: Settings, seconds: float | None, recorder: Recorder | None) -> None:
    observation = Observation()
    async with shown(observation, f"{settings.broker}, {settings.prefix} (Ctrl-C ends)"):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await observe(settings, observation, on_message=recorder.take if recorder else None)


def command(
    *,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="End after so long. [default: never]")] = None,
    record: Annotated[
        Path | None, typer.Option(help="Add decisions and ends of tasks to this file, for splitplace replay.")
    ] = None,
) -> None:
    """Show metrics and decisions as they come.

    Counts of tasks and decisions begin when this begins; the other figures are the services' own. Without
    a terminal it prints a line every five seconds.
    """
    settings = settings_from(broker, prefix)
    try:
        with recording(record) as recorder:
            asyncio.run(_watch(settings, seconds, recorder))
    except RecordingError as error:
        fail(str(error), ExitCode.PROBLEM)
    except (aiomqtt.MqttError, OSError) as error:
        fail(f"broker {settings.broker}: {error}", ExitCode.UNREACHABLE)
    except KeyboardInterrupt:
        pass
