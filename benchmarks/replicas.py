"""Measure what nodes gain that share a batch: `python -m benchmarks.replicas`.

A whole system runs for each pair of nodes. Each node has a small share of a core in a control group, so that
other work on the machine hardly changes what the pair gains. This process is the sensor and, with the core of
the live placer, the placer: in each round, one task may be shared, and one stands on the node that is
predicted to end first. Gains are medians over the rounds. Every answer is compared with the network's.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.predictions import Sensor, inputs, node_command
from splitplace.bus.cluster import subscribe_cluster
from splitplace.bus.connection import Bus, Received
from splitplace.bus.service import now_ms
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import Broker, available_kind, started_broker
from splitplace.commands.processes.children import Processes
from splitplace.commands.processes.cpu_shares import CpuShares, cpu_shares
from splitplace.messages import topics
from splitplace.messages.application import Application
from splitplace.messages.cluster import ClusterState
from splitplace.messages.findings import Prediction
from splitplace.messages.task import Answer, TaskDecided, TaskFinished
from splitplace.policies.placement import MOST_REPLICAS, placement_policy
from splitplace.services.placer.core import PlacerCore
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE
from splitplace.workshop.pieces.loaded import stage_runtime

ALONE, SHARED = 1, MOST_REPLICAS
PAUSE_S = 0.7
"""Between tasks: a heartbeat, so that the queues are known to be empty."""
_CONFIDENCE = 1e-4


class Placers:
    """Two placers in one: the next task is placed by that of `replicas`."""

    def __init__(self, settings: Settings, application: Application) -> None:
        self.replicas = ALONE
        self.shares: list[int] = []
        """Images of each node in the newest placement."""
        self.predicted_ms = 0.0
        self._cores = {
            replicas: PlacerCore(placement_policy("earliest-finish", replicas=replicas))
            for replicas in (ALONE, SHARED)
        }
        self.bus = Bus(settings, "benchmark-placer")
        self.bus.subscribe(topics.JOB_DECIDED, self._on_decided)
        self.bus.subscribe(topics.JOB_FINISHED, self._on_finished)
        subscribe_cluster(self.bus, self._on_cluster)
        for core in self._cores.values():
            core.add_application(application)

    async def _on_decided(self, received: Received[TaskDecided]) -> None:
        placing = self._cores[self.replicas].place(received.message, now_ms())
        if placing is None:
            return
        placed = placing.placed
        count = placed.micro_batch_count
        self.shares = [
            min(placed.batch, placed.micro_batch * (len(stage.micro_batches or ()) or count))
            for stage in placed.stages
        ]
        self.predicted_ms = placed.predicted_ms or 0.0
        await self.bus.publish(topics.JOB_PLACED, placed)
        for hint in placing.prepare:
            await self.bus.publish(topics.NODE_PREPARE, hint)

    async def _on_finished(self, received: Received[TaskFinished]) -> None:
        for core in self._cores.values():
            core.finished(received.message, now_ms())

    def _on_cluster(self, state: ClusterState) -> None:
        for core in self._cores.values():
            for hint in core.cluster(state, now_ms()):
                self.bus.send(topics.NODE_PREPARE, hint)


class Network:
    """The network in this process, to compare answers with."""

    def __init__(self, store: ModelStore, application: Application) -> None:
        (stage,) = application.variant("whole").stages
        self._runtime = stage_runtime(store, application, application.fragment(stage.fragment))

    def check(self, images: NDArray[np.uint8], answer: Answer) -> None:
        """Compare classes and confidences. Raises RuntimeError."""
        logits = self._runtime.run(images).astype(np.float64)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        confidence = (powers / powers.sum(axis=1, keepdims=True)).max(axis=1)
        told = [found for found in answer.predictions if isinstance(found, Prediction)]
        same = [prediction.index for prediction in told] == logits.argmax(axis=1).tolist()
        if not same or not np.allclose([each.confidence for each in told], confidence, atol=_CONFIDENCE):
            raise RuntimeError(f"task {answer.task}: the answer is not the network's")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a system runs."""

    folder: Path
    store: Path
    broker: Broker
    processes: Processes
    shares: CpuShares


def start(place: Place, speeds: Sequence[float]) -> None:
    """Start the services but the placer, and nodes with these shares of a core."""
    place.shares.prefer()
    url, folder = place.broker.url, place.folder
    options = {topics.SPLITTER: ("--policy", "whole", "--store", str(place.store))}
    for service in topics.SERVICES:
        if service != topics.PLACER:
            module = f"splitplace.services.{service.replace('-', '_')}"
            state = ("--state-dir", str(folder / "state"), "--broker", url)
            place.processes.start(service, [sys.executable, "-m", module, *state, *options.get(service, ())])
    for number, speed in enumerate(speeds):
        name = f"n{number}"
        pacing = ("--pacing",) if place.shares.mechanism == "pacing" else ()
        flags = ("--cpu-share", str(speed), "--cores", "1", *pacing)
        child = place.processes.start(name, node_command(name, url, folder, *flags))
        if child.pid is not None:
            place.shares.limit(name, child.pid, speed)


async def measure(arguments: argparse.Namespace, speeds: tuple[float, ...], place: Place) -> None:
    """Start a system with nodes of these shares of a core, and print what they gain."""
    store = ModelStore(place.store)
    application = next(found for found in store.applications() if found.name == arguments.application)
    settings = Settings(broker=place.broker.url)
    start(place, speeds)
    network, placers, sensor = Network(store, application), Placers(settings, application), Sensor(settings)
    took_ms: dict[int, list[float]] = {ALONE: [], SHARED: []}
    foreseen_ms: dict[int, list[float]] = {ALONE: [], SHARED: []}
    async with placers.bus, sensor.bus:
        await placers.bus.connected()
        await sensor.bus.connected()
        await sensor.until_ready(len(speeds), len(application.fragments))
        for number in range(-arguments.warm_up, arguments.rounds):
            for replicas in (ALONE, SHARED):
                placers.replicas = replicas
                images = inputs(application, arguments.batch, number + arguments.warm_up)
                answer = await sensor.ask(application, f"t{number + arguments.warm_up}-{replicas}", images)
                if answer.status != "answered" or answer.response_ms is None:
                    raise RuntimeError(answer.reason)
                network.check(images, answer)
                if number >= 0 and answer.attempt == 1:
                    took_ms[replicas].append(answer.response_ms)
                    foreseen_ms[replicas].append(placers.predicted_ms)
                await asyncio.sleep(PAUSE_S)
        told = sensor.outcomes.cluster
        scores = [node.score for node in told.nodes] if told is not None else []
    gains = [alone / shared for alone, shared in zip(took_ms[ALONE], took_ms[SHARED], strict=False)]
    one, many = (statistics.median(times) for times in took_ms.values())
    one_foreseen, many_foreseen = (statistics.median(times) for times in foreseen_ms.values())
    low, high = np.quantile(gains, (0.25, 0.75))
    print(
        f"nodes with {', '.join(map(str, speeds))} of a core by {place.shares.mechanism}, scores "
        f"{', '.join(f'{score:.1f}' for score in scores)}; batch {arguments.batch}\n"
        f"  better one alone {one:.0f} ms (predicted {one_foreseen:.0f}), shared {many:.0f} ms "
        f"(predicted {many_foreseen:.0f}; last {', '.join(map(str, placers.shares))} images)\n"
        f"  gain {statistics.median(gains):.2f}, half of {len(gains)} rounds {low:.2f} to {high:.2f}",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=SHIPPED_STORE)
    parser.add_argument("--application", default="cifar100")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--warm-up", type=int, default=3, help="rounds before that are not counted")
    parser.add_argument(
        "--nodes", nargs="+", default=["0.1,0.1", "0.1,0.3"], help="shares of a core, with commas"
    )
    arguments = parser.parse_args()
    print(f"{arguments.application}, whole; every answer is compared with the network's")
    for pair in arguments.nodes:
        speeds = tuple(map(float, pair.split(",")))
        with (
            tempfile.TemporaryDirectory() as name,
            started_broker(Path(name) / "broker", kind=available_kind()) as broker,
            cpu_shares() as shares,
            Processes(Path(name)) as processes,
        ):
            place = Place(Path(name), arguments.store, broker, processes, shares)
            asyncio.run(measure(arguments, speeds, place))


if __name__ == "__main__":
    main()
