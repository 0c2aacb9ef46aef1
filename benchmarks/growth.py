"""Measure what services hold with many nodes and tasks: `python -m benchmarks.growth`.

Pure Python, no broker. The core of each service handles tasks from beginning to end, so that all that it
remembers of tasks is full, and then learns of many nodes. Printed is the size of everything that it refers
to, and the CPU time of a decision and of a placement with all those nodes. Libraries, connections and the
journal, which stands on disk, are left out.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.decisions import cluster
from splitplace.messages.application import Application
from splitplace.messages.cluster import ClusterState
from splitplace.messages.task import ClassScore, StageReport, TaskAccepted, TaskDecided, TaskResult
from splitplace.policies.placement import placement_policy
from splitplace.policies.splitting import split_policy
from splitplace.services.gateway.core import GatewayCore
from splitplace.services.gateway.task import NewTask, RetryRules
from splitplace.services.placer.core import PlacerCore
from splitplace.services.resource_monitor.core import ResourceMonitorCore
from splitplace.services.result_aggregator.core import ResultAggregatorCore
from splitplace.services.result_aggregator.metrics import Scoreboard
from splitplace.services.splitter.core import SplitterCore
from splitplace.storage.model_store import ModelStore
from splitplace.storage.paths import SHIPPED_STORE
from tests.support.held import held_bytes
from tests.support.messages import finished_after, node_info, node_status, node_vitals

FEW_NODES = 3
PERIOD_MS = 20.0
"""Fifty tasks a second."""
SNAPSHOT_EVERY = 25
TIMED = 30
MEGABYTE = 1e6


class Services:
    """The cores of all services, which tell each other of tasks."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._few = cluster(application, FEW_NODES)
        self.gateway = GatewayCore(
            RetryRules(grace_ms=500.0, max_attempts=4, stall_ms=2000.0), {application.name: application}
        )
        self.splitter = SplitterCore(
            split_policy("expected-reward", seed=1), placement_policy("earliest-finish")
        )
        self.placer = PlacerCore(placement_policy("earliest-finish"))
        self.monitor = ResourceMonitorCore()
        self.aggregator = ResultAggregatorCore()
        self.scoreboard = Scoreboard()
        self.splitter.add_applications([application])
        self.placer.add_application(application)
        self.monitor.add_application(application)
        self.aggregator.add_application(application, 0.0)
        self.scoreboard.add_application(application)

    @property
    def parts(self) -> Mapping[str, object]:
        """What is measured, by service."""
        return {
            "gateway": self.gateway,
            "splitter": self.splitter,
            "placer": self.placer,
            "resource monitor": self.monitor,
            "result aggregator": (self.aggregator, self.scoreboard),
        }

    def decide(self, number: int, now_ms: float) -> TaskDecided:
        """Accept and decide a task of one input from one of seven sensors."""
        key = f"camera-{number % 7}.{number}.{number:08x}"
        size = self._application.input.bytes_per_image
        self.gateway.accept(NewTask(key, self._application.name, 1, size, 1000.0, now_ms), now_ms)
        accepted = TaskAccepted(
            task=key,
            attempt=1,
            application=self._application.name,
            batch=1,
            input_bytes=size,
            deadline_ms=1000.0,
            slack_ms=1000.0,
            grace_ms=500.0,
        )
        (decided,) = self.splitter.accepted(accepted, now_ms)
        self.gateway.decided(decided, now_ms)
        return decided

    def handle(self, number: int) -> None:
        """Let a task run to its end."""
        now_ms = PERIOD_MS * number
        if number % SNAPSHOT_EVERY == 0:
            self.know(self._few, now_ms)
        decided = self.decide(number, now_ms)
        placing = self.placer.place(decided, now_ms)
        if placing is None:
            raise SystemExit(f"not placed: {decided.reason}")
        placed = placing.placed
        self.splitter.placed(placed, now_ms)
        self.monitor.placed(placed, now_ms)
        self.aggregator.place(placed, now_ms)
        self.gateway.placed(placed, now_ms)
        end_ms = now_ms + 10.0
        reports = tuple(
            StageReport(stage=stage.stage, node=stage.node, queue_ms=0.0, compute_ms=stage.work_ms)
            for stage in placed.stages
        )
        finished = finished_after(decided, 10.0, stages=reports)
        self.splitter.finished(finished, end_ms)
        self.placer.finished(finished, end_ms)
        self.monitor.finished(finished, end_ms)
        self.aggregator.finish(finished.task, 1, end_ms)
        self.aggregator.expire(end_ms)
        self.scoreboard.count(finished)
        self.gateway.result(self._result(decided), end_ms)

    def _result(self, decided: TaskDecided) -> TaskResult:
        return TaskResult(
            task=decided.task,
            attempt=1,
            application=decided.application,
            variant=decided.variant or "",
            scores=(ClassScore(index=7, confidence=1.0),),
            stages=(),
            micro_batches=1,
            moved_bytes=0,
        )

    def know(self, state: ClusterState, now_ms: float) -> None:
        """Tell the deciders and the gateway of the cluster."""
        self.splitter.cluster(state, now_ms)
        self.placer.cluster(state, now_ms)
        self.gateway.nodes_online({node.node: node.boot for node in state.nodes}, now_ms)

    def grow(self, nodes: int, now_ms: float) -> None:
        """Tell all services of many nodes; the monitor hears of each from the node itself."""
        state = cluster(self._application, nodes)
        for node in state.nodes:
            self.monitor.status(node_status(node.node, node.boot), now_ms)
            self.monitor.info(node_info(node.node, node.boot, loaded=node.loaded), now_ms)
            self.monitor.vitals(node_vitals(node.node, node.boot), now_ms)
        self.know(state, now_ms)


def middle_ms(action: Callable[[int], object]) -> float:
    """Return the median CPU time of some calls."""
    times = []
    for number in range(TIMED):
        began_s = time.thread_time()
        action(number)
        times.append(1e3 * (time.thread_time() - began_s))
    return statistics.median(times)


def report(services: Services, when: str) -> None:
    """Print what each service holds."""
    sizes = {name: held_bytes(part) / MEGABYTE for name, part in services.parts.items()}
    print(f"{when}: " + ", ".join(f"{name} {size:.1f} MB" for name, size in sizes.items()), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--store", type=Path, default=SHIPPED_STORE)
    parser.add_argument("--application", default="mnist")
    arguments = parser.parse_args()
    services = Services(ModelStore(arguments.store).application(arguments.application))
    report(services, "at first")
    for number in range(arguments.tasks):
        services.handle(number)
    report(services, f"after {arguments.tasks} tasks on {FEW_NODES} nodes")
    now_ms = PERIOD_MS * arguments.tasks
    services.grow(arguments.nodes, now_ms)
    report(services, f"with {arguments.nodes} nodes")
    decisions: list[TaskDecided] = []
    deciding_ms = middle_ms(
        lambda number: decisions.append(services.decide(arguments.tasks + number, now_ms + number))
    )
    placing_ms = middle_ms(lambda number: services.placer.place(decisions[number], now_ms + number))
    print(f"with {arguments.nodes} nodes: CPU of a decision {deciding_ms:.1f} ms, placed {placing_ms:.1f} ms")


if __name__ == "__main__":
    main()
