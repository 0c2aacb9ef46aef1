"""Measure what a message costs the bus: `python -m benchmarks.message`.

One process publishes small messages to itself through a Mosquitto, a hundred at a time, and reads them.
Printed is its CPU time for each message in the cheapest round: other work on the machine only adds to it.
"""

import asyncio
import tempfile
import time
from pathlib import Path

from splitplace.bus.connection import Bus, Received
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import started_broker
from splitplace.messages.task import SettleTask
from splitplace.messages.topics import JOB_SETTLE
from tests.support.waiting import until

AT_ONCE = 100
ROUNDS = 60


async def measure(url: str) -> None:
    """Publish, read and print."""
    bus, seen = Bus(Settings(broker=url), "message"), 0

    def on_message(_: Received[SettleTask]) -> None:
        nonlocal seen
        seen += 1

    bus.subscribe_at_once(JOB_SETTLE, on_message)
    message = SettleTask(task="sensor.task.0000abcd")
    name, payload = JOB_SETTLE.name_of(message), JOB_SETTLE.encoded(message)
    async with bus:
        await bus.connected()
        for qos in (0, 1):
            used_s = []
            for _ in range(ROUNDS):
                wanted, began_s = seen + AT_ONCE, time.process_time()
                for _ in range(AT_ONCE):
                    bus.post(name, payload, qos=qos)
                await until(lambda wanted=wanted: seen >= wanted)  # type: ignore[misc]
                used_s.append(time.process_time() - began_s)
            print(f"QoS {qos}: {1e6 * min(used_s) / AT_ONCE:.0f} µs of CPU a message, published and read")


def main() -> None:
    """Measure and print."""
    with (
        tempfile.TemporaryDirectory() as folder,
        started_broker(Path(folder) / "broker", kind="mosquitto") as broker,
    ):
        asyncio.run(measure(broker.url))


if __name__ == "__main__":
    main()
