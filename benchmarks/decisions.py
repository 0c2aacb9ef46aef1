"""Measure the time of decisions: `python -m benchmarks.decisions`. Pure Python, no broker.

One placement of five stages and eight micro-batches, one whole decision of the splitter (every variant of an
application predicted, one chosen), and the life of a one-image task in splitter and placer by the default
policy, which has learnt from hundreds of others, for clusters of several sizes.
"""

import argparse
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np

from splitplace.messages.application import INPUT, Application, Stage
from splitplace.messages.cluster import ClusterState, NodeState
from splitplace.messages.task import TaskAccepted, TaskDecided, TaskFinished
from splitplace.policies.cluster import ClusterView
from splitplace.policies.placement import PlacementPolicy, PlacementRequest, place
from splitplace.policies.placement.earliest_finish import EarliestFinish
from splitplace.policies.placement.random_placement import RandomPlacement
from splitplace.policies.prediction import Job
from splitplace.policies.splitting.expected_reward import ExpectedReward
from splitplace.policies.splitting.rule import Rule
from splitplace.services.placer.core import PlacerCore
from splitplace.services.splitter.core import SplitterCore
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE

STAGES = 5
MICRO_BATCHES = 8
REPEATS = 200
LEARNT = 600
"""Tasks before the life of one is measured: learners are full then."""
UNDER_WAY = 16


def cluster(application: Application, nodes: int, broker: float | None = None) -> ClusterState:
    """Make a cluster of idle nodes of three speeds that hold every fragment; `broker` in MB/s."""
    loaded = tuple(fragment.sha256 for fragment in application.fragments)
    return ClusterState(
        sequence=1,
        broker_megabytes_per_second=broker,
        nodes=tuple(
            NodeState(
                node=f"n{index}",
                boot="0" * 16,
                online=True,
                silent_ms=0.0,
                score=application.reference_score / (2 + index % 3),
                memory_budget_bytes=1 << 30,
                loaded=loaded,
                queue_ms=0.0,
                queue_length=0,
                cpu_ratio=0.0,
                link_megabytes_per_second=100.0,
                timings=(),
            )
            for index in range(nodes)
        ),
    )


def star_of_five(application: Application) -> Job:
    """Make a job of five parallel stages that all run the first branch's fragment."""
    variant = application.variant("semantic")
    fragment = variant.stages[0].fragment
    stages = tuple(Stage(name=f"s{index}", fragment=fragment, source=INPUT) for index in range(STAGES))
    five = variant.model_copy(update={"stages": stages})
    return Job(application, five, MICRO_BATCHES * variant.micro_batch)


def times_ms(action: Callable[[int], object]) -> tuple[float, float]:
    """Return median and 99th percentile of many calls."""
    times = []
    for number in range(REPEATS):
        began = time.perf_counter()
        action(number)
        times.append(1e3 * (time.perf_counter() - began))
    return float(np.median(times)), float(np.quantile(times, 0.99))


def measure(application: Application, nodes: int, broker: float | None) -> None:
    """Measure one cluster size and print its lines."""
    snapshot = cluster(application, nodes, broker)
    view = ClusterView()
    view.apply(snapshot, 0.0)
    job = star_of_five(application)
    policies: tuple[PlacementPolicy, ...] = (EarliestFinish(), RandomPlacement(Random(0)))
    for policy in policies:
        request = PlacementRequest(task="a.b", job=job, start_ms=5.0, due_ms=1000.0)

        def one(_: int, policy: PlacementPolicy = policy, request: PlacementRequest = request) -> object:
            return place(policy, request, view, 0.0)

        middle, worst = times_ms(one)
        print(f"{nodes:4} nodes: {policy.name} of {STAGES} stages: p50 {middle:6.2f} ms, p99 {worst:6.2f} ms")

    splitter = SplitterCore(Rule(), EarliestFinish())
    splitter.add_applications((application,))
    splitter.cluster(snapshot, 0.0)

    def decide(number: int) -> object:
        task = TaskAccepted(
            task=f"benchmark.t{number}",
            attempt=1,
            application=application.name,
            batch=16,
            input_bytes=16 * application.input.bytes_per_image,
            deadline_ms=1000.0,
            slack_ms=1000.0,
        )
        return splitter.accepted(task, 1000.0 * number)

    middle, worst = times_ms(decide)
    count = len(application.variants)
    print(f"{nodes:4} nodes: decision among {count} variants: p50 {middle:6.2f} ms, p99 {worst:6.2f} ms")


def measure_life(application: Application, nodes: int, broker: float | None) -> None:
    """Measure what splitter and placer do for a task, from its acceptance to its end, and print it."""
    splitter, placer = SplitterCore(ExpectedReward(Random(0)), EarliestFinish()), PlacerCore(EarliestFinish())
    splitter.add_applications((application,))
    placer.add_application(application)
    snapshot = cluster(application, nodes, broker)
    splitter.cluster(snapshot, 0.0)
    placer.cluster(snapshot, 0.0)
    random, under_way = Random(1), deque[TaskDecided]()

    def one(number: int) -> None:
        now_ms = 8.0 * number
        accepted = TaskAccepted(
            task=f"benchmark.t{number}",
            attempt=1,
            application=application.name,
            batch=1,
            input_bytes=application.input.bytes_per_image,
            deadline_ms=1000.0,
            slack_ms=1000.0,
        )
        for decided in splitter.accepted(accepted, now_ms):
            placing = placer.place(decided, now_ms)
            if placing is not None:
                splitter.placed(placing.placed, now_ms)
            under_way.append(decided)
        if len(under_way) > UNDER_WAY:
            ended = under_way.popleft()
            finished = TaskFinished(
                task=ended.task,
                attempt=1,
                application=application.name,
                batch=1,
                status="answered",
                reason="",
                variant=ended.variant,
                deadline_ms=1000.0,
                response_ms=random.uniform(0.5, 2.0) * (ended.predicted_ms or 1.0),
                predicted_ms=ended.predicted_ms,
                on_time=True,
                accuracy=None,
                variant_accuracy=None,
            )
            splitter.finished(finished, now_ms)
            placer.finished(finished, now_ms)

    for number in range(LEARNT):
        one(number)
    middle, worst = times_ms(lambda number: one(LEARNT + number))
    print(f"{nodes:4} nodes: all for a one-image task: p50 {middle:6.2f} ms, p99 {worst:6.2f} ms")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=SHIPPED_STORE)
    parser.add_argument("--application", default="mnist")
    parser.add_argument("--nodes", type=int, nargs="+", default=[6, 50])
    parser.add_argument("--broker", type=float, help="bandwidth of its link in MB/s, where that is known")
    arguments = parser.parse_args()
    application = ModelStore(arguments.store).application(arguments.application)
    for nodes in arguments.nodes:
        measure(application, nodes, arguments.broker)
        measure_life(application, nodes, arguments.broker)


if __name__ == "__main__":
    main()
