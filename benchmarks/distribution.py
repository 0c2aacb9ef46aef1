"""Measure how long it takes to bring all fragments to six nodes: `python -m benchmarks.distribution`.

A broker, the splitter (which serves the fragments) and six edge nodes run as real processes. All nodes are
told at once to prepare every fragment of the store. The clock stops when each node reports all of them on its
disk, with the right hash. `--more-megabytes` adds a file of random bytes to see what a larger network would
take: it is fetched and checked, then refused as no network. The paper reports 30 s for its own networks.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from splitplace.bus.connection import Bus, Received
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import available_kind, started_broker
from splitplace.commands.processes.children import Processes
from splitplace.messages import topics
from splitplace.messages.application import Application
from splitplace.messages.cluster import NodeInfo, NodeVitals, PrepareFragments
from splitplace.messages.frames import FragmentHeader
from splitplace.messages.limits import MAX_STAGES, MEBIBYTE
from splitplace.storage.model_store import ModelStore, sha256_of
from splitplace.storage.paths import SHIPPED_STORE
from tests.support.chains import nominal_chain, run_of

PAPER_S = 30.0
VITALS_EVERY_S = 0.1
MEGABYTE = 1e6


@dataclass(slots=True)
class Progress:
    """What was received so far."""

    stored: dict[str, frozenset[str]] = field(default_factory=dict)
    received_bytes: dict[str, int] = field(default_factory=dict)
    sent_bytes: int = 0
    """Number of chunks that the splitter published."""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def has_everywhere(self, fragments: frozenset[str], nodes: int) -> bool:
        """Whether that many nodes hold all of these fragments."""
        return sum(fragments <= stored for stored in self.stored.values()) == nodes


class Observer:
    """Tell nodes what to fetch, and listen until they have it."""

    def __init__(self, settings: Settings) -> None:
        self.bus = Bus(settings, "benchmark", receive_maximum=64)
        self.progress = Progress()
        self.applications: dict[str, Application] = {}
        self.bus.subscribe(topics.NODE_INFO, self._on_info)
        self.bus.subscribe(topics.NODE_VITALS, self._on_vitals)
        self.bus.subscribe(topics.FRAGMENT_CHUNK, self._on_chunk)
        self.bus.subscribe(topics.APPLICATION, self._on_application)

    async def _on_info(self, received: Received[NodeInfo]) -> None:
        self.progress.stored[received.message.node] = frozenset(received.message.stored)
        self.progress.news.set()

    async def _on_vitals(self, received: Received[NodeVitals]) -> None:
        vitals = received.message
        self.progress.received_bytes[vitals.node] = vitals.received_bytes
        self.progress.news.set()

    async def _on_chunk(self, received: Received[FragmentHeader]) -> None:
        self.progress.sent_bytes += len(received.body)

    async def _on_application(self, received: Received[Application]) -> None:
        self.applications[received.message.name] = received.message
        self.progress.news.set()

    async def ready(self, nodes: int, applications: int) -> None:
        """Wait until all nodes are online and the catalogue is published."""
        while len(self.progress.stored) < nodes or len(self.applications) < applications:
            await self._next_news()

    async def distribute(self, fragments: tuple[str, ...], nodes: tuple[str, ...]) -> float:
        """Return the seconds until all nodes have all fragments."""
        began = time.perf_counter()
        for start in range(0, len(fragments), MAX_STAGES):
            some = fragments[start : start + MAX_STAGES]
            for node in nodes:
                wanted = PrepareFragments(node=node, task="benchmark.1", attempt=1, fragments=some)
                await self.bus.publish(topics.NODE_PREPARE, wanted, node=node)
        while not self.progress.has_everywhere(frozenset(fragments), len(nodes)):
            await self._next_news()
        return time.perf_counter() - began

    async def _next_news(self) -> None:
        self.progress.news.clear()
        async with asyncio.timeout(120.0):
            await self.progress.news.wait()


def copy_of_store(source: ModelStore, target: Path, more_bytes: int) -> ModelStore:
    """Return all applications, the first with an additional file of random bytes."""
    copy = ModelStore(target)
    for application in source.applications():
        contents = [source.file_path(file.sha256).read_bytes() for file in application.files]
        fragments, chains = application.fragments, application.chains
        if more_bytes:
            contents.append(os.urandom(more_bytes))
            first, sha256 = fragments[0], sha256_of(contents[-1])
            more = nominal_chain("random", first.input, first.output, more_bytes, sha256)
            fragments, chains = (*fragments, run_of(more)), (*chains, more)
            more_bytes = 0
        copy.save(application.model_copy(update={"fragments": fragments, "chains": chains}), contents)
    return copy


async def measure(settings: Settings, store: ModelStore, nodes: tuple[str, ...], broker_pid: int) -> None:
    """Distribute all fragments and print a table."""
    described = {
        fragment.sha256: fragment
        for application in store.applications()
        for fragment in application.fragments
    }
    files = {file for application in store.applications() for file in application.files}
    total = sum(file.file_bytes for file in files)
    observer = Observer(settings)
    async with observer.bus:
        await observer.bus.connected()
        await observer.ready(len(nodes), len(store.applications()))
        before = dict(observer.progress.received_bytes)
        cpu_before = sum(psutil.Process(broker_pid).cpu_times()[:2])
        seconds = await observer.distribute(tuple(described), nodes)
        cpu = sum(psutil.Process(broker_pid).cpu_times()[:2]) - cpu_before
        progress = observer.progress
    received = [progress.received_bytes[node] - before[node] for node in nodes]
    rows = (
        ("fragments", f"{len(described)}"),
        ("files", f"{len(files)}"),
        ("size of all", f"{total / MEGABYTE:.2f} MB"),
        ("published by the splitter", f"{progress.sent_bytes / MEGABYTE:.2f} MB"),
        ("  share of a copy for each node", f"{progress.sent_bytes / total / len(nodes):.0%}"),
        ("received by a node (mean)", f"{sum(received) / len(received) / MEGABYTE:.2f} MB"),
        ("time until all nodes have all", f"{seconds:.2f} s   (the paper: {PAPER_S:.0f} s)"),
        ("CPU time of the broker", f"{cpu:.2f} s"),
    )
    for title, value in rows:
        print(f"{title:44}{value}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", type=Path, default=SHIPPED_STORE)
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument("--more-megabytes", type=float, default=0.0, help="size of the file of random bytes")
    arguments = parser.parse_args()
    nodes = tuple(f"n{number}" for number in range(1, arguments.nodes + 1))
    with (
        tempfile.TemporaryDirectory() as name,
        started_broker(Path(name) / "broker", kind=available_kind()) as broker,
        Processes(Path(name) / "logs") as processes,
    ):
        folder = Path(name)
        more_bytes = int(arguments.more_megabytes * MEBIBYTE)
        store = copy_of_store(ModelStore(arguments.store), folder / "store", more_bytes)
        splitter = (
            "splitplace.services.splitter",
            "--store",
            str(store.root),
            "--state-dir",
            str(folder / "state"),
        )
        parts = {"splitter": splitter} | {
            node: (
                *("splitplace.edge_node", "--node", node, "--fragment-dir", str(folder / node)),
                *("--vitals-every-s", str(VITALS_EVERY_S)),
            )
            for node in nodes
        }
        for part, command in parts.items():
            processes.start(part, (sys.executable, "-m", *command, "--broker", broker.url))
        print(f"broker: {broker.kind}, {len(nodes)} nodes")
        asyncio.run(measure(Settings(broker=broker.url), store, nodes, broker.pid or 0))


if __name__ == "__main__":
    main()
