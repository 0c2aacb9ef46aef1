"""Measure the time of an answer besides inference: `python -m benchmarks.overhead`.

A sensor sends one-image tasks, one at a time, to an idle system of five services and three nodes on one
machine without CPU limits. Overhead is the time from the sensor's publication to its answer, minus the
inference time of the same fragments, run one after another in this process. The chain is placed at random.
Answers are grouped by the number of nodes on their path: "3 nodes" has two hops more than "1 node".
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import msgpack
import numpy as np
from numpy.typing import NDArray

from splitplace.bus.cluster import subscribe_cluster
from splitplace.bus.connection import Bus, RawReceived
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import started_broker
from splitplace.commands.processes.children import Processes
from splitplace.messages import topics
from splitplace.messages.application import Application
from splitplace.messages.cluster import ClusterState
from splitplace.messages.task import Answer
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE
from splitplace.workshop.pieces.loaded import stage_runtime

NODES = ("n1", "n2", "n3")
SERVICES = ("gateway", "splitter", "placer", "resource_monitor", "result_aggregator")
AIMS_MS = {1: 15.0, 2: 25.0, 3: 35.0}
WARM_UP = 10


def inference_ms(
    models: ModelStore, application: Application, variant: str, image: NDArray[np.uint8]
) -> float:
    """Return the median time of the variant's fragments, run in sequence in one thread of this process."""
    runtimes = [
        stage_runtime(models, application, application.fragment(stage.fragment))
        for stage in application.variant(variant).stages
    ]
    times = []
    for _ in range(200):
        began = time.perf_counter()
        tensor = image
        for runtime in runtimes:
            tensor = runtime.run(tensor)
        times.append(1e3 * (time.perf_counter() - began))
    return float(np.median(times))


class OneAtATime:
    """A sensor that waits for each answer before it sends the next task."""

    def __init__(self, settings: Settings) -> None:
        self.bus = Bus(settings, "benchmark-sensor")
        self.online = 0
        self._answer: asyncio.Future[Answer] | None = None
        self.bus.subscribe_raw(topics.ANSWER, self._on_answer, client="benchmark")
        subscribe_cluster(self.bus, self._on_cluster)

    async def _on_answer(self, raw: RawReceived) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Answer.model_validate_json(raw.payload))

    def _on_cluster(self, state: ClusterState) -> None:
        self.online = sum(node.online for node in state.nodes)

    async def ask(self, application: str, name: str, image: NDArray[np.uint8]) -> tuple[Answer, float]:
        """Send one task; return its answer and the response time in ms seen by the sensor."""
        self._answer = asyncio.get_running_loop().create_future()
        body = bytes(msgpack.packb({"inputs": image.tobytes(), "deadline_ms": 20_000.0}))
        topic = topics.TASK_NAMED.at(application=application, client="benchmark", task=name)
        began = time.perf_counter()
        await self.bus.publish_raw(topic, body)
        answer = await asyncio.wait_for(self._answer, 30.0)
        return answer, 1e3 * (time.perf_counter() - began)


async def measure(
    settings: Settings, application: str, image: NDArray[np.uint8], count: int
) -> dict[int, list[float]]:
    """Return response times in ms by the number of nodes that took part."""
    sensor = OneAtATime(settings)
    by_nodes: dict[int, list[float]] = defaultdict(list)
    async with sensor.bus:
        async with asyncio.timeout(60.0):
            while sensor.online < len(NODES):  # noqa: ASYNC110 - set by another process
                await asyncio.sleep(0.1)
        for number in range(-WARM_UP, count):
            answer, took_ms = await sensor.ask(application, f"t{number + WARM_UP}", image)
            if number >= 0 and answer.status == "answered":
                by_nodes[len(answer.nodes)].append(took_ms)
    return by_nodes


def run_variant(arguments: argparse.Namespace, variant: str, folder: Path) -> None:
    """Start a system that always chooses the variant, measure, and print."""
    models = ModelStore(arguments.store)
    application = next(found for found in models.applications() if found.name == arguments.application)
    image = np.random.default_rng(0).integers(0, 256, (1, *application.input.shape), dtype=np.uint8)
    pure_ms = inference_ms(models, application, variant, image)
    with started_broker(folder / "broker", kind=arguments.broker) as broker, Processes(folder) as processes:
        options: dict[str, tuple[str, ...]] = {
            "gateway": ("--journal", str(folder / "journal")),
            "splitter": ("--policy", variant, "--store", str(arguments.store), "--state-dir", str(folder)),
            "placer": ("--placement", "random" if variant == "layer" else "earliest-finish"),
        }
        for service in SERVICES:
            command = [sys.executable, "-m", f"splitplace.services.{service}", "--broker", broker.url]
            processes.start(service, [*command, *options.get(service, ())])
        for node in NODES:
            command = [sys.executable, "-m", "splitplace.edge_node", "--node", node, "--broker", broker.url]
            processes.start(node, [*command, "--fragment-dir", str(folder / node)])
        by_nodes = asyncio.run(measure(Settings(broker=broker.url), application.name, image, arguments.tasks))
        for nodes, times in sorted(by_nodes.items()):
            over = np.sort(np.array(times)) - pure_ms
            print(
                f"{variant:6} {nodes} node(s), {broker.kind}: overhead p50 {np.quantile(over, 0.5):6.1f} ms,"
                f" p99 {np.quantile(over, 0.99):6.1f} ms   (inference {pure_ms:.1f} ms, {len(times)} tasks;"
                f" aim for p50: {AIMS_MS[nodes]:.0f} ms)",
                flush=True,
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=SHIPPED_STORE)
    parser.add_argument("--application", default="mnist")
    parser.add_argument("--tasks", type=int, default=200, help="tasks for each variant")
    parser.add_argument("--broker", choices=["mosquitto", "embedded"], default="mosquitto")
    arguments = parser.parse_args()
    for variant in ("whole", "layer"):
        with tempfile.TemporaryDirectory() as folder:
            run_variant(arguments, variant, Path(folder))


if __name__ == "__main__":
    main()
