"""`splitplace watch`."""

import asyncio
import contextlib
from typing import Annotated

import aiomqtt
import typer

from bus.settings import Settings
from cli.exit_codes import ExitCode
from cli.observation import Observation, observe
from cli.options import BrokerOption, PrefixOption, fail, settings_from
from cli.screen import shown


async def _watch(settings: Settings, seconds: float | None) -> None:
    observation = Observation()
    async with shown(observation, f"{settings.broker}, {settings.prefix} (Ctrl-C ends)"):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await observe(settings, observation)


def command(
    *,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="End after so long. [default: never]")] = None,
) -> None:
    """Show metrics and decisions as they come.

    Counts of tasks and decisions begin when this begins; the other figures are the services' own. Without
    a terminal it prints a line every five seconds.
    """
    settings = settings_from(broker, prefix)
    try:
        asyncio.run(_watch(settings, seconds))
    except (aiomqtt.MqttError, OSError) as error:
        fail(f"broker {settings.broker}: {error}", ExitCode.UNREACHABLE)
    except KeyboardInterrupt:
        pass
