"""Measure a chain of two fragments on two cores: `python -m benchmarks.pipeline` (extra `models`).

A network is cut in two where the measured time is balanced: the application's own, or one of the same family
with `--width-factor` times its channels (random weights: they do not change the time). Two edge nodes run the
halves as in production (frames over a broker, routes, their own queues); this process only sends
micro-batches and counts outputs. The same network unsplit runs in one process with one thread on the same
micro-batches. The two are measured in turn, several times, because timings here are noisy.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from splitplace.bus.cluster import subscribe_cluster
from splitplace.bus.connection import Bus, Received
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import available_kind, started_broker
from splitplace.commands.processes.children import Processes
from splitplace.edge_node.runtime import FragmentRuntime, load_fragment
from splitplace.messages import topics
from splitplace.messages.application import Application
from splitplace.messages.cluster import ClusterState
from splitplace.messages.frames import (
    AGGREGATOR_INBOX,
    GATEWAY_SENDER,
    Route,
    TensorHeader,
    decode_tensor,
    encode_tensor,
    tensor_frames,
)
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE
from splitplace.workshop.networks.designs import ResNet
from splitplace.workshop.onnx.export import export_network
from splitplace.workshop.onnx.file import file_content
from splitplace.workshop.packing.packer import Heading, Packer, timed_draft
from splitplace.workshop.pieces.chain import balanced_cuts, measured
from splitplace.workshop.pieces.loaded import stage_model
from splitplace.workshop.recipes.recipes import RECIPES

NODES = ("n1", "n2")
IN_FLIGHT = 8


def network(source: ModelStore, application: Application, width_factor: int) -> onnx.ModelProto:
    """Return the application's whole network, or a wider one."""
    if width_factor == 1:
        whole = application.fragment(application.variant("whole").stages[0].fragment)
        return stage_model(source, application, whole)
    torch.manual_seed(0)
    recipe = RECIPES[application.name]
    design = recipe.design
    if not isinstance(design, ResNet):
        raise SystemExit(f"{application.name} is no residual network: it cannot be made wider")
    widths = tuple(width_factor * width for width in design.widths)
    wider = recipe.network(replace(design, widths=widths), len(application.labels)).eval()
    return export_network(wider, np.zeros((2, *application.input.shape), np.uint8))


def two_halves(
    whole: onnx.ModelProto, application: Application, target: ModelStore, micro_batch: int
) -> Application:
    """Write an application into a store whose only variant is a chain of the two halves of a network."""
    heading = Heading(application.name, application.title, application.labels, application.input)
    with tempfile.TemporaryDirectory() as folder:
        packer = Packer(heading, Path(folder), micro_batch)
        network = measured(whole)
        cuts = balanced_cuts(network, 2)
        packer.add_measured("whole", network, cuts)
        packer.add_chain("layer", "whole", cuts)
        halves = timed_draft(packer)
        target.save(halves, packer.contents())
    return halves


def chain_route(application: Application) -> Route:
    """Return the route over both nodes."""
    first, second = application.variant("layer").stages
    after = Route(stage=second.name, node=NODES[1], fragment=second.fragment)
    return Route(stage=first.name, node=NODES[0], fragment=first.fragment, next=(after,))


class Pipeline:
    """Feed the first node of a route and collect from the last."""

    def __init__(self, settings: Settings, application: str) -> None:
        self._application = application
        self._run = 0
        self._outputs: dict[int, NDArray[Any]] = {}
        self._places = asyncio.Semaphore(IN_FLIGHT)
        self._done = asyncio.Event()
        self._expected = 0
        self.online = 0
        self.bus = Bus(settings, "benchmark")
        self.bus.subscribe(topics.TENSOR, self._on_output, receiver=AGGREGATOR_INBOX)
        subscribe_cluster(self.bus, self._on_cluster)

    def _on_cluster(self, state: ClusterState) -> None:
        self.online = sum(node.online for node in state.nodes)

    async def _on_output(self, received: Received[TensorHeader]) -> None:
        header = received.message
        if header.task != f"benchmark.{self._run}":
            return
        self._outputs[header.micro_batch] = decode_tensor(header, received.body)
        self._places.release()
        if len(self._outputs) == self._expected:
            self._done.set()

    async def run(
        self, route: Route, images: NDArray[np.uint8], micro_batch: int, *, in_flight: int = IN_FLIGHT
    ) -> tuple[float, NDArray[np.float32]]:
        """Return the seconds for all images, and their logits."""
        self._run += 1
        micro_batches = [images[start : start + micro_batch] for start in range(0, len(images), micro_batch)]
        self._outputs, self._expected = {}, len(micro_batches)
        self._places = asyncio.Semaphore(in_flight)
        self._done.clear()
        began = time.perf_counter()
        for index, inputs in enumerate(micro_batches):
            await self._places.acquire()
            codec, encoded = encode_tensor(inputs, compress=False)
            header = TensorHeader(
                task=f"benchmark.{self._run}",
                attempt=1,
                application=self._application,
                variant="layer",
                micro_batch=index,
                micro_batches=len(micro_batches),
                expires_ms=120_000.0,
                dtype="uint8",
                shape=inputs.shape,
                codec=codec,
                encoded_bytes=len(encoded),
                route=route,
                stage=route.stage,
            )
            for frame in tensor_frames(header, encoded):
                publication = self.bus.send_frame(
                    topics.TENSOR, frame, receiver=route.node, sender=GATEWAY_SENDER
                )
                self.bus.spawn_publication(publication)
        await asyncio.wait_for(self._done.wait(), 120.0)
        seconds = time.perf_counter() - began
        return seconds, np.concatenate([self._outputs[index] for index in range(len(micro_batches))])


def unsplit(
    runtime: FragmentRuntime, images: NDArray[np.uint8], micro_batch: int
) -> tuple[float, NDArray[Any]]:
    """Return the seconds for all images in one thread of this process, and their logits."""
    began = time.perf_counter()
    outputs = [
        runtime.run(images[start : start + micro_batch]) for start in range(0, len(images), micro_batch)
    ]
    return time.perf_counter() - began, np.concatenate(outputs)


async def measure(
    settings: Settings, application: Application, whole: FragmentRuntime, sizes: Sequence[int], rounds: int
) -> None:
    """Measure each micro-batch size and print its line."""
    pipeline, route = Pipeline(settings, application.name), chain_route(application)
    random = np.random.default_rng(0)
    async with pipeline.bus:
        async with asyncio.timeout(60.0):
            while pipeline.online < len(NODES):  # noqa: ASYNC110 - set by another process
                await asyncio.sleep(0.1)
        for size in sizes:
            images = random.integers(
                0, 256, (max(100 * size, 1600), *application.input.shape), dtype=np.uint8
            )
            await pipeline.run(route, images[: 10 * size], size)
            ratios, rates = [], []
            for _ in range(rounds):
                one_s, expected = await asyncio.to_thread(unsplit, whole, images, size)
                two_s, logits = await pipeline.run(route, images, size)
                if not np.allclose(logits, expected, atol=1e-3):
                    raise RuntimeError("the chain's logits are not the whole network's")
                ratios.append(one_s / two_s)
                rates.append((len(images) / one_s, len(images) / two_s))
            one, two = np.median(rates, axis=0)
            print(
                f"micro-batch {size:3}: unsplit {one:6.0f} images/s, chain of two {two:6.0f} images/s,"
                f" ratio {np.median(ratios):.2f} (of {min(ratios):.2f} to {max(ratios):.2f}; aim: 1.6)",
                flush=True,
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=SHIPPED_STORE)
    parser.add_argument("--application", default="mnist")
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width-factor", type=int, default=1)
    arguments = parser.parse_args()
    source = ModelStore(arguments.store)
    application = next(found for found in source.applications() if found.name == arguments.application)
    torch.set_num_threads(1)
    model = network(source, application, arguments.width_factor)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "whole.onnx").write_bytes(file_content(model))
        whole = load_fragment(folder / "whole.onnx")
        chain = two_halves(model, application, ModelStore(folder / "store"), micro_batch=16)
        times = " + ".join(f"{fragment.milliseconds_per_image:.3f}" for fragment in chain.fragments)
        crossing = chain.fragments[0].output.bytes_per_image
        print(f"{application.name}, width x{arguments.width_factor}, cut in two: {times} ms an image")
        print(f"{crossing} bytes an image cross the cut")
        with (
            started_broker(folder / "broker", kind=available_kind()) as broker,
            Processes(folder) as processes,
        ):
            options = ("--store", str(folder / "store"), "--state-dir", str(folder / "state"))
            splitter = (
                sys.executable,
                "-m",
                "splitplace.services.splitter",
                "--broker",
                broker.url,
                *options,
            )
            processes.start("splitter", splitter)
            monitor = (sys.executable, "-m", "splitplace.services.resource_monitor", "--broker", broker.url)
            processes.start("resource-monitor", monitor)
            for node in NODES:
                command = (
                    sys.executable,
                    "-m",
                    "splitplace.edge_node",
                    "--node",
                    node,
                    "--broker",
                    broker.url,
                )
                processes.start(node, (*command, "--fragment-dir", str(folder / node)))
            settings = Settings(broker=broker.url)
            asyncio.run(measure(settings, chain, whole, arguments.micro_batches, arguments.rounds))


if __name__ == "__main__":
    main()
