"""`splitplace status`."""

import asyncio
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from splitplace.bus.settings import Settings
from splitplace.commands.shared.client import connected, may_not_read
from splitplace.commands.shared.options import (
    BrokerOption,
    CredentialsOption,
    PrefixOption,
    fail,
    settings_from,
)
from splitplace.commands.shared.output import JsonOption, cell, print_json
from splitplace.commands.shared.system_report import SystemReport, look, report_on
from splitplace.errors import ExitCode
from splitplace.messages.limits import MEBIBYTE
from splitplace.messages.topics import NODE_STATUS, SERVICE_STATUS

_NARROW: Any = {"box": SIMPLE_HEAD, "show_edge": False, "pad_edge": False, "padding": 0}
"""A table of nodes fits 80 columns so, with names up to 19 letters on one line."""


def command(
    *,
    broker: BrokerOption = None,
    prefix: PrefixOption = None,
    credentials: CredentialsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show services and nodes.

    Exits with 1 if a service is not running, and with 5 if the broker cannot be reached.
    """
    settings = settings_from(broker, prefix, credentials)
    report = asyncio.run(_look(settings))
    if as_json:
        print_json(report)
    else:
        _print(report, settings)
    if report.unreadable:
        fail(f"{may_not_read(settings, report.unreadable)}, so it cannot tell what runs", ExitCode.PROBLEM)
    if report.missing:
        fail(
            f"missing: {', '.join(report.missing)} (start all services with: splitplace up)", ExitCode.PROBLEM
        )


async def _look(settings: Settings) -> SystemReport:
    async with connected(settings, "status") as client:
        return report_on(await look(client, settings))


def _print(report: SystemReport, settings: Settings) -> None:
    console = Console()
    if SERVICE_STATUS.filter not in report.unreadable:
        _print_services(console, report, settings)
    if NODE_STATUS.filter not in report.unreadable:
        _print_nodes(console, report)


def _print_services(console: Console, report: SystemReport, settings: Settings) -> None:
    console.print(cell(f"Services on {settings.broker}, {settings.prefix}", "bold"))
    services = Table("service", "state", "version", **_NARROW)
    for service in report.services:
        services.add_row(service.name, _state(online=service.online), cell(service.software or ""))
    console.print(services)
    for service in report.services:
        if service.online and service.trouble:
            console.print(cell(f"{service.name}: {service.trouble}", "yellow"))
    for stranger in report.strangers:
        console.print(cell(f"{stranger} (install the same version everywhere)", "yellow"))


def _print_nodes(console: Console, report: SystemReport) -> None:
    if not report.nodes:
        console.print("No node is known here. Start one with: splitplace node --node NAME")
        return
    console.print("Nodes", style="bold")
    nodes = Table(**_NARROW)
    nodes.add_column("node", overflow="fold", min_width=4)
    nodes.add_column("state", no_wrap=True)
    for heading in (
        "GFLOP/s",
        "cores",
        "CPU\nshare",
        "memory\nMB",
        "mapped\nMB",
        "loaded",
        "queue",
        "queue\nms",
    ):
        nodes.add_column(heading, justify="right")
    for node in report.nodes:
        megabytes = None if node.memory_budget_bytes is None else node.memory_budget_bytes / MEBIBYTE
        figures: Sequence[float | None] = (
            node.score,
            node.threads,
            node.cpu_share,
            megabytes,
            None if node.mapped_bytes is None else node.mapped_bytes / MEBIBYTE,
            node.fragments_loaded,
            node.queue_length,
            node.queue_ms,
        )
        state = "[yellow]stalled[/]" if node.online and node.stalled else _state(online=node.online)
        nodes.add_row(node.name, state, *map(_figure, figures))
    console.print(nodes)
    for node in report.nodes:
        if node.online and node.trouble:
            console.print(cell(f"{node.name}: {node.trouble}", "yellow"))


def _state(*, online: bool) -> str:
    return "[green]online[/]" if online else "[red]offline[/]"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
