"""Fetching a file of many chunks: what was fetched before a death is not fetched again."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from splitplace.bus.connection import Bus
from splitplace.bus.settings import Settings
from splitplace.edge_node.download import DownloadError
from splitplace.edge_node.fetcher import Fetcher
from splitplace.edge_node.fragment_store import FragmentStore, PartialFile
from splitplace.messages.cluster import FragmentRequest
from splitplace.messages.limits import CHUNK_BYTES
from splitplace.messages.pieces import StoredFile
from splitplace.storage.model_store import PIECES, ModelStore, sha256_of
from tests.support.repository import FragmentRepository
from tests.support.tiny_application import build_tiny_application
from tests.support.waiting import until

CHUNKS = 20
LEFT = 16
"""Chunks that an earlier download has left on disk."""


class Depot:
    """A repository with one large file, and a node's store that survives its fetchers."""

    def __init__(self, broker_url: str, folder: Path) -> None:
        self.settings = Settings(broker=broker_url)
        build_tiny_application(folder / "store")
        self.content = os.urandom((CHUNKS - 1) * CHUNK_BYTES + 99)
        self.folder = folder / "store" / "tiny"
        self.file = self.add(self.content)
        self.repository = FragmentRepository(self.settings, ModelStore(folder / "store"))
        self.cache = folder / "node"

    def add(self, content: bytes) -> StoredFile:
        """Put one more file into the repository."""
        file = StoredFile(sha256_of(content), len(content))
        (self.folder / PIECES / file.sha256).write_bytes(content)
        return file

    @asynccontextmanager
    async def fetcher(self) -> AsyncIterator[Fetcher]:
        """As of a node that has just started."""
        async with Bus(self.settings, "node") as bus:
            await bus.connected()
            yield Fetcher(bus, FragmentStore(self.cache, 10 * len(self.content)), "node")

    async def fetch(self) -> Path:
        """As a node that has just started."""
        async with self.fetcher() as fetcher:
            (path,) = await fetcher.fetch([self.file])
            return path

    def chunks_written(self) -> int:
        """How many chunks an interrupted download has written."""
        for path in self.cache.glob("*.partial"):
            return sum(path.read_bytes()[len(self.content) :])
        return 0


def asked_of(requests: list[FragmentRequest]) -> int:
    """How many chunks the requests are for."""
    return sum(request.chunks for request in requests)


async def test_a_node_that_died_while_fetching_asks_only_for_the_rest(
    mosquitto_url: str, tmp_path: Path
) -> None:
    depot = Depot(mosquitto_url, tmp_path)
    async with depot.repository.bus:
        await depot.repository.bus.connected()
        depot.repository.lose = set(range(3, 50))
        fetching = asyncio.create_task(depot.fetch())
        await until(lambda: depot.chunks_written() and len(depot.repository.requests) > 3, 20.0)
        await until(lambda: depot.chunks_written() == asked_of(depot.repository.requests[:3]), 20.0)
        written = depot.chunks_written()
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)

        depot.repository.lose = set()
        depot.repository.requests.clear()
        path = await asyncio.wait_for(depot.fetch(), 20.0)
        assert path.read_bytes() == depot.content
        assert depot.repository.requests[0].first_chunk == written
        assert asked_of(depot.repository.requests) == CHUNKS - written


async def test_chunks_that_were_spoilt_on_disk_are_found_and_everything_is_fetched_anew(
    mosquitto_url: str, tmp_path: Path
) -> None:
    depot = Depot(mosquitto_url, tmp_path)
    depot.cache.mkdir()
    spoilt = bytes(len(depot.content)) + b"\x01" * LEFT + bytes(CHUNKS - LEFT)
    (depot.cache / f"{depot.file.sha256}.partial").write_bytes(spoilt)
    async with depot.repository.bus:
        await depot.repository.bus.connected()
        path = await asyncio.wait_for(depot.fetch(), 20.0)
    assert path.read_bytes() == depot.content
    assert depot.repository.requests[0].first_chunk == LEFT
    assert 0 in {request.first_chunk for request in depot.repository.requests}


async def test_what_the_repository_lacks_is_an_error_and_what_was_fetched_stays(
    mosquitto_url: str, tmp_path: Path
) -> None:
    depot = Depot(mosquitto_url, tmp_path)
    depot.cache.mkdir()
    left = bytes(len(depot.content)) + b"\x01" + bytes(CHUNKS - 1)
    (depot.cache / f"{depot.file.sha256}.partial").write_bytes(left)
    (tmp_path / "store" / "tiny" / PIECES / depot.file.sha256).unlink()
    async with depot.repository.bus:
        await depot.repository.bus.connected()
        with pytest.raises(DownloadError, match="has no file"):
            await asyncio.wait_for(depot.fetch(), 20.0)
    assert depot.chunks_written() == 1


async def test_several_files_come_in_their_order_and_one_that_two_fetches_need_comes_once(
    mosquitto_url: str, tmp_path: Path
) -> None:
    depot = Depot(mosquitto_url, tmp_path)
    contents = [os.urandom(size) for size in (3 * CHUNK_BYTES, 7, 100_000, CHUNK_BYTES)]
    files = [depot.add(content) for content in contents]
    async with depot.repository.bus, depot.fetcher() as fetcher:
        await depot.repository.bus.connected()
        async with asyncio.timeout(20.0):
            first, second = await asyncio.gather(fetcher.fetch(files), fetcher.fetch(files[:0:-1]))
    assert [path.read_bytes() for path in first] == contents
    assert second == first[:0:-1]
    assert asked_of(depot.repository.requests) == 3 + 1 + 1 + 1


async def test_a_fetch_that_is_cancelled_while_its_file_is_opened_leaves_it_closed(
    mosquitto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    depot = Depot(mosquitto_url, tmp_path)
    is_opening, may_open = threading.Event(), threading.Event()
    opened: list[PartialFile] = []
    begin = FragmentStore.begin

    def slowly(store: FragmentStore, file: StoredFile) -> PartialFile:
        is_opening.set()
        may_open.wait(20)
        opened.append(begin(store, file))
        return opened[0]

    monkeypatch.setattr(FragmentStore, "begin", slowly)
    async with depot.fetcher() as fetcher:
        fetching = asyncio.create_task(fetcher.fetch([depot.file]))
        await until(is_opening.is_set)
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)
        may_open.set()
        await until(lambda: opened and opened[0].is_closed)


async def test_one_file_that_nobody_has_ends_the_fetch_and_the_others_that_have_come_stay(
    mosquitto_url: str, tmp_path: Path
) -> None:
    depot = Depot(mosquitto_url, tmp_path)
    small = depot.add(b"small")
    unknown = StoredFile("0" * 64, 5)
    async with depot.repository.bus, depot.fetcher() as fetcher:
        await depot.repository.bus.connected()
        async with asyncio.timeout(20.0):
            await fetcher.fetch([small])
            with pytest.raises(DownloadError, match="has no file 0000"):
                await fetcher.fetch([small, unknown])
            depot.repository.requests.clear()
            await fetcher.fetch([small])
    assert not depot.repository.requests
