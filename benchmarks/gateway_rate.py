"""Measure how many tasks per second the gateway accepts: `python -m benchmarks.gateway_rate`.

One gateway process on Mosquitto (or the embedded broker), one-image tasks in msgpack from one client that
never waits. A task counts when its `accepted` event arrives: then it is checked, decoded and in the journal.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import msgpack
import numpy as np

from splitplace.bus.connection import Bus, Received
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import available_kind, started_broker
from splitplace.commands.processes.children import Processes
from splitplace.messages import topics
from splitplace.messages.cluster import ServiceStatus
from splitplace.messages.task import TaskAccepted
from tests.support.tiny_application import build_tiny_application

TASKS = 5000
DEADLINE_MS = 600_000.0


async def measure(settings: Settings, store: Path, tasks: int) -> float:
    """Return accepted tasks per second, from the first publication to the last `accepted`."""
    application = build_tiny_application(store)
    accepted = 0
    ready, done = asyncio.Event(), asyncio.Event()

    async def on_accepted(received: Received[TaskAccepted]) -> None:
        nonlocal accepted
        accepted += received.message.attempt == 1
        if accepted == tasks:
            done.set()

    async def on_service(received: Received[ServiceStatus]) -> None:
        if received.message.online:
            ready.set()

    bus, sender = Bus(settings, "benchmark"), Bus(settings, "benchmark-sender")
    bus.subscribe(topics.JOB_ACCEPTED, on_accepted)
    bus.subscribe(topics.SERVICE_STATUS, on_service, service=topics.GATEWAY)
    images = np.random.default_rng(0).integers(0, 256, (1, 1, 4, 4), dtype=np.uint8)
    body = bytes(msgpack.packb({"inputs": images.tobytes(), "deadline_ms": DEADLINE_MS}))
    async with bus, sender:
        await bus.publish(topics.APPLICATION, application, application=application.name)
        await asyncio.wait_for(ready.wait(), 20.0)
        begin = time.perf_counter()
        for first in range(0, tasks, 200):
            names = (
                topics.TASK_NAMED.at(application="tiny", client="load", task=f"t{first + index}")
                for index in range(200)
            )
            await asyncio.gather(*(sender.publish_raw(name, body) for name in names))
        await asyncio.wait_for(done.wait(), 120.0)
        return tasks / (time.perf_counter() - begin)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=TASKS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            started_broker(folder / "broker", kind=available_kind()) as broker,
            Processes(folder) as processes,
        ):
            limits = ("--max-tasks", str(2 * arguments.tasks), "--journal", str(folder / "journal"))
            command = (sys.executable, "-m", "splitplace.services.gateway", "--broker", broker.url, *limits)
            processes.start("gateway", (*command, "--stall-ms", "600000"))
            rate = asyncio.run(measure(Settings(broker=broker.url), folder / "store", arguments.tasks))
            print(f"gateway on {broker.kind}: {rate:.0f} tasks accepted a second (aim: 500)")


if __name__ == "__main__":
    main()
