"""Measure what a node gains by its cores: `python -m benchmarks.cores` (extra `models`).

In the runtime: one run at a time in one thread, on all cores with threads that rest or spin while they wait,
and as many runs at once as there are cores. Served: a node with one thread and a node with all cores get the
same micro-batches over the broker, one at a time and many at once. `--int8` compares a quantised copy of
the network. All are measured in turn. Gains are medians over the rounds; the gain of the least times stands
beside them, because other work on the machine only ever adds. On a busy Linux machine, `chrt -f 1 python -m
...` keeps other work away; it needs root, and stops that work for moments.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.pieces import example, exported
from benchmarks.pipeline import Pipeline
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import available_kind, started_broker
from splitplace.commands.processes.children import Processes
from splitplace.edge_node.runtime import FragmentRuntime, load_fragment
from splitplace.messages.application import Application
from splitplace.messages.frames import Route
from splitplace.messages.tensors import TensorSpec
from splitplace.storage.model_store import ModelStore
from splitplace.workshop.networks.catalogue import NETWORKS
from splitplace.workshop.onnx.file import file_content
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.packing.packer import Heading, Packer, timed_draft

PAUSE_S = 0.05
ONE, ALL = "one", "all"
"""Names of the nodes with one thread and with all cores."""
MANY = 8
MICRO_BATCHES = 12
_PROVIDER = "XnnpackExecutionProvider"
_CALIBRATION_IMAGES = 8


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=NETWORKS, default="resnet50_v2", help="with random weights")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--served", action="store_true", help="nodes over a broker as well")
    parser.add_argument("--int8", action="store_true", help="a quantised copy as well")
    options = parser.parse_args()
    model = exported(options.network)
    present = "present" if _PROVIDER in ort.get_available_providers() else "not in this build"
    print(f"{options.network}, {options.threads} threads; ONNX Runtime {ort.__version__}, XNNPACK {present}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "network.onnx"
        path.write_bytes(file_content(model))
        for batch in options.batches:
            images = example(model, batch)
            print_gains(
                f"runtime, batch {batch}", runtime_forms(path, images, options.threads), options.rounds
            )
        if options.int8:
            print_int8(model, path, folder, options)
        if options.served:
            serve(model, folder, options)


Form = tuple[Callable[[], object], int]
"""Does something, and how many runs that is."""


def runtime_forms(path: Path, images: NDArray[Any], threads: int) -> dict[str, Form]:
    """Return the ways to run the network in this process; the first is what the others are compared with."""
    resting = load_fragment(path, threads=threads)
    spinning = load_fragment(path, threads=threads, spinning=True)
    return {
        "one thread": (lambda: resting.run(images), 1),
        "all cores, threads rest": (lambda: resting.run(images, all_cores=True), 1),
        "all cores, threads spin": (lambda: spinning.run(images, all_cores=True), 1),
        f"{threads} at once, one thread each": (lambda: at_once(resting, images, threads), threads),
    }


def at_once(runtime: FragmentRuntime, images: NDArray[Any], runs: int) -> None:
    """Run the network several times at once, one thread each."""
    barrier = threading.Barrier(runs)

    def run() -> None:
        barrier.wait()
        runtime.run(images)

    with ThreadPoolExecutor(runs) as pool:
        for future in [pool.submit(run) for _ in range(runs)]:
            future.result()


def print_gains(title: str, forms: Mapping[str, Form], rounds: int) -> None:
    """Time the forms in turn, and print what each gains over the first."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    cpu_s = dict.fromkeys(forms, 0.0)
    for round_ in range(-1, rounds):
        for name, (run, count) in forms.items():
            time.sleep(PAUSE_S)
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            run()
            if round_ >= 0:
                times[name].append((time.perf_counter() - began_s) / count)
                cpu_s[name] += (time.process_time() - began_cpu_s) / count
    first = next(iter(forms))
    print(title)
    for name, took_s in times.items():
        gain = statistics.median(map(lambda one, this: one / this, times[first], took_s))
        print(
            f"  {name:32} {1e3 * statistics.median(took_s):8.2f} ms a run, gain {gain:.2f} (of least times "
            f"{min(times[first]) / min(took_s):.2f}), {1e3 * cpu_s[name] / rounds:7.2f} ms of CPU",
            flush=True,
        )


def print_int8(model: onnx.ModelProto, path: Path, folder: Path, options: argparse.Namespace) -> None:
    """Quantise the network with noise for calibration, and print what that gains."""
    quantised = folder / "int8.onnx"
    quantise(model, path, quantised)
    for batch in options.batches:
        images = example(model, batch)
        plain, small = (load_fragment(file, threads=options.threads) for file in (path, quantised))
        forms: dict[str, Form] = {
            "float32, one thread": (lambda: plain.run(images), 1),  # noqa: B023 - used before the next turn
            "int8, one thread": (lambda: small.run(images), 1),  # noqa: B023
            "float32, all cores": (lambda: plain.run(images, all_cores=True), 1),  # noqa: B023
            "int8, all cores": (lambda: small.run(images, all_cores=True), 1),  # noqa: B023
        }
        print_gains(f"int8, batch {batch}", forms, options.rounds)


def quantise(model: onnx.ModelProto, path: Path, target: Path) -> None:
    """Write a network with int8 weights and activations, as pairs of QuantizeLinear and DequantizeLinear."""
    from onnxruntime import quantization  # noqa: PLC0415 - seldom needed, and slow to import

    name = model.graph.input[0].name

    class Noise(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = [example(model, 1) for _ in range(_CALIBRATION_IMAGES)]

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return {name: self._left.pop()} if self._left else None

    prepared = target.with_name("prepared.onnx")
    quantization.shape_inference.quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantization.quantize_static(prepared, target, Noise(), quant_format=quantization.QuantFormat.QDQ)


def stored_application(model: onnx.ModelProto, name: str, store: ModelStore, folder: Path) -> Application:
    """Write an application whose only variant is the whole network into a store, and return it."""
    graph = Graph(model)
    (classes,) = graph.shape(graph.output)
    heading = Heading(
        name=name.replace("_", "-"),
        title=name,
        labels=tuple(f"class {number}" for number in range(classes)),
        input=TensorSpec(dtype="uint8", shape=graph.shape(graph.input)),
        default_deadline_ms=60_000.0,
    )
    packer = Packer(heading, folder, micro_batch=1)
    packer.add_network("whole", model)
    packer.add_single("whole", "whole")
    application = timed_draft(packer)
    store.save(application, packer.contents())
    return application


def serve(model: onnx.ModelProto, folder: Path, options: argparse.Namespace) -> None:
    """Start two nodes, and print what the one with all cores gains."""
    store = folder / "store"
    application = stored_application(model, options.network, ModelStore(store), folder / "pieces")
    with started_broker(folder / "broker", kind=available_kind()) as broker, Processes(folder) as processes:

        def start(name: str, module: str, *flags: str) -> None:
            command = [sys.executable, "-m", f"splitplace.{module}", "--broker", broker.url]
            processes.start(name, [*command, *flags])

        start("splitter", "services.splitter", "--store", str(store), "--state-dir", str(folder / "state"))
        start("resource-monitor", "services.resource_monitor")
        for name, threads in ((ONE, 1), (ALL, options.threads)):
            start(
                *(name, "edge_node", "--node", name, "--threads", str(threads)),
                *("--fragment-dir", str(folder / name), "--memory-budget-mb", "2048"),
            )
        asyncio.run(measure_served(Settings(broker=broker.url), application, options))


async def measure_served(settings: Settings, application: Application, options: argparse.Namespace) -> None:
    """Send the same micro-batches to both nodes, one at a time and many at once."""
    (stage,) = application.variants[0].stages
    routes = {node: Route(stage=stage.name, node=node, fragment=stage.fragment) for node in (ONE, ALL)}
    pipeline = Pipeline(settings, application.name)
    async with pipeline.bus:
        async with asyncio.timeout(120.0):
            while pipeline.online < len(routes):  # noqa: ASYNC110 - set by another process
                await asyncio.sleep(0.1)
        for batch in options.batches:
            shape = (MICRO_BATCHES * batch, *application.input.shape)
            images = np.random.default_rng(0).integers(0, 256, shape).astype(application.input.dtype)
            for in_flight in (1, MANY):
                seconds: dict[str, list[float]] = {ONE: [], ALL: []}
                for round_ in range(-1, options.rounds):
                    answers: list[NDArray[np.float32]] = []
                    for node, route in routes.items():
                        took_s, logits = await pipeline.run(route, images, batch, in_flight=in_flight)
                        answers.append(logits)
                        if round_ >= 0:
                            seconds[node].append(took_s)
                    if not np.allclose(answers[0], answers[1], rtol=1e-3, atol=1e-3):
                        raise RuntimeError("the nodes give different answers")
                print_served(batch, in_flight, seconds)


def print_served(batch: int, in_flight: int, seconds: Mapping[str, Sequence[float]]) -> None:
    """Print what the node with all cores gains."""
    gain = statistics.median(map(lambda one, all_: one / all_, seconds[ONE], seconds[ALL]))
    least = min(seconds[ONE]) / min(seconds[ALL])
    one_ms, all_ms = (1e3 * statistics.median(seconds[node]) / MICRO_BATCHES for node in (ONE, ALL))
    print(
        f"served, batch {batch}, {in_flight} at a time: {one_ms:.1f} ms each by one thread, "
        f"{all_ms:.1f} by all cores, gain {gain:.2f} (of least times {least:.2f})",
        flush=True,
    )


if __name__ == "__main__":
    main()
