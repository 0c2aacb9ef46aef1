"""Fetching over slow and broken links: hardly more than the file crosses the wire, and fetches go on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from nemesis.proxy import Link
from splitplace.bus.connection import Bus
from splitplace.bus.settings import Settings
from splitplace.edge_node.fetcher import Fetcher
from splitplace.edge_node.fragment_store import FragmentStore
from splitplace.edge_node.link_meter import LinkMeter
from splitplace.messages.limits import CHUNK_BYTES
from splitplace.messages.pieces import StoredFile
from splitplace.messages.topics import SERVICE_STATUS, SPLITTER
from splitplace.services.splitter.service import Splitter
from splitplace.services.splitter.settings import SplitterSettings
from tests.support.observer import Observer
from tests.support.running import running
from tests.support.tiny_application import build_tiny_application
from tests.support.waiting import every, until

MEGABIT_BYTES = 125_000
HOLE_S = 6.0


@contextlib.asynccontextmanager
async def depot(url: str, folder: Path, chunks: int) -> AsyncIterator[StoredFile]:
    """A running splitter, and a file of its store that has so many chunks."""
    application = build_tiny_application(folder / "store", padding_bytes=chunks * CHUNK_BYTES)
    file = application.chain("whole").chain.pieces[-1].files[-1]
    assert file.file_bytes == chunks * CHUNK_BYTES
    given = {"broker": url, "store": folder / "store", "state_dir": folder / "state"}
    observer = Observer(url, SERVICE_STATUS)
    async with observer.bus, running(Splitter(SplitterSettings.model_validate(given)).run()):
        await observer.until(
            SERVICE_STATUS, lambda status: status.online and status.service == SPLITTER, 30.0
        )
        yield file


class Node:
    """A node's fetcher behind a link of its own."""

    def __init__(self, name: str, url: str, folder: Path, *, megabits: float, latency_s: float = 0.0) -> None:
        broker = Settings(broker=url)
        self.link = Link(broker.port, broker.host)
        self.link.up.latency_s = self.link.down.latency_s = latency_s
        self.link.up.bytes_per_s = self.link.down.bytes_per_s = megabits * MEGABIT_BYTES
        self.meter = LinkMeter()
        self._name = name
        self._store = FragmentStore(folder / name, 1 << 30)

    async def fetch(self, file: StoredFile) -> tuple[Path, ...]:
        await self.link.start()
        try:
            bus = Bus(Settings(broker=f"mqtt://127.0.0.1:{self.link.port}"), self._name)
            fetcher = Fetcher(bus, self._store, self._name, self.meter)
            async with bus, asyncio.timeout(120):
                await bus.connected()
                return await fetcher.fetch([file])
        finally:
            await self.link.stop()

    def carried(self, file: StoredFile) -> float:
        """What came over the link, as a multiple of the file."""
        return self.link.carried_bytes["down"] / file.file_bytes


async def test_one_megabit_with_latency_carries_the_file_once(mosquitto_url: str, tmp_path: Path) -> None:
    async with depot(mosquitto_url, tmp_path, chunks=3) as file:
        node = Node("slow", mosquitto_url, tmp_path, megabits=1, latency_s=0.1)
        await node.fetch(file)
        assert node.carried(file) <= 1.1


async def test_fetching_a_file_measures_the_link(mosquitto_url: str, tmp_path: Path) -> None:
    async with depot(mosquitto_url, tmp_path, chunks=8) as file:
        nodes = [Node(f"n{megabits}", mosquitto_url, tmp_path, megabits=megabits) for megabits in (2, 10)]
        await asyncio.gather(*(node.fetch(file) for node in nodes))
    slow, fast = (node.meter.figures().down_megabytes_per_second or 0.0 for node in nodes)
    assert 0.75 * 2 / 8 <= slow <= 1.25 * 2 / 8
    assert 0.5 * 10 / 8 <= fast <= 1.25 * 10 / 8, "chunks take 0.2 s, and the machine may be busy"
    assert fast > 2 * slow


async def test_a_slow_node_beside_fast_ones_gets_the_file_once_and_costs_them_nothing(
    mosquitto_url: str, tmp_path: Path
) -> None:
    async with depot(mosquitto_url, tmp_path, chunks=12) as file:
        nodes = [
            Node(name, mosquitto_url, tmp_path, megabits=megabits)
            for name, megabits in (("slow", 4), ("fast", 200), ("faster", 400))
        ]
        await asyncio.gather(*(node.fetch(file) for node in nodes))
        assert max(node.carried(file) for node in nodes) <= 1.1


async def test_after_a_torn_connection_only_what_was_on_its_way_is_sent_again(
    mosquitto_url: str, tmp_path: Path
) -> None:
    async with depot(mosquitto_url, tmp_path, chunks=16) as file:
        node = Node("torn", mosquitto_url, tmp_path, megabits=10)
        fetching = asyncio.create_task(node.fetch(file))
        await until(lambda: node.carried(file) > 0.5, 30.0)
        node.link.reset()
        await fetching
        assert node.carried(file) <= 1.5


async def test_a_hole_in_one_direction_delays_a_fetch_and_does_not_end_it(
    mosquitto_url: str, tmp_path: Path
) -> None:
    async with depot(mosquitto_url, tmp_path, chunks=16) as file:
        node = Node("hole", mosquitto_url, tmp_path, megabits=10)
        fetching = asyncio.create_task(node.fetch(file))
        await until(lambda: node.carried(file) > 0.3, 30.0)
        node.link.inflict("blackhole-down", 0)
        await anext(elapsed async for elapsed in every(0.5) if elapsed > HOLE_S)
        node.link.down.holds = False
        await fetching
        assert node.carried(file) <= 1.5
