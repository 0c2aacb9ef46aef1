"""What all services do alike: announce themselves, leave a last will, report drops, stop cleanly."""

import asyncio
import contextlib
import logging
import secrets
import signal
from collections.abc import AsyncIterator, Coroutine
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from splitplace.bus.connection import Bus
from splitplace.bus.settings import Settings
from splitplace.messages.cluster import ServiceStatus
from splitplace.messages.metrics import ServiceMetrics
from splitplace.messages.topics import METRICS_SERVICE, SERVICE_STATUS

METRICS_EVERY_S = 2.0


def software_version() -> str:
    """Version of the installed package."""
    try:
        return version("splitplace")
    except PackageNotFoundError:  # run from a folder without installing
        return "unknown"


def new_boot_id() -> str:
    """Random id of this start of a process."""
    return secrets.token_hex(8)


def service_bus(name: str, settings: Settings) -> Bus:
    """A bus whose last will and retained status speak for the service `name`."""
    boot = new_boot_id()

    def status(*, online: bool) -> ServiceStatus:
        return ServiceStatus(service=name, boot=boot, online=online, software=software_version())

    bus = Bus(
        settings,
        f"splitplace-{name}",
        will=(SERVICE_STATUS.at(service=name), status(online=False)),
    )

    async def announce() -> None:
        await bus.publish(SERVICE_STATUS, status(online=True))

    bus.on_connect(announce)
    return bus


@contextlib.asynccontextmanager
async def announced(bus: Bus, name: str) -> AsyncIterator[None]:
    """Connect, report metrics while inside, and say goodbye on the way out."""
    async with bus:
        report = asyncio.create_task(_report(bus, name), name=f"{name} metrics")
        try:
            yield
        finally:
            report.cancel()
            if bus.is_connected:
                goodbye = ServiceStatus(
                    service=name, boot=new_boot_id(), online=False, software=software_version()
                )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await bus.publish(SERVICE_STATUS, goodbye)


async def _report(bus: Bus, name: str) -> None:
    while True:
        await asyncio.sleep(METRICS_EVERY_S)
        seen = bus.statistics
        bus.send(
            METRICS_SERVICE,
            ServiceMetrics(
                service=name,
                received=seen.received,
                rejected=seen.rejected,
                overflowed=seen.overflowed,
                reconnects=seen.reconnects,
            ),
        )


def run_until_signal(work: Coroutine[Any, Any, None], settings: Settings) -> None:
    """Run a service until it ends, or SIGINT or SIGTERM asks it to."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )

    async def main() -> None:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
