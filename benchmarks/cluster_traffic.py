"""Measure what it costs to tell everybody of the cluster: `python -m benchmarks.cluster_traffic`.

Light stand-ins play edge nodes: they send what nodes send and compute nothing. First all are idle, then as
many as wished are busy: their queues change with every heartbeat, and what they measure drifts. An onlooker
counts bytes by topic, as they come from their sender: a broker sends each message on to everybody who reads
it. Resource monitor, splitter, placer and gateway run as processes of their own; printed is also the CPU
time of each, and of the broker.
"""

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import psutil

from splitplace.bus.cluster import subscribe_cluster
from splitplace.bus.connection import Bus, RawReceived
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import started_broker
from splitplace.commands.processes.children import Processes
from splitplace.edge_node.news import News
from splitplace.messages.cluster import (
    ClusterState,
    FragmentTiming,
    PreparedFragment,
)
from splitplace.messages.topics import (
    CLUSTER_MEMBERS,
    CLUSTER_NODE,
    GATEWAY,
    METRICS_CLUSTER,
    METRICS_NODE,
    NODE_INFO,
    NODE_STATUS,
    NODE_VITALS,
    PLACER,
    RESOURCE_MONITOR,
    SPLITTER,
)
from tests.support.messages import node_info, node_status, node_vitals
from tests.support.waiting import until

COUNTED = (NODE_VITALS, NODE_INFO, CLUSTER_NODE, CLUSTER_MEMBERS, METRICS_NODE, METRICS_CLUSTER)
PARTS = (RESOURCE_MONITOR, SPLITTER, PLACER, GATEWAY)
HELD = tuple(f"{number:064x}" for number in range(12))
"""Fragments that a node holds."""
DRIFT = 0.02
"""How much a moving average changes in a second, typically."""
SETTLE_S = 8.0
TURN_S = 0.02


class StandIn:
    """A node that only talks."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self.name = name
        self.is_busy = False
        self._chance = chance
        self._news = News()
        self._executed = 0
        self._ms = [chance.uniform(0.5, 50.0) for _ in HELD]
        self._info = node_info(
            name,
            loaded=HELD,
            stored=HELD,
            prepared=tuple(
                PreparedFragment(fragment=each, private_bytes=1_000_000, mapped_bytes=10_000_000)
                for each in HELD
            ),
            memory_budget_bytes=1 << 28,
        )
        self._vitals = node_vitals(name, queue_length=0, queue_ms=0.0, cpu_ratio=0.0)

    async def join(self, bus: Bus) -> None:
        """Say what a node says when it starts."""
        await bus.publish(NODE_STATUS, node_status(self.name))

    async def beat(self, bus: Bus, now_ms: float) -> None:
        """Send a heartbeat, after news of what it offers."""
        if self.is_busy:
            self._ms = [each * self._chance.gauss(1.0, DRIFT) for each in self._ms]
        info = self._info.model_copy(update={"timings": tuple(map(_timing, HELD, self._ms))})
        if self._news.is_due(info, now_ms):
            self._news.told(info, now_ms)
            bus.send(NODE_INFO, info)
        await bus.publish(NODE_VITALS, self._vitals.model_copy(update=self._figures()))

    def _figures(self) -> Mapping[str, float]:
        chance = self._chance
        figures = {
            "uptime_s": time.monotonic(),
            "resident_bytes": chance.randrange(90_000_000, 100_000_000),
            "cpu_ratio": chance.uniform(0.4, 1.0) if self.is_busy else chance.uniform(0.0, 0.03),
        }
        if self.is_busy:
            self._executed += 1
            figures |= {
                "executed": self._executed,
                "queue_length": chance.randrange(1, 20),
                "queue_ms": chance.uniform(1.0, 500.0),
            }
        return figures


def _timing(fragment: str, ms: float) -> FragmentTiming:
    return FragmentTiming.model_construct(
        fragment=fragment, milliseconds_per_image=ms, milliseconds_per_call=ms / 3
    )


class Onlooker:
    """Counts bytes by topic, and knows the state of the cluster."""

    def __init__(self, url: str) -> None:
        self.bus = Bus(Settings(broker=url), "onlooker")
        self.payload_bytes: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self.state: ClusterState | None = None
        for topic in COUNTED:

            async def count(received: RawReceived, pattern: str = topic.pattern) -> None:
                self.payload_bytes[pattern] += len(received.payload)
                self.messages[pattern] += 1

            self.bus.subscribe_raw(topic, count)

    @property
    def whole_bytes(self) -> int:
        """Size of the whole state in one message."""
        return len(self.state.model_dump_json()) if self.state is not None else 0


async def play(nodes: list[StandIn], bus: Bus) -> None:
    """Send the heartbeats of all nodes, spread over each second."""
    began_s, sent = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - began_s) * len(nodes))
        for number in range(sent, due):
            await nodes[number % len(nodes)].beat(bus, 1e3 * time.monotonic())
        sent = due
        await asyncio.sleep(TURN_S)


async def measure(onlooker: Onlooker, pids: Mapping[str, int], seconds: float, title: str) -> None:
    """Count for a while, and print."""
    await asyncio.sleep(SETTLE_S)
    cpu_s = {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in pids.items()}
    onlooker.payload_bytes.clear()
    onlooker.messages.clear()
    await asyncio.sleep(seconds)
    print(f"{title}: the whole state in one message would be {onlooker.whole_bytes / 1e3:.0f} kB")
    for topic in COUNTED:
        sent, messages = onlooker.payload_bytes[topic.pattern] / 1e3, onlooker.messages[topic.pattern]
        print(
            f"  {topic.pattern:20} {sent / seconds:8.2f} kB/s: {messages / seconds:6.2f} messages a second "
            f"of {sent / max(1, messages):6.2f} kB"
        )
    for name, pid in pids.items():
        used_s = sum(psutil.Process(pid).cpu_times()[:2]) - cpu_s[name]
        print(f"  CPU {name:16} {100 * used_s / seconds:6.1f} %")
    sys.stdout.flush()


async def run(url: str, pids: Mapping[str, int], arguments: argparse.Namespace) -> None:
    """Measure an idle cluster and a busy one."""
    onlooker, watcher = Onlooker(url), Bus(Settings(broker=url), "watcher")
    chance = random.Random(arguments.seed)
    nodes = [StandIn(f"node-{number}", chance) for number in range(arguments.nodes)]
    subscribe_cluster(watcher, lambda state: setattr(onlooker, "state", state))

    def all_there() -> bool:
        state = onlooker.state
        return state is not None and sum(node.online for node in state.nodes) == len(nodes)

    async with onlooker.bus, watcher, Bus(Settings(broker=url), "nodes") as bus:
        await asyncio.gather(*(node.join(bus) for node in nodes))
        playing = asyncio.create_task(play(nodes, bus))
        try:
            await until(all_there, 60.0)
            await measure(onlooker, pids, arguments.seconds, f"{len(nodes)} nodes, all idle")
            for node in nodes[: arguments.busy]:
                node.is_busy = True
            await measure(onlooker, pids, arguments.seconds, f"{arguments.busy} of them busy")
        finally:
            playing.cancel()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--busy", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(started_broker(folder / "broker", kind="mosquitto"))
        processes = stack.enter_context(Processes(folder / "logs"))
        pids = {}
        for name in PARTS:
            options = ("--broker", broker.url, "--state-dir", str(folder / "state"))
            child = processes.start(name, (sys.executable, "-m", "splitplace", name, *options))
            assert child.pid is not None  # noqa: S101 - it has just been started
            pids[name] = child.pid
        assert broker.pid is not None  # noqa: S101 - as above
        pids["broker"] = broker.pid
        asyncio.run(run(broker.url, pids, arguments))


if __name__ == "__main__":
    main()
