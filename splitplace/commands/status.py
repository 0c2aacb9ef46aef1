"""`splitplace status`."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import aiomqtt
import typer
from rich.console import Console
from rich.table import Table

from splitplace.bus.settings import Settings
from splitplace.commands.shared.client import Seen, new_client, retained
from splitplace.commands.shared.exit_codes import ExitCode
from splitplace.commands.shared.options import BrokerOption, PrefixOption, fail, settings_from
from splitplace.messages.limits import MEBIBYTE
from splitplace.messages.topics import CLUSTER_STATE, NODE_INFO, NODE_STATUS, SERVICE_STATUS, SERVICES


@dataclass(frozen=True, slots=True)
class Service:
    """One of the five services."""

    name: str
    online: bool
    software: str | None
    """Its version; None where it was never seen."""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One edge node, as it and the resource monitor say."""

    name: str
    online: bool
    score: float | None
    """GFLOP/s of the reference benchmark."""
    cpu_share: float | None
    memory_budget_bytes: int | None
    fragments_loaded: int | None
    queue_length: int | None
    queue_ms: float | None
    software: str | None


@dataclass(frozen=True, slots=True)
class SystemReport:
    """What runs."""

    services: tuple[Service, ...]
    nodes: tuple[NodeReport, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Services that do not run."""
        return tuple(service.name for service in self.services if not service.online)


TOPICS = (SERVICE_STATUS, NODE_STATUS, NODE_INFO, CLUSTER_STATE)


def status_of(seen: Seen) -> SystemReport:
    """What the retained messages of a system say."""
    services = {message.service: message for message in seen.messages(SERVICE_STATUS)}
    infos = {message.node: message for message in seen.messages(NODE_INFO)}
    states = {node.node: node for cluster in seen.messages(CLUSTER_STATE) for node in cluster.nodes}
    nodes = []
    for said in seen.messages(NODE_STATUS):
        info, state = infos.get(said.node), states.get(said.node)
        nodes.append(
            NodeReport(
                name=said.node,
                online=said.online and (state is None or state.online),
                score=info.score if info else None,
                cpu_share=info.cpu_share if info else None,
                memory_budget_bytes=info.memory_budget_bytes if info else None,
                fragments_loaded=len(state.loaded) if state else None,
                queue_length=state.queue_length if state else None,
                queue_ms=state.queue_ms if state else None,
                software=info.software if info else None,
            )
        )
    return SystemReport(
        services=tuple(
            Service(name, services[name].online, services[name].software)
            if name in services
            else Service(name, online=False, software=None)
            for name in SERVICES
        ),
        nodes=tuple(nodes),
    )


async def _look(settings: Settings) -> SystemReport:
    async with new_client(settings, "status") as client:
        return status_of(await retained(client, settings, TOPICS))


def command(
    *,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show services and nodes.

    Exits with 1 where a service does not run, and with 5 where the broker cannot be reached.
    """
    settings = settings_from(broker, prefix)
    try:
        status = asyncio.run(_look(settings))
    except (aiomqtt.MqttError, OSError) as error:
        fail(f"broker {settings.broker}: {error}", ExitCode.UNREACHABLE)
    if as_json:
        print(json.dumps(asdict(status), indent=2))
    else:
        _print(status, settings)
    if status.missing:
        fail(
            f"missing: {', '.join(status.missing)} (start all services with: splitplace up)", ExitCode.PROBLEM
        )


def _print(status: SystemReport, settings: Settings) -> None:
    console = Console()
    services = Table("service", "state", "version", title=f"Services on {settings.broker}, {settings.prefix}")
    for service in status.services:
        services.add_row(service.name, _state(online=service.online), service.software or "")
    console.print(services)
    if not status.nodes:
        console.print("no node has ever said hello here (start one with: splitplace node --node NAME)")
        return
    nodes = Table("node", "state", title="Nodes")
    for heading in ("GFLOP/s", "CPU share", "memory MB", "loaded", "queue", "queue ms"):
        nodes.add_column(heading, justify="right")
    for node in status.nodes:
        megabytes = None if node.memory_budget_bytes is None else node.memory_budget_bytes / MEBIBYTE
        figures: Sequence[float | None] = (
            node.score,
            node.cpu_share,
            megabytes,
            node.fragments_loaded,
            node.queue_length,
            node.queue_ms,
        )
        nodes.add_row(node.name, _state(online=node.online), *map(_figure, figures))
    console.print(nodes)


def _state(*, online: bool) -> str:
    return "[green]online[/]" if online else "[red]offline[/]"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
