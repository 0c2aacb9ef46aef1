"""Follow one-image tasks message by message through `splitplace up`: `python -m benchmarks.steps`.

An onlooker at the broker notes when each message of a task comes by. Printed are the medians of the times
between them, and the CPU time that a task takes in each process: in the thread of the event loop and in all
others. `--parts` runs the services under a profiler and says which parts of the code their event loop's time
goes to; that doubles or trebles it, so only the shares count.
"""

import argparse
import asyncio
import contextlib
import os
import pstats
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from splitplace.bus.connection import Bus, RawReceived
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import started_broker
from splitplace.commands.processes.children import Processes
from splitplace.messages import topics
from splitplace.messages.frames import unpack
from splitplace.messages.topics import Topic
from splitplace.storage.paths import SHIPPED_STORE
from tests.support.swarm import Swarm, Told, swarm
from tests.support.waiting import until

AT_ONCE = 16
STEPS: Mapping[str, Topic[Any]] = {
    "accepted": topics.JOB_ACCEPTED,
    "decided": topics.JOB_DECIDED,
    "placed": topics.JOB_PLACED,
    "input": topics.TENSOR,
    "output": topics.TENSOR,
    "result": topics.JOB_RESULT,
    "finished": topics.JOB_FINISHED,
}
"""Messages between the task and its answer."""
PARTS = (
    "splitplace/policies/placement",
    "splitplace/policies/splitting",
    "splitplace/policies",
    "services/gateway",
    "services/splitter",
    "services/placer",
    "services/result_aggregator",
    "services/resource_monitor",
    "splitplace/bus",
    "messages",
    "paho",
    "asyncio",
    "pydantic",
    "numpy",
    "json",
)


class Onlooker:
    """Notes when each message of each task comes by."""

    def __init__(self, url: str) -> None:
        self.bus = Bus(Settings(broker=url), "steps")
        self.seen_s: defaultdict[str, dict[str, float]] = defaultdict(dict)
        """By task and step."""
        for step, topic in STEPS.items():
            if topic is not topics.TENSOR:
                self.bus.subscribe_raw(topic, partial(self._on_message, step))
        self.bus.subscribe_raw(topics.TENSOR, self._on_tensor)

    def _note(self, task: str, step: str) -> None:
        self.seen_s[task].setdefault(step, time.perf_counter())

    async def _on_message(self, step: str, received: RawReceived) -> None:
        self._note(received.parameters["task"], step)

    async def _on_tensor(self, received: RawReceived) -> None:
        header, _ = unpack(topics.TENSOR.message, received.payload)
        self._note(header.task, "input" if header.route is not None else "output")

    def gaps_ms(self) -> dict[str, float]:
        """Return the median time from each step to the next one."""
        names = list(STEPS)
        whole = [seen for seen in self.seen_s.values() if seen.keys() == STEPS.keys()]
        return {
            f"{before} to {step}": 1e3 * statistics.median(seen[step] - seen[before] for seen in whole)
            for before, step in pairwise(names)
        }


def cpu_s(pids: Mapping[str, int]) -> dict[str, float]:
    """Return the CPU time of each process so far: of its first thread, and of its other ones."""
    used = {}
    for name, pid in pids.items():
        threads = {each.id: each.user_time + each.system_time for each in psutil.Process(pid).threads()}
        used[f"{name}, event loop"] = threads.pop(pid)
        used[f"{name}, other threads"] = sum(threads.values())
    return used


async def ready(sensors: Swarm, image: bytes, singles: int) -> None:
    """Wait until the system answers, and has loaded and measured what it needs."""
    told = Told(0.0, 0.0)
    while told.status != "answered":
        told = sensors.sensors[0].ask("mnist", image, 2.0)
        with contextlib.suppress(TimeoutError):
            await until(told.heard.is_set, 3.0)
    await sensors.singles("mnist", image, singles, 10.0)


async def measure(arguments: argparse.Namespace, url: str, pids: Mapping[str, int], profile: Path) -> None:
    """Follow single tasks, then ask from several sensors, and print."""
    image = arguments.image.read_bytes()
    async with swarm(url, AT_ONCE) as sensors:
        await ready(sensors, image, arguments.tasks)
        onlooker = Onlooker(url)
        async with onlooker.bus:
            await onlooker.bus.connected()
            singles = await sensors.singles("mnist", image, arguments.tasks, 10.0)
        for step, gap_ms in onlooker.gaps_ms().items():
            print(f"{step:20} {gap_ms:6.2f} ms")
        print(f"{'task to answer':20} {1e3 * statistics.median(each.took_s for each in singles):6.2f} ms")
        if arguments.parts:
            os.kill(pids["services"], signal.SIGUSR1)
        before_s = cpu_s(pids)
        rate = await sensors.throughput("mnist", image, at_once=AT_ONCE, seconds=arguments.seconds)
        after_s, tasks = cpu_s(pids), rate * arguments.seconds
        print(f"{rate:.0f} tasks a second from {AT_ONCE} sensors; CPU a task:")
        for name, used_s in after_s.items():
            print(f"{name:24} {1e3 * (used_s - before_s[name]) / tasks:6.2f} ms")
        if arguments.parts:
            os.kill(pids["services"], signal.SIGUSR1)
            await until(profile.exists)
            print_parts(profile)


def shares(profile: Path) -> Iterator[tuple[str, float]]:
    """Yield the parts of the code with their shares of the time, the largest first."""
    used: defaultdict[str, float] = defaultdict(float)
    for (file, _, function), (_, _, own_s, _, callers) in pstats.Stats(str(profile)).stats.items():  # type: ignore[attr-defined]
        if file == "~":  # built in: belongs to whoever calls it
            for (caller, _, _), figures in callers.items():
                used[_part(caller, function)] += figures[2]
        else:
            used[_part(file, function)] += own_s
    total_s = sum(used.values())
    for part, own_s in sorted(used.items(), key=lambda item: -item[1]):
        yield part, own_s / total_s


def _part(file: str, function: str) -> str:
    if "epoll" in function:
        return "asyncio"
    return next((part for part in PARTS if f"/{part}/" in file or f"/{part}." in file), "other")


def print_parts(profile: Path) -> None:
    """Print where the event loop's time goes."""
    print("of the event loop's time (with what is built in, as called):")
    for part, share in shares(profile):
        print(f"{part:32} {100 * share:4.0f} %")


def command(processes: Processes, name: str, words: Sequence[str]) -> int:
    """Start a process and return its id."""
    pid = processes.start(name, (sys.executable, *words)).pid
    if pid is None:
        raise SystemExit(f"{name} has ended at once")
    return pid


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100, help="tasks that are followed one by one")
    parser.add_argument("--seconds", type=float, default=5.0, help="with several sensors")
    parser.add_argument("--parts", action="store_true", help="profile the services by part of the code")
    parser.add_argument("--image", type=Path, default=Path("examples/images/digit-7-3.png"))
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        processes = stack.enter_context(Processes(folder / "logs"))
        before = {child.pid for child in psutil.Process().children()}
        broker = stack.enter_context(started_broker(folder / "broker", kind="mosquitto"))
        (mosquitto,) = {child.pid for child in psutil.Process().children()} - before
        # As in `benchmarks.rival`: a node would prepare all of the shipped networks in its first minute.
        shutil.copytree(SHIPPED_STORE / "mnist", folder / "store" / "mnist")
        os.environ["SPLITPLACE_STORE"] = str(folder / "store")
        profile, options = folder / "profile", ("--broker", broker.url, "--state-dir")
        program = ("benchmarks.profiled", str(profile)) if arguments.parts else ("splitplace",)
        services = ("-m", *program, "services", *options, str(folder / "services"))
        node = ("-m", "splitplace.edge_node", "--node", "n1", *options, str(folder / "n1"))
        pids = {"services": command(processes, "services", services), "node": command(processes, "n1", node)}
        asyncio.run(measure(arguments, broker.url, {**pids, "broker": mosquitto}, profile))


if __name__ == "__main__":
    main()
