"""Measure the cost of sending a tensor from one node to another: `python -m benchmarks.transport`.

Real activations (the output of the first `layer` fragment of an application) go through a broker of our own
from one connection to another, as tensor frames and, for comparison, as the paper did it: pickle, bzip2, one
message. CPU time is that of sender, receiver and broker together; MB are megabytes of the raw tensor.
"""

import argparse
import asyncio
import bz2
import pickle
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from splitplace.bus.assembly import TensorAssembly
from splitplace.bus.connection import Bus, RawReceived, Received
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import available_kind, started_broker
from splitplace.messages import topics
from splitplace.messages.frames import (
    AGGREGATOR_INBOX,
    GATEWAY_SENDER,
    TensorHeader,
    decode_tensor,
    encode_tensor,
    tensor_frames,
)
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE
from splitplace.workshop.pieces.loaded import stage_runtime

TENSOR_MB = 1.6
WINDOW = 4
"""Number of tensors under way at once, as in a busy pipeline."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Measured cost of one way of sending."""

    megabytes_per_second: float
    cpu_ms_per_megabyte: float


def activations(store: Path, application_name: str) -> NDArray[np.float32]:
    """Compute about `TENSOR_MB` of tensors that cross the first cut, shape `[n, *output.shape]`."""
    models = ModelStore(store)
    application = next(found for found in models.applications() if found.name == application_name)
    stage = application.variant("layer").stages[0]
    with np.load(store / application_name / "samples.npz", allow_pickle=False) as samples:
        images = samples["images"].reshape(-1, *application.input.shape)
    count = round(TENSOR_MB * 1e6 / application.fragment(stage.fragment).output.bytes_per_image)
    runtime = stage_runtime(models, application, application.fragment(stage.fragment))
    return np.asarray(runtime.run(np.resize(images, (count, *application.input.shape))), dtype=np.float32)


class Ways:
    """Two connections to one broker, and the ways to send a tensor from one to the other."""

    def __init__(self, settings: Settings) -> None:
        self.sender = Bus(settings, "benchmark-sender")
        self.receiver = Bus(settings, "benchmark-receiver", receive_maximum=64)
        self._assembly = TensorAssembly()
        self._arrived = asyncio.Semaphore(0)
        self._last: NDArray[Any] | None = None
        self._number = 0
        self.receiver.subscribe(topics.TENSOR, self._on_frame)
        self.receiver.subscribe_raw(topics.NODE_CANCEL, self._on_pickle, node="receiver")

    async def _on_frame(self, received: Received[TensorHeader]) -> None:
        complete = self._assembly.add(received.message, received.body, time.monotonic() * 1e3)
        if complete is not None:
            self._last = await asyncio.to_thread(decode_tensor, *complete)
            self._arrived.release()

    async def _on_pickle(self, raw: RawReceived) -> None:
        self._last = await asyncio.to_thread(lambda: pickle.loads(bz2.decompress(raw.payload)))  # noqa: S301
        self._arrived.release()

    def frames(self, *, compress: bool) -> Callable[[NDArray[Any]], Awaitable[None]]:
        """Send a tensor as frames."""

        async def send(tensor: NDArray[Any]) -> None:
            codec, encoded = await asyncio.to_thread(lambda: encode_tensor(tensor, compress=compress))
            self._number += 1
            header = TensorHeader(
                task=f"benchmark.{self._number}",
                attempt=1,
                application="benchmark",
                variant="layer",
                micro_batch=0,
                micro_batches=1,
                expires_ms=60_000.0,
                dtype="float32" if tensor.dtype == np.float32 else "float16",
                shape=tensor.shape,
                codec=codec,
                encoded_bytes=len(encoded),
                route=None,
                stage="benchmark",
            )
            frames = (
                self.sender.send_frame(topics.TENSOR, frame, receiver=AGGREGATOR_INBOX, sender=GATEWAY_SENDER)
                for frame in tensor_frames(header, encoded)
            )
            await asyncio.gather(*frames)

        return send

    async def pickle_and_bzip2(self, tensor: NDArray[Any]) -> None:
        """Send a tensor as the paper did: pickle, bzip2, one message."""
        payload = await asyncio.to_thread(lambda: bz2.compress(pickle.dumps(tensor)))
        await self.sender.publish_raw(topics.NODE_CANCEL.at(node="receiver"), payload)

    async def cost(
        self,
        send: Callable[[NDArray[Any]], Awaitable[None]],
        tensor: NDArray[Any],
        count: int,
        cpu_seconds: Callable[[], float],
    ) -> Cost:
        """Send the tensor that many times, a few at once, and wait until the last has arrived."""
        places = asyncio.Semaphore(WINDOW)

        async def one() -> None:
            async with places:
                await send(tensor)

        began, cpu_began = time.perf_counter(), cpu_seconds()
        sending = [asyncio.create_task(one()) for _ in range(count)]
        for _ in range(count):
            await asyncio.wait_for(self._arrived.acquire(), 120.0)
        seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu_began
        await asyncio.gather(*sending)
        if self._last is None or not np.array_equal(self._last, tensor):
            raise RuntimeError("what arrived is not what was sent")
        megabytes = count * tensor.nbytes / 1e6
        return Cost(megabytes / seconds, 1e3 * cpu / megabytes)


async def measure(settings: Settings, broker_pid: int, tensor: NDArray[np.float32], count: int) -> None:
    """Measure all ways and print a table."""
    processes = (psutil.Process(), psutil.Process(broker_pid))

    def cpu_seconds() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    ways = Ways(settings)
    async with ways.sender, ways.receiver:
        await ways.sender.connected()
        await ways.receiver.connected()
        paper = await ways.cost(ways.pickle_and_bzip2, tensor, max(3, count // 20), cpu_seconds)
        rows = [("pickle + bzip2, one message (the paper)", paper)]
        for title, compress in (("float32 frames", False), ("float32 frames, zstd", True)):
            rows.append((title, await ways.cost(ways.frames(compress=compress), tensor, count, cpu_seconds)))
    print(f"{tensor.nbytes / 1e6:.2f} MB of activations {tensor.shape}, {(tensor == 0).mean():.0%} zeros")
    print(f"{'':42}{'MB/s':>8}{'CPU-ms/MB':>12}{'MB/s ratio':>12}{'CPU ratio':>12}   (aim: 10)")
    for title, cost in rows:
        faster = cost.megabytes_per_second / paper.megabytes_per_second
        cheaper = paper.cpu_ms_per_megabyte / cost.cpu_ms_per_megabyte
        print(
            f"{title:42}{cost.megabytes_per_second:8.1f}{cost.cpu_ms_per_megabyte:12.2f}"
            f"{faster:11.1f}x{cheaper:11.1f}x"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=SHIPPED_STORE)
    parser.add_argument("--application", default="mnist")
    parser.add_argument("--tensors", type=int, default=100)
    arguments = parser.parse_args()
    tensor = activations(arguments.store, arguments.application)
    with (
        tempfile.TemporaryDirectory() as folder,
        started_broker(Path(folder), kind=available_kind()) as broker,
    ):
        print(f"broker: {broker.kind}")
        asyncio.run(measure(Settings(broker=broker.url), broker.pid or 0, tensor, arguments.tensors))


if __name__ == "__main__":
    main()
