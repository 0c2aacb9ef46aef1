"""Measure what a burst of sensors gets, and how the system is afterwards: `python -m benchmarks.burst`.

A thousand sensors that were connected before publish one picture each at the same moment, first with a
deadline of a second, then with ten while the splitter has .17 of a core. All figures are ratios to the same
system's quiet time, so that they say the same on any machine. The sensors run on the same cores: the CPU time
of each process is printed, theirs too, so that figures of a busy machine can be judged.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from splitplace.bus.cluster import subscribe_cluster
from splitplace.bus.connection import Bus, Received
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import started_broker
from splitplace.commands.processes.children import Processes
from splitplace.commands.processes.cpu_shares import cpu_shares
from splitplace.messages import topics
from splitplace.messages.cluster import ClusterState, ServiceStatus
from tests.support.swarm import Swarm, Told, swarm

NODES = ("n1", "n2", "n3")
SERVICES = ("gateway", "splitter", "placer", "resource_monitor", "result_aggregator")
GRACE_S = 0.5
SLOW_SHARE = 0.17
RECOVERY_S = 2.0
FLOOD = 500
QUIET_S = 4.0
SETTLED = 0.9
"""The system is warm once a round of tasks takes no less than this share of the round before."""
AT_ONCE = 16
"""Sensors that wait for an answer at any moment while the quiet throughput is measured."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """The system without a burst."""

    single_s: float
    """Median response of single tasks."""
    throughput: float
    """Answered tasks per second."""


class Processors:
    """CPU times of the processes of the system, and of the sensors: this process."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        """Count from now on."""
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._processes["sensors"] = psutil.Process()
        self.restart()

    def restart(self) -> None:
        """Count from now on."""
        self._before, self._began_s = self._now(), time.monotonic()

    def _now(self) -> dict[str, float]:
        return {name: sum(process.cpu_times()[:2]) for name, process in self._processes.items()}

    def say(self, what: str, tasks: float) -> None:
        """Print the CPU time since the last call, a task and in all, and count from now on."""
        now, now_s = self._now(), time.monotonic()
        used = {name: now[name] - self._before[name] for name in now}
        total_s, wall_s = sum(used.values()), now_s - self._began_s
        shares = ", ".join(f"{name} {1e3 * spent / tasks:.1f}" for name, spent in used.items())
        print(f"  CPU {what}: {1e3 * total_s / tasks:.1f} ms a task ({shares})", end="")
        print(f"; {total_s / wall_s:.2f} cores for {wall_s:.1f} s", flush=True)
        self.restart()


async def quiet_time(sensors: Swarm, application: str, image: bytes, cpu: Processors) -> Quiet:
    """Measure single tasks and the throughput of a few sensors."""
    before_s, now_s = float("inf"), median_s(await sensors.singles(application, image, 20, 10.0))
    while now_s < SETTLED * before_s:  # what the first tasks load and measure is no quiet time
        before_s, now_s = now_s, median_s(await sensors.singles(application, image, 20, 10.0))
    singles = await sensors.singles(application, image, 50, 10.0)
    cpu.restart()
    throughput = await sensors.throughput(application, image, at_once=AT_ONCE, seconds=QUIET_S)
    quiet = Quiet(float(np.median([told.took_s for told in singles])), throughput)
    print(f"quiet: {1e3 * quiet.single_s:.1f} ms a task, {quiet.throughput:.0f} tasks a second")
    cpu.say("while quiet", QUIET_S * throughput)
    return quiet


async def burst(
    sensors: Swarm, application: str, image: bytes, deadline_s: float, *, quiet: Quiet, cpu: Processors
) -> None:
    """Let all sensors ask at once, wait for all answers, and print the figures."""
    cpu.restart()
    told = sensors.burst(application, image, deadline_s)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(6 * deadline_s + 20):
            while any(task.answer is None for task in told):  # noqa: ASYNC110 - set by a protocol
                await asyncio.sleep(0.01)
    cpu.say("of the burst", len(told))
    last_s = max((task.took_s for task in told if task.answer), default=float("nan"))
    await asyncio.sleep(RECOVERY_S)
    after = await sensors.singles(application, image, 20, 10.0)
    report(told, deadline_s, last_s, after, quiet)


async def flood(sensors: Swarm, application: str, image: bytes, quiet: Quiet) -> None:
    """Let one sensor flood for a while, and print what others get meanwhile."""
    flooding = [sensors.sensors[1].ask(application, image, 20.0) for _ in range(FLOOD)]
    meanwhile = await sensors.singles(application, image, 20, 10.0)
    under_way = sum(task.answer is None for task in flooding)
    print(f"{FLOOD} tasks of one sensor, deadline 20 s: another sensor's tasks take ", end="")
    print(f"{median_s(meanwhile) / quiet.single_s:.1f} times quiet, ", end="")
    print(f"{sum(task.status == 'answered' for task in meanwhile)} of {len(meanwhile)} answered; ", end="")
    print(f"{under_way} of the flood wait then")
    while any(task.answer is None for task in flooding):  # noqa: ASYNC110 - set by a protocol
        await asyncio.sleep(0.01)


def report(
    told: Sequence[Told], deadline_s: float, last_s: float, after: Sequence[Told], quiet: Quiet
) -> None:
    """Print how a burst ended."""
    on_time = sum(task.on_time for task in told)
    refused = np.array([task.took_s for task in told if task.status == "refused"])
    late = sum(task.took_s > deadline_s + GRACE_S for task in told)
    ends = ", ".join(f"{status} {count}" for status, count in sorted(Counter(t.status for t in told).items()))
    second = quiet.throughput * min(deadline_s, len(told) / quiet.throughput)
    print(f"{len(told)} sensors, deadline {deadline_s:g} s: {ends}; the last word after {last_s:.2f} s")
    print(f"  answered on time: {on_time}, {on_time / second:.2f} of what quiet throughput gives")
    if len(refused):
        shares = ", ".join(f"p{q} {np.percentile(refused, q):.2f} s" for q in (50, 99, 100))
        print(f"  refused: {shares} after publication")
    print(f"  after deadline + grace: {late}")
    print(f"  {RECOVERY_S:g} s later, single tasks take {median_s(after) / quiet.single_s:.2f} times quiet")
    kinds = Counter(task.answer["reason"][:110] for task in told if task.answer and task.status != "answered")
    for reason, count in kinds.most_common(3):
        print(f"    {count} x {reason}", flush=True)


def median_s(told: Sequence[Told]) -> float:
    """Return the median response."""
    return float(np.median([task.took_s for task in told]))


@contextlib.asynccontextmanager
async def online(settings: Settings) -> AsyncIterator[None]:
    """Enter once all services and nodes are there."""
    bus, nodes, services = Bus(settings, "benchmark"), asyncio.Event(), asyncio.Event()
    seen = set()

    def on_cluster(state: ClusterState) -> None:
        if sum(node.online for node in state.nodes) == len(NODES):
            nodes.set()

    async def on_service(received: Received[ServiceStatus]) -> None:
        if received.message.online:
            seen.add(received.message.service)
        if len(seen) == len(SERVICES):
            services.set()

    subscribe_cluster(bus, on_cluster)
    bus.subscribe(topics.SERVICE_STATUS, on_service)
    async with bus:
        await asyncio.wait_for(asyncio.gather(nodes.wait(), services.wait()), 60.0)
        yield


async def measure(
    arguments: argparse.Namespace, url: str, pids: Mapping[str, int], slow: Callable[[], None]
) -> None:
    """Run the bursts and the flood."""
    image = arguments.image.read_bytes()
    async with online(Settings(broker=url)), swarm(url, arguments.sensors) as sensors:
        cpu = Processors(pids)
        quiet = await quiet_time(sensors, arguments.application, image, cpu)
        await burst(sensors, arguments.application, image, 1.0, quiet=quiet, cpu=cpu)
        await flood(sensors, arguments.application, image, quiet)
        slow()
        print(f"the splitter has {SLOW_SHARE} of a core")
        quiet = await quiet_time(sensors, arguments.application, image, cpu)
        await burst(sensors, arguments.application, image, 10.0, quiet=quiet, cpu=cpu)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sensors", type=int, default=1000)
    parser.add_argument("--application", default="mnist")
    parser.add_argument("--image", type=Path, default=Path("examples/images/digit-7-3.png"))
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shares = stack.enter_context(cpu_shares())
        broker = stack.enter_context(started_broker(folder / "broker", kind="mosquitto"))
        processes = stack.enter_context(Processes(folder))
        for service in SERVICES:
            command = [sys.executable, "-m", f"splitplace.services.{service}", "--broker", broker.url]
            processes.start(service, [*command, "--state-dir", str(folder)])
        for node in NODES:
            command = [sys.executable, "-m", "splitplace.edge_node", "--node", node, "--broker", broker.url]
            processes.start(node, [*command, "--state-dir", str(folder / node)])

        def slow() -> None:
            if (splitter := processes.children["splitter"].pid) is not None:
                shares.limit("splitter", splitter, SLOW_SHARE)

        pids = {name: child.pid for name, child in processes.children.items()} | {"broker": broker.pid}
        known = {name: pid for name, pid in pids.items() if pid is not None}
        asyncio.run(measure(arguments, broker.url, known, slow))
        for death in processes.check():
            print(death)


if __name__ == "__main__":
    main()
