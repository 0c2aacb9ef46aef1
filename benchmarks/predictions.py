"""Compare predicted with actual times of real tasks: `python -m benchmarks.predictions`.

A broker, all services and some nodes run as real processes. The ratio is the time from the decision to the
answer over what the splitter had predicted; 1 means that predictions are right.

By default, nodes of different CPU quotas run tasks of all sizes at random moments, each as a random variant.
With `--megabits 1 10 100`, one node stands behind a link of each speed (network namespaces and `tc` where
that is allowed, else a proxy), and runs large tasks one after the other.
"""

import argparse
import asyncio
import contextlib
import json
import math
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from benchmarks.shaping import shaped_link
from splitplace.bus.cluster import subscribe_cluster
from splitplace.bus.connection import Bus, RawReceived, Received
from splitplace.bus.settings import Settings
from splitplace.commands.processes.broker import Broker, available_kind, started_broker
from splitplace.commands.processes.children import Processes
from splitplace.commands.processes.cpu_shares import cpu_shares
from splitplace.messages import topics
from splitplace.messages.application import Application
from splitplace.messages.cluster import ClusterState
from splitplace.messages.second_run import SecondRun
from splitplace.messages.task import Answer, TaskFinished, TaskPlaced
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE
from tests.edge_node.wide_application import build_wide_application

SHARES = {"large": 0.5, "middle": 0.3, "small": 0.15}
"""Nodes of the mixed load, and their shares of a core."""
DEADLINE_MS = 60_000.0
START_S = 120.0
NEAR = 0.4
IMAGES_PER_MEGABIT = 0.4
"""Largest batch over a link: an image has 400 KB."""
MOST_IMAGES = 16
FEW, MANY = 4, 16
"""Batches of the table's lines begin here."""
VITALS_S = 1.5
"""Time in which a node tells what it has measured."""
GONE_S = 4.0
"""Time in which a node that ended is known to be offline."""
CLIENT = "benchmark"


@dataclass(slots=True)
class Outcomes:
    """What became known of the tasks."""

    finished: dict[str, TaskFinished] = field(default_factory=dict)
    placed: dict[str, TaskPlaced] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    """Tasks that were under way when one was placed."""
    again: set[str] = field(default_factory=set)
    """Tasks that ran a second time elsewhere."""
    answers: dict[str, asyncio.Future[Answer]] = field(default_factory=dict)
    cluster: ClusterState | None = None


class Sensor:
    """Sends tasks and hears how they end."""

    def __init__(self, settings: Settings) -> None:
        self.bus = Bus(settings, f"{CLIENT}-sensor")
        self.outcomes = Outcomes()
        self.bus.subscribe_raw(topics.ANSWER, self._on_answer, client=CLIENT)
        self.bus.subscribe(topics.JOB_FINISHED, self._on_finished)
        self.bus.subscribe(topics.JOB_PLACED, self._on_placed)
        self.bus.subscribe(topics.JOB_SECOND_RUN, self._on_second_run)
        subscribe_cluster(self.bus, self._on_cluster)

    async def _on_answer(self, raw: RawReceived) -> None:
        answer = Answer.model_validate_json(raw.payload)
        waiting = self.outcomes.answers.get(answer.task)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    async def _on_finished(self, received: Received[TaskFinished]) -> None:
        self.outcomes.finished[received.message.task] = received.message

    async def _on_placed(self, received: Received[TaskPlaced]) -> None:
        key, known = received.message.task, self.outcomes
        known.others[key] = sum(other not in known.finished for other in known.placed)
        known.placed[key] = received.message

    async def _on_second_run(self, received: Received[SecondRun]) -> None:
        self.outcomes.again.add(received.message.task)

    def _on_cluster(self, state: ClusterState) -> None:
        self.outcomes.cluster = state

    async def until_ready(self, nodes: int, fragments: int) -> None:
        """Wait until the nodes are online and have loaded this many fragments each."""
        async with asyncio.timeout(START_S * 5):
            while True:
                known = self.outcomes.cluster.nodes if self.outcomes.cluster else ()
                ready = [node for node in known if node.online and len(node.loaded) >= fragments]
                if len(ready) >= nodes:
                    return
                await asyncio.sleep(0.1)

    async def ask(self, application: Application, name: str, images: NDArray[Any]) -> Answer:
        """Send a task and return its answer."""
        waiting = self.outcomes.answers[name] = asyncio.get_running_loop().create_future()
        body = bytes(msgpack.packb({"inputs": images.tobytes(), "deadline_ms": DEADLINE_MS}))
        topic = topics.TASK_NAMED.at(application=application.name, client=CLIENT, task=name)
        await self.bus.publish_raw(topic, body)
        return await asyncio.wait_for(waiting, DEADLINE_MS / 1000 + 10)


def inputs(application: Application, batch: int, seed: int) -> NDArray[Any]:
    """Return random images."""
    shape, random_ = (batch, *application.input.shape), np.random.default_rng(seed)
    if application.input.dtype == "float32":
        return random_.standard_normal(shape, dtype=np.float32)
    return random_.integers(0, 256, shape, dtype=np.uint8)


@contextlib.asynccontextmanager
async def system(
    folder: Path, broker: Broker, processes: Processes, options: Mapping[str, Sequence[str]]
) -> AsyncIterator[Sensor]:
    """Start all services, and a sensor that is connected."""
    state = ("--state-dir", str(folder / "state"), "--broker", broker.url)
    for service in topics.SERVICES:
        module = f"splitplace.services.{service.replace('-', '_')}"
        processes.start(service, [sys.executable, "-m", module, *state, *options.get(service, ())])
    sensor = Sensor(Settings(broker=broker.url))
    async with sensor.bus:
        await sensor.bus.connected()
        yield sensor


def node_command(name: str, url: str, folder: Path, *more: str) -> list[str]:
    """Return the command of a node."""
    where = ("--node", name, "--broker", url, "--fragment-dir", str(folder / name))
    return [sys.executable, "-m", "splitplace.edge_node", *where, *more]


async def mixed(arguments: argparse.Namespace, folder: Path, broker: Broker, processes: Processes) -> None:
    """Run the mixed load and print its table."""
    applications = [
        found for found in ModelStore(arguments.store).applications() if found.name in arguments.applications
    ]
    options = {
        topics.SPLITTER: ("--policy", arguments.policy, "--store", str(arguments.store), "--arms", "all"),
    }
    random_ = random.Random(arguments.seed)
    with cpu_shares() as shares:
        if arguments.prefer:
            shares.prefer()
        async with system(folder, broker, processes, options) as sensor:
            for name, share in SHARES.items():
                pacing = ("--pacing",) if shares.mechanism == "pacing" else ()
                command = node_command(name, broker.url, folder, "--cpu-share", str(share), "--cores", "1")
                child = processes.start(name, [*command, *pacing])
                if child.pid is not None:
                    shares.limit(name, child.pid, share)
            await sensor.until_ready(len(SHARES), sum(len(each.fragments) for each in applications))
            print(f"{len(SHARES)} nodes with {', '.join(map(str, SHARES.values()))} of a core, ", end="")
            print(f"by {shares.mechanism}; {arguments.rate} tasks a second", flush=True)
            asking = []
            for number in range(arguments.warm_up + arguments.tasks):
                application = random_.choice(applications)
                batch = round(math.exp(random_.uniform(0, math.log(arguments.batch_max))))
                asking.append(
                    asyncio.create_task(
                        sensor.ask(application, f"t{number:05}", inputs(application, batch, number))
                    )
                )
                await asyncio.sleep(random_.expovariate(arguments.rate))
            await asyncio.gather(*asking)
            await asyncio.sleep(1.0)
            ended = sorted(sensor.outcomes.finished.items())
            counted = [task for _, task in ended[arguments.warm_up :]]
            report(counted, sensor.outcomes)
            if arguments.details is not None:
                lines = [details(task, sensor.outcomes) for task in counted]
                arguments.details.write_text("\n".join(map(json.dumps, lines)) + "\n")


def details(task: TaskFinished, outcomes: Outcomes) -> dict[str, Any]:
    """Return what became known of a task."""
    placed = outcomes.placed.get(task.task)
    return {
        "finished": task.model_dump(mode="json"),
        "placed": placed.model_dump(mode="json") if placed else None,
        "others": outcomes.others.get(task.task),
        "again": task.task in outcomes.again,
    }


def traits(task: TaskFinished, outcomes: Outcomes) -> Iterator[str]:
    """Yield what a task has in common with others: a line of the table for each."""
    yield f"variant {task.variant}"
    yield f"batch {'1 to 3' if task.batch < FEW else '4 to 15' if task.batch < MANY else '16 to 64'}"
    placed, others = outcomes.placed.get(task.task), outcomes.others.get(task.task, 0)
    yield f"others under way {'0' if not others else '1' if others == 1 else '2 and more'}"
    if placed is not None:
        kind = "replicas" if any(stage.micro_batches for stage in placed.stages) else ""
        nodes = placed.nodes
        yield f"nodes {nodes[0] if len(nodes) == 1 else 'several'}{', replicas' if kind else ''}"
    if task.task in outcomes.again:
        yield "ran a second time"
    if task.attempt > 1:
        yield "later attempts"
    yield "all"


def report(tasks: Iterable[TaskFinished], outcomes: Outcomes) -> None:
    """Print a line for each trait, and one for all."""
    ratios: dict[str, list[float]] = defaultdict(list)
    for task in tasks:
        if task.predicted_ratio is not None:
            for row in traits(task, outcomes):
                ratios[row].append(task.predicted_ratio)
    print(f"{'':>28}{'tasks':>7}{'median':>8}{'5 %':>7}{'95 %':>7}{'within 40 %':>13}")
    for row in sorted(ratios, key=lambda name: (name == "all", name)):
        found = np.array(ratios[row])
        near = float(np.mean(np.abs(found - 1) <= NEAR))
        low, median, high = np.quantile(found, (0.05, 0.5, 0.95))
        print(f"{row:>28}{len(found):7}{median:8.2f}{low:7.2f}{high:7.2f}{100 * near:11.0f} %", flush=True)


async def over_links(
    arguments: argparse.Namespace, folder: Path, broker: Broker, processes: Processes
) -> None:
    """Run a chain of two stages that hardly compute over links of several speeds; print a line for each."""
    application = build_wide_application(folder / "wide")
    options = {
        topics.SPLITTER: ("--policy", application.variants[0].name, "--store", str(folder / "wide")),
        topics.PLACER: ("--no-warm-up",),
    }
    near = Settings(broker=broker.url)
    async with system(folder, broker, processes, options) as sensor:
        print(f"{'Mbit/s':>8}{'down':>8}{'up':>8}{'attempt':>9}{'tasks':>7}{'median':>8}{'worst':>7}")
        for number, megabits in enumerate(arguments.megabits):
            name = f"node-{number}"
            async with shaped_link(near.port, near.host, megabits, number=number) as link:
                child = processes.start(name, [*link.prefix, *node_command(name, link.url, folder)])
                await sensor.until_ready(1, 0)
                first = 0
                for task in range(arguments.link_warm_up + arguments.link_tasks):
                    images = random.Random(task).uniform(0.3, 1) * IMAGES_PER_MEGABIT * megabits
                    batch = min(MOST_IMAGES, max(1, round(images)))
                    answer = await sensor.ask(
                        application, f"l{number}-{task:04}", inputs(application, batch, task)
                    )
                    first = first or answer.attempt or 0
                    await asyncio.sleep(VITALS_S)
                ended = sorted(sensor.outcomes.finished.items())
                found = [task.predicted_ratio for key, task in ended if f".l{number}-" in key]
                ratios = [ratio for ratio in found[arguments.link_warm_up :] if ratio is not None]
                state = sensor.outcomes.cluster
                nodes = [node for node in state.nodes if node.node == name] if state else []
                down, up = (8 * nodes[0].link_megabytes_per_second, 8 * nodes[0].up) if nodes else (0.0, 0.0)
                worst = max(ratios, key=lambda ratio: abs(math.log(ratio)), default=math.nan)
                print(
                    f"{megabits:8.0f}{down:8.2f}{up:8.2f}{first:9}{len(ratios):7}"
                    f"{float(np.median(ratios)):8.2f}{worst:7.2f}   {link.how}",
                    flush=True,
                )
                child.end(deadline=2.0)
            await asyncio.sleep(GONE_S)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", type=Path, default=SHIPPED_STORE)
    parser.add_argument("--applications", nargs="+", default=["mnist", "cifar100"])
    parser.add_argument("--policy", default="random", help="split policy of the mixed load")
    parser.add_argument("--tasks", type=int, default=150, help="tasks of the mixed load")
    parser.add_argument("--warm-up", type=int, default=40, help="tasks before that are not counted")
    parser.add_argument("--rate", type=float, default=1.0, help="tasks a second")
    parser.add_argument("--batch-max", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--prefer", action="store_true", help="nodes get their shares before other work (as root)"
    )
    parser.add_argument("--details", type=Path, help="write a line of JSON for each task of the mixed load")
    parser.add_argument("--link-tasks", type=int, default=8, help="tasks for each link")
    parser.add_argument("--link-warm-up", type=int, default=3, help="tasks before that are not counted")
    parser.add_argument("--megabits", type=float, nargs="+", default=[], help="links to measure instead")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        started_broker(Path(name) / "broker", kind=available_kind()) as broker,
        Processes(Path(name) / "logs") as processes,
    ):
        run = over_links if arguments.megabits else mixed
        asyncio.run(run(arguments, Path(name), broker, processes))


if __name__ == "__main__":
    main()
