"""Compare `splitplace up` with thirty lines of paho and ONNX Runtime: `python -m benchmarks.rival`.

Both run at the same time, each with a Mosquitto of its own, and are asked in turns with the same picture: in
each round one by a sensor that waits for every answer, then by several. CPU time is that of everything but
the sensors: broker, services and node, or broker and rival. Printed are medians over the rounds, and their
ratios. On a machine that others use, only the ratios count.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import onnx
import psutil

from splitplace.commands.processes.broker import started_broker
from splitplace.commands.processes.children import Processes
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE
from splitplace.workshop.pieces.loaded import stage_model
from tests.support.swarm import Swarm, Told, swarm
from tests.support.waiting import until

AT_ONCE = 16
MEGABYTE = 1e6
AIMS: Mapping[str, float] = {"p50": 2.5, "p99": 4.0, "CPU a task": 2.5}
"""Highest ratios to the thirty lines."""
AIM_PER_SECOND = 600


@dataclass
class Rival:
    """One of the two, and what was measured of it."""

    name: str
    pids: Mapping[str, int]
    """Its processes, the broker's included."""
    sensors: Swarm
    singles_ms: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    """Median time of the single tasks, one for each round."""
    per_second: list[float] = field(default_factory=list)
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)
    """CPU time of each process for a task, while several sensors ask."""

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU time of each process so far."""
        return {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in self.pids.items()}

    def memory_mb(self) -> dict[str, float]:
        """Return the resident memory of each process."""
        return {name: psutil.Process(pid).memory_info().rss / MEGABYTE for name, pid in self.pids.items()}

    @property
    def cpu_a_task_ms(self) -> float:
        """Median CPU time of all processes for a task."""
        return statistics.median(map(sum, zip(*self.cpu_ms.values(), strict=True)))

    @property
    def figures(self) -> dict[str, float]:
        """What the aims are about."""
        p99_ms = statistics.quantiles(self.singles_ms, n=100)[-1]
        return {"p50": statistics.median(self.p50_ms), "p99": p99_ms, "CPU a task": self.cpu_a_task_ms}


def _is_heard(told: Told) -> bool:
    return told.answer is not None


async def ready(rival: Rival, application: str, image: bytes, singles: int) -> None:
    """Wait until it answers, and has loaded and measured what it needs."""
    answered = False
    while not answered:
        told = rival.sensors.sensors[0].ask(application, image, 2.0)
        with contextlib.suppress(TimeoutError):
            await until(partial(_is_heard, told), 3.0)
        answered = told.status == "answered"
    await rival.sensors.singles(application, image, singles, 10.0)


async def measure(rival: Rival, application: str, image: bytes, arguments: argparse.Namespace) -> None:
    """Ask one of them for a round."""
    singles = await rival.sensors.singles(application, image, arguments.singles, 10.0)
    took_ms = [1e3 * told.took_s for told in singles]
    rival.singles_ms += took_ms
    rival.p50_ms.append(statistics.median(took_ms))
    before_s = rival.cpu_s()
    rate = await rival.sensors.throughput(application, image, at_once=AT_ONCE, seconds=arguments.seconds)
    rival.per_second.append(rate)
    tasks = max(1.0, rate * arguments.seconds)
    for name, used_s in rival.cpu_s().items():
        rival.cpu_ms.setdefault(name, []).append(1e3 * (used_s - before_s[name]) / tasks)


async def compare(
    arguments: argparse.Namespace, urls: Mapping[str, str], pids: Mapping[str, Mapping[str, int]]
) -> None:
    """Ask both in turns, and print."""
    image = arguments.image.read_bytes()
    async with contextlib.AsyncExitStack() as stack:
        rivals = [
            Rival(name, pids[name], await stack.enter_async_context(swarm(url, AT_ONCE)))
            for name, url in urls.items()
        ]
        for rival in rivals:
            await ready(rival, "mnist", image, arguments.singles)
        for number in range(arguments.rounds):
            for rival in rivals if number % 2 else reversed(rivals):
                await measure(rival, "mnist", image, arguments)
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
        report(*rivals)


def report(lines: Rival, product: Rival) -> None:
    """Print medians and ratios."""
    for rival in (lines, product):
        figures = rival.figures
        cpu = ", ".join(f"{name} {statistics.median(ms):.2f}" for name, ms in rival.cpu_ms.items())
        memory = ", ".join(f"{name} {size:.0f}" for name, size in rival.memory_mb().items())
        print(
            f"{rival.name:12}: single tasks p50 {figures['p50']:.1f} ms, p99 {figures['p99']:.1f} ms; "
            f"{statistics.median(rival.per_second):.0f} tasks a second with {AT_ONCE} sensors; "
            f"{rival.cpu_a_task_ms:.2f} ms of CPU a task ({cpu}); MB resident: {memory}"
        )
    for name, aim in AIMS.items():
        ratio = product.figures[name] / lines.figures[name]
        print(f"{name}: {ratio:.1f} times the thirty lines (aim: at most {aim})")
    share = statistics.median(product.per_second) / statistics.median(lines.per_second)
    print(
        f"tasks a second: {share:.2f} of the thirty lines' (aim: {AIM_PER_SECOND} on two cores that are free)"
    )


def write_model(path: Path) -> None:
    """Write MNIST's whole network, as the nodes run it, as one ONNX file."""
    store = ModelStore(SHIPPED_STORE)
    application = store.application("mnist")
    (stage,) = application.variant("whole").stages
    onnx.save(stage_model(store, application, application.fragment(stage.fragment)), str(path))


def started(processes: Processes, name: str, command: Sequence[str]) -> int:
    """Start a process and return its id."""
    pid = processes.start(name, (sys.executable, *command)).pid
    if pid is None:
        raise SystemExit(f"{name} has ended at once")
    return pid


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--singles", type=int, default=100, help="tasks one after another in a round")
    parser.add_argument("--seconds", type=float, default=3.0, help="with several sensors in a round")
    parser.add_argument("--image", type=Path, default=Path("examples/images/digit-7-3.png"))
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_model(folder / "whole.onnx")
        processes = stack.enter_context(Processes(folder / "logs"))
        urls, pids = {}, {}
        for name in ("thirty lines", "SplitPlace"):
            before = {child.pid for child in psutil.Process().children()}
            broker = stack.enter_context(started_broker(folder / f"{name}-broker", kind="mosquitto"))
            (mosquitto,) = {child.pid for child in psutil.Process().children()} - before
            urls[name], pids[name] = broker.url, {"broker": mosquitto}
        host, port = urls["thirty lines"].removeprefix("mqtt://").split(":")
        lines = (str(Path(__file__).with_name("thirty_lines.py")), host, port, str(folder / "whole.onnx"))
        pids["thirty lines"]["process"] = started(processes, "lines", lines)
        options = ("--broker", urls["SplitPlace"], "--state-dir")
        # Neither has another network: a node would prepare all of the shipped ones in its first minute.
        shutil.copytree(SHIPPED_STORE / "mnist", folder / "store" / "mnist")
        os.environ["SPLITPLACE_STORE"] = str(folder / "store")
        services = ("-m", "splitplace", "services", *options, str(folder / "services"))
        node = ("-m", "splitplace.edge_node", "--node", "n1", *options, str(folder / "n1"))
        pids["SplitPlace"]["services"] = started(processes, "services", services)
        pids["SplitPlace"]["node"] = started(processes, "n1", node)
        asyncio.run(compare(arguments, urls, pids))


if __name__ == "__main__":
    main()
