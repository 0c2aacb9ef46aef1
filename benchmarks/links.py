"""Measure how fragments reach a node over slow links: `python -m benchmarks.links`.

A broker and the splitter run as real processes. A node's fetcher in this process is connected through a proxy
of limited bandwidth that counts bytes. `wire / file` is what crossed the link towards the node over the size
of the file, `time / ideal` the time over what the bandwidth alone would take. With `--nodes`, that many
nodes fetch the same file at once, each over a link of its own; the worst of them is printed.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from nemesis.proxy import Link
from splitplace.bus.connection import Bus
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import available_kind, started_broker
from splitplace.commands.processes.children import Processes
from splitplace.edge_node.fetcher import Fetcher
from splitplace.edge_node.fragment_store import FragmentStore
from splitplace.messages.pieces import StoredFile
from splitplace.storage.model_store import ModelStore, sha256_of
from splitplace.storage.paths import SHIPPED_STORE
from tests.support.chains import nominal_chain

MEGABIT_BYTES = 125_000
MEGABYTE = 1_000_000
LINKS = ((1.0, 1.0), (10.0, 12.0), (100.0, 60.0))
"""Bandwidth in Mbit/s, and size of the file that is fetched, in MB."""


def store_with(folder: Path, sizes_bytes: tuple[int, ...]) -> tuple[StoredFile, ...]:
    """Return files of random bytes that were added to a copy of a shipped application."""
    source = ModelStore(SHIPPED_STORE)
    application = source.applications()[0]
    contents = [source.file_path(file.sha256).read_bytes() for file in application.files]
    first = application.fragments[0]
    added = []
    chains = list(application.chains)
    for size in sizes_bytes:
        contents.append(os.urandom(size))
        added.append(StoredFile(sha256_of(contents[-1]), size))
        name, sha256 = f"random-{len(added)}", added[-1].sha256
        chains.append(nominal_chain(name, first.input, first.output, size, sha256))
    ModelStore(folder).save(application.model_copy(update={"chains": tuple(chains)}), contents)
    return tuple(added)


async def fetch(
    folder: Path, port: int, file: StoredFile, bytes_per_s: float, latency_s: float
) -> tuple[float, int]:
    """Return the seconds that a node needs, and the bytes that its link carries."""
    link = Link(port)
    await link.start()
    link.up.latency_s = link.down.latency_s = latency_s
    link.up.bytes_per_s = link.down.bytes_per_s = bytes_per_s
    name = f"node-{link.port}"
    bus = Bus(Settings(broker=f"mqtt://127.0.0.1:{link.port}"), name)
    fetcher = Fetcher(bus, FragmentStore(folder / name, 1 << 32), name)
    try:
        async with bus:
            await bus.connected()
            began = time.perf_counter()
            await fetcher.fetch([file])
            return time.perf_counter() - began, link.carried_bytes["down"]
    finally:
        await link.stop()


async def measure(folder: Path, port: int, files: tuple[StoredFile, ...], nodes: int, latency: float) -> None:
    """Print one line for each link."""
    ready = ModelStore(SHIPPED_STORE).applications()[0].files[0]
    await fetch(folder, port, ready, 0.0, 0.0)  # waits for the splitter
    print(f"{'Mbit/s':>8}{'file, MB':>10}{'wire / file':>13}{'seconds':>9}{'time / ideal':>14}")
    for (megabits, _), file in zip(LINKS, files, strict=True):
        bytes_per_s = megabits * MEGABIT_BYTES
        fetches = [fetch(folder, port, file, bytes_per_s, latency) for _ in range(nodes)]
        found = await asyncio.gather(*fetches)
        seconds, wire = max(each[0] for each in found), max(each[1] for each in found)
        size = file.file_bytes
        ideal = size / bytes_per_s
        row = (
            f"{megabits:8.0f}{size / MEGABYTE:10.1f}",
            f"{wire / size:13.3f}{seconds:9.2f}{seconds / ideal:14.2f}",
        )
        print("".join(row), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1, help="nodes that fetch the same file at once")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="of each direction")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        started_broker(Path(name) / "broker", kind=available_kind()) as broker,
        Processes(Path(name) / "logs") as processes,
    ):
        folder = Path(name)
        files = store_with(folder / "store", tuple(int(size * MEGABYTE) for _, size in LINKS))
        command = ("splitplace.services.splitter", "--store", str(folder / "store"))
        state = ("--state-dir", str(folder / "state"), "--broker", broker.url)
        processes.start("splitter", (sys.executable, "-m", *command, *state))
        port = Settings(broker=broker.url).port
        latency_s = arguments.latency_ms / 1000
        print(f"broker: {broker.kind}, nodes: {arguments.nodes}, latency {arguments.latency_ms:.0f} ms")
        asyncio.run(measure(folder, port, files, arguments.nodes, latency_s))


if __name__ == "__main__":
    main()
