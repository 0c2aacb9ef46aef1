"""Compare services that share a process with services apart: `python -m benchmarks.together`.

Both systems run at the same time, each with a Mosquitto and a node of its own, and are asked in turns: in
each round one by a sensor that waits for every answer, then by several. Printed are the medians over all
rounds.
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from splitplace.commands.processes.broker import started_broker
from splitplace.commands.processes.children import Processes
from splitplace.messages.topics import SERVICES
from tests.support.swarm import Swarm, Told, swarm
from tests.support.waiting import until

ROUNDS = 7
SINGLES = 100
AT_ONCE = 16
THROUGHPUT_S = 3.0
MEGABYTE = 1e6


@dataclass
class System:
    """One of the two, and what was measured of it."""

    name: str
    url: str
    pids: Sequence[int]
    """Processes of the services."""
    sensors: Swarm
    single_ms: list[float] = field(default_factory=list)
    """Median response of single tasks in each round."""
    per_second: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    """CPU time of the services for a task, while several sensors ask."""

    def cpu_s(self) -> float:
        """Return the CPU time of the services so far."""
        return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in self.pids)

    def memory_mb(self) -> float:
        """Return what the services have resident; shared libraries count for each process."""
        return sum(psutil.Process(pid).memory_info().rss for pid in self.pids) / MEGABYTE


def _is_heard(told: Told) -> bool:
    return told.answer is not None


async def ready(system: System, application: str, image: bytes) -> None:
    """Wait until a system is there, and has loaded and measured what it needs."""
    answered = False
    while not answered:
        told = system.sensors.sensors[0].ask(application, image, 2.0)
        with contextlib.suppress(TimeoutError):
            await until(partial(_is_heard, told), 3.0)
        answered = told.status == "answered"
    await system.sensors.singles(application, image, SINGLES, 10.0)


async def measure(system: System, application: str, image: bytes) -> None:
    """Ask a system for one round."""
    singles = await system.sensors.singles(application, image, SINGLES, 10.0)
    system.single_ms.append(1e3 * statistics.median(told.took_s for told in singles))
    before_s = system.cpu_s()
    rate = await system.sensors.throughput(application, image, at_once=AT_ONCE, seconds=THROUGHPUT_S)
    system.per_second.append(rate)
    system.cpu_ms.append(1e3 * (system.cpu_s() - before_s) / max(1.0, rate * THROUGHPUT_S))


def start(folder: Path, processes: Processes, url: str, *, together: bool) -> list[int]:
    """Start the services and a node. Returns the processes of the services."""
    options = ("--broker", url, "--state-dir", str(folder))
    names = ("services",) if together else SERVICES
    started = [
        processes.start(f"{folder.name}-{name}", (sys.executable, "-m", "splitplace", name, *options))
        for name in names
    ]
    node = ("-m", "splitplace.edge_node", "--node", "n1", "--broker", url, "--state-dir", str(folder / "n1"))
    processes.start(f"{folder.name}-n1", (sys.executable, *node))
    return [child.pid for child in started if child.pid is not None]


async def compare(arguments: argparse.Namespace, urls: dict[str, str], pids: dict[str, list[int]]) -> None:
    """Ask both in turns, and print."""
    image = arguments.image.read_bytes()
    async with contextlib.AsyncExitStack() as stack:
        systems = [
            System(name, url, pids[name], await stack.enter_async_context(swarm(url, AT_ONCE)))
            for name, url in urls.items()
        ]
        for system in systems:
            await ready(system, arguments.application, image)
        for number in range(arguments.rounds):
            for system in systems if number % 2 else reversed(systems):
                await measure(system, arguments.application, image)
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
        for system in systems:
            print(
                f"{system.name:9}: {statistics.median(system.single_ms):6.1f} ms a single task, "
                f"{statistics.median(system.per_second):5.0f} tasks a second with {AT_ONCE} sensors, "
                f"{statistics.median(system.cpu_ms):5.1f} ms of CPU a task in the services, "
                f"{system.memory_mb():4.0f} MB resident"
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--application", default="mnist")
    parser.add_argument("--image", type=Path, default=Path("examples/images/digit-7-3.png"))
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        processes = stack.enter_context(Processes(folder / "logs"))
        urls, pids = {}, {}
        for name in ("together", "apart"):
            broker = stack.enter_context(started_broker(folder / f"{name}-broker", kind="mosquitto"))
            urls[name] = broker.url
            pids[name] = start(folder / name, processes, broker.url, together=name == "together")
        asyncio.run(compare(arguments, urls, pids))


if __name__ == "__main__":
    main()
