"""`splitplace services`: all five services in one process, as `splitplace up` starts them.

Each keeps its connections, its user and its sign of life, so that others see no difference. What one tells
another is handed over as it is, and published for everybody else. If one of them ends, so does the process:
whoever has started it starts it again.
"""

import asyncio
import contextvars
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from splitplace.bus.exchange import Exchange
from splitplace.bus.process import PART, run_until_signal
from splitplace.bus.settings import Settings
from splitplace.commands.shared.options import (
    CredentialsFolderOption,
    LogLevelOption,
    NamedBrokerOption,
    PrefixOption,
)
from splitplace.commands.shared.places import StateDirOption
from splitplace.commands.shared.policy_option import PolicyOption, parse_pair
from splitplace.messages.topics import (
    GATEWAY,
    PLACER,
    RESOURCE_MONITOR,
    RESULT_AGGREGATOR,
    SERVICES,
    SPLITTER,
)
from splitplace.policies.pairs import PolicyPair
from splitplace.services.gateway.service import serve
from splitplace.services.gateway.settings import GatewaySettings
from splitplace.services.placer.service import Placer
from splitplace.services.placer.settings import PlacerSettings
from splitplace.services.resource_monitor.service import ResourceMonitor
from splitplace.services.resource_monitor.settings import ResourceMonitorSettings
from splitplace.services.result_aggregator.service import ResultAggregator
from splitplace.services.result_aggregator.settings import ResultAggregatorSettings
from splitplace.services.splitter.service import Splitter
from splitplace.services.splitter.settings import SplitterSettings

log = logging.getLogger(__name__)

END_S = 10.0
"""How long a service may take to end once another has ended."""


@dataclass(frozen=True, slots=True)
class Part:
    """A service with its settings, ready to run."""

    settings: Settings
    run: Callable[[], Awaitable[None]]


def parts(given: Mapping[str, Any], policy: PolicyPair | None) -> dict[str, Part]:
    """Return all services by name.

    Args:
        given: settings that all of them share, by field; the rest comes from variables and `splitplace.toml`.
        policy: how to split and where to place; None leaves that to the settings.

    Raises:
        ConfigurationError: a setting is wrong.
    """
    split = {"policy": policy.split} if policy is not None else {}
    place = {"placement": policy.placement} if policy is not None else {}
    gateway = GatewaySettings.load(**given)
    splitter = SplitterSettings.load(**given, **split)
    placer = PlacerSettings.load(**given, **place)
    monitor = ResourceMonitorSettings.load(**given)
    aggregator = ResultAggregatorSettings.load(**given)
    exchange = Exchange(SERVICES)
    return {
        GATEWAY: Part(gateway, lambda: serve(gateway, exchange)),
        SPLITTER: Part(splitter, lambda: Splitter(splitter, exchange).run()),
        PLACER: Part(placer, lambda: Placer(placer, exchange).run()),
        RESOURCE_MONITOR: Part(monitor, lambda: ResourceMonitor(monitor, exchange).run()),
        RESULT_AGGREGATOR: Part(aggregator, lambda: ResultAggregator(aggregator, exchange).run()),
    }


async def run_together(chosen: Mapping[str, Part]) -> None:
    """Run services on this event loop until cancelled. Raises what ends the first of them.

    The others are cancelled then. If one of them does not end, the process ends all the same, at once.
    """
    running: list[asyncio.Task[None]] = []
    for name, part in chosen.items():
        context = contextvars.copy_context()
        context.run(PART.set, name)
        running.append(asyncio.create_task(_run(name, part), name=name, context=context))
    try:
        ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in running:
            task.cancel()
        _, hanging = await asyncio.wait(running, timeout=END_S)
        if hanging:
            log.critical("%s: not ended after %g s", ", ".join(task.get_name() for task in hanging), END_S)
            _give_up()
    for task in ended:
        task.result()


def _give_up() -> None:
    """End the process without waiting for anybody: what lives on would be a service that nobody restarts."""
    logging.shutdown()
    os._exit(1)


async def _run(name: str, part: Part) -> None:
    try:
        await part.run()
    except Exception as error:
        log.error("%s ends, and all others with it: %s", name, error)  # noqa: TRY400 - raised again
        raise
    raise RuntimeError(f"{name} has ended")


def command(
    *,
    broker: NamedBrokerOption = None,
    prefix: PrefixOption = None,
    credentials: CredentialsFolderOption = None,
    policy: PolicyOption = None,
    state_dir: StateDirOption = None,
    log_level: LogLevelOption = None,
) -> None:
    """Run all five services in this process.

    A signal ends them. `splitplace up` runs this, and starts it again when it ends.
    """
    flags = {"broker": broker, "prefix": prefix, "credentials": credentials, "state_dir": state_dir}
    flags |= {"log_level": log_level}
    given = {name: value for name, value in flags.items() if value is not None}
    chosen = parts(given, parse_pair(policy))
    run_until_signal(run_together(chosen), chosen[GATEWAY].settings)
