"""A made-up system of a hundred nodes at fifty tasks a second: messages without work, faults on request."""

import asyncio
import threading
from typing import Any, Literal

from splitplace.bus.connection import Bus
from splitplace.bus.service import software_version
from splitplace.bus.settings import Settings
from splitplace.messages.cluster import ClusterState, NodeState, NodeStatus, ServiceStatus
from splitplace.messages.metrics import ServiceMetrics
from splitplace.messages.placing import StagePlacement
from splitplace.messages.task import StageReport, VariantEstimate
from splitplace.messages.topics import (
    JOB_ACCEPTED,
    JOB_DECIDED,
    JOB_FINISHED,
    JOB_PLACED,
    METRICS_SERVICE,
    NODE_STATUS,
    SERVICE_STATUS,
    SERVICES,
)
from tests.support.cluster_parts import publish_cluster
from tests.support.messages import accepted, decided, finished, placed

NODES = 100
TASKS_PER_SECOND = 50
BOOT = "a" * 16
FAULTY = "node-007"
FLOODER = "flooder"
WORK_MS = 20.0
_SLOWNESS = 4

Fault = Literal["none", "slow node", "slow link", "flooding sensor"]


def node(number: int, queue: int, fault: Fault = "none") -> NodeState:
    """Return a made-up node."""
    name = f"node-{number:03}"
    return NodeState(
        node=name,
        boot=BOOT,
        online=True,
        silent_ms=10,
        score=10,
        memory_budget_bytes=10**8,
        loaded=(f"{number:064x}",),
        queue_ms=queue,
        queue_length=queue,
        cpu_ratio=0.5,
        link_megabytes_per_second=0.5 if (name, fault) == (FAULTY, "slow link") else 10,
        timings=(),
    )


class BusySystem:
    """Publishes a busy system from a thread of its own until stopped."""

    def __init__(self, url: str) -> None:
        self._settings = Settings(broker=url)
        self._ends = threading.Event()
        self.is_busy = threading.Event()
        self.fault: Fault = "none"
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def start(self) -> None:
        """Announce the nodes; tasks flow while `is_busy`."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._ends.set()
        self._thread.join()

    async def _run(self) -> None:
        bus, number = Bus(self._settings, "load"), 0
        async with bus:
            await bus.connected()
            for service in SERVICES:
                status = ServiceStatus(service=service, boot=BOOT, online=True, software=software_version())
                await bus.publish(SERVICE_STATUS, status)
            for each in range(NODES):
                name = f"node-{each:03}"
                await bus.publish(NODE_STATUS, NodeStatus(node=name, boot=BOOT, online=True), node=name)
            while not self._ends.is_set():
                for service in SERVICES:
                    counts = dict.fromkeys(("received", "rejected", "overflowed", "reconnects", "refused"), 0)
                    heartbeat = ServiceMetrics.model_validate({"service": service, **counts})
                    await bus.publish(METRICS_SERVICE, heartbeat)
                nodes = tuple(node(each, number % 7, self.fault) for each in range(NODES))
                await publish_cluster(bus, ClusterState(sequence=number, nodes=nodes))
                for _ in range(TASKS_PER_SECOND if self.is_busy.is_set() else 0):
                    await self._task(bus, number)
                    number += 1
                    await asyncio.sleep(0.8 / TASKS_PER_SECOND)
                await asyncio.sleep(0.1 if self.is_busy.is_set() else 1)

    async def _task(self, bus: Bus, number: int) -> None:
        floods = self.fault == "flooding sensor" and number % 5
        sensor = FLOODER if floods else f"camera-{number % 20}"
        at = FAULTY if self.fault == "slow node" and number % 3 == 0 else f"node-{number % 20:03}"
        shared: dict[str, Any] = {"task": f"{sensor}.t{number}.0000abcd", "batch": 1}
        chosen: dict[str, Any] = {"variant": "v1", "predicted_ms": 90, "promised": 0.9}
        slack: dict[str, Any] = {"deadline_ms": 500, "slack_ms": 500}
        estimates = tuple(
            VariantEstimate(
                variant=f"v{each}", kind="whole", accuracy=0.9, predicted_ms=90, note="on node-001"
            )
            for each in range(6)
        )
        slowness = _SLOWNESS if (at, self.fault) == (FAULTY, "slow node") else 1
        stages = (StageReport(stage="a", node=at, queue_ms=1, compute_ms=slowness * WORK_MS),)
        planned = (StagePlacement(stage="a", node=at, work_ms=WORK_MS),)
        reason = "the most accurate in time"
        await bus.publish(JOB_ACCEPTED, accepted(**shared, **slack))
        await bus.publish(
            JOB_DECIDED, decided(**shared, **slack, **chosen, reason=reason, alternatives=estimates)
        )
        await bus.publish(JOB_PLACED, placed(**shared, variant="v1", stages=planned, predicted_ms=90))
        end = finished(
            **shared,
            **chosen,
            reason="in time",
            nodes=(at, "node-002"),
            deadline_ms=500,
            response_ms=80 + number % 50 + (600 if floods else 0),
            after_decision_ms=78 + number % 50,
            on_time=not floods,
            stages=stages,
        )
        await bus.publish(JOB_FINISHED, end)
