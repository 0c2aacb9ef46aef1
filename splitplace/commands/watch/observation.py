"""What the topics of a running system show: a small state that every message changes.

`Observation` is fed by `observe` from the broker, and shown by `splitplace.commands.watch.view`.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from splitplace.bus.settings import Settings
from splitplace.commands.shared.client import connected, may_not_read, read, subscribe
from splitplace.commands.shared.task_record import TaskMessage, TaskRecord
from splitplace.errors import UnreachableError
from splitplace.messages.application import Application
from splitplace.messages.base import Message
from splitplace.messages.cluster import (
    ClusterMembers,
    ClusterState,
    NodeInfo,
    NodeState,
    ServiceStatus,
    StageFailure,
)
from splitplace.messages.cluster_parts import ClusterAssembly
from splitplace.messages.metrics import (
    ClusterMetrics,
    GatewayMetrics,
    NodeMetrics,
    RefusalMetrics,
    TaskMetrics,
)
from splitplace.messages.task import TaskAccepted, TaskDecided, TaskFinished
from splitplace.messages.topics import (
    APPLICATION,
    CLUSTER_MEMBERS,
    CLUSTER_NODE,
    JOB_ACCEPTED,
    JOB_DECIDED,
    JOB_FINISHED,
    JOB_PLACED,
    METRICS_CLUSTER,
    METRICS_GATEWAY,
    METRICS_NODE,
    METRICS_REFUSALS,
    METRICS_TASKS,
    NODE_FAILURE,
    NODE_INFO,
    SERVICE_STATUS,
    Topic,
)

TOPICS: tuple[Topic[Any], ...] = (
    JOB_ACCEPTED,
    JOB_DECIDED,
    JOB_PLACED,
    JOB_FINISHED,
    CLUSTER_NODE,
    CLUSTER_MEMBERS,
    NODE_INFO,
    NODE_FAILURE,
    SERVICE_STATUS,
    APPLICATION,
    METRICS_TASKS,
    METRICS_GATEWAY,
    METRICS_REFUSALS,
    METRICS_NODE,
    METRICS_CLUSTER,
)

CLUSTER_STATE = "cluster/state"
"""Under this name the state of the cluster stands in logs; until 0.2 it was a topic."""

_REMEMBERED = 100_000
_RECORDS = 2_000
"""Tasks that are remembered with all that was said about them."""


@dataclass
class Observation:
    """Everything received that is worth showing."""

    services: dict[str, ServiceStatus] = field(default_factory=dict)
    infos: dict[str, NodeInfo] = field(default_factory=dict)
    nodes: dict[str, NodeState] = field(default_factory=dict)
    node_metrics: dict[str, NodeMetrics] = field(default_factory=dict)
    tasks: TaskMetrics | None = None
    gateway: GatewayMetrics | None = None
    cluster: ClusterMetrics | None = None
    accepted: dict[str, TaskAccepted] = field(default_factory=dict)
    """First acceptance of every task; at most 100,000."""
    finished: dict[str, TaskFinished] = field(default_factory=dict)
    decided: Counter[str] = field(default_factory=Counter)
    """Decisions for each variant, retries included."""
    examples: dict[str, TaskDecided] = field(default_factory=dict)
    """The first decision for each variant."""
    applications: dict[str, Application] = field(default_factory=dict)
    records: dict[str, TaskRecord] = field(default_factory=dict)
    """The last 2,000 tasks, oldest first."""
    refusals: dict[str, int] = field(default_factory=dict)
    """Tasks that were refused at intake since the gateway started, by reason."""

    @property
    def on_time(self) -> int:
        """Number of finished tasks that were answered on time."""
        return sum(task.on_time for task in self.finished.values())

    @property
    def hit_rate(self) -> float | None:
        """Share of finished tasks that were on time; None before the first."""
        return self.on_time / len(self.finished) if self.finished else None

    def apply(self, message: Message) -> None:
        """Update the observation with a message."""
        if isinstance(message, TaskMessage):
            self._apply_task(message)
        match message:
            case TaskAccepted() if len(self.accepted) < _REMEMBERED:
                self.accepted.setdefault(message.task, message)
            case TaskDecided():
                variant = message.variant or "refused"
                self.decided[variant] += 1
                self.examples.setdefault(variant, message)
            case TaskFinished() if len(self.finished) < _REMEMBERED:
                self.finished.setdefault(message.task, message)
            case TaskMetrics() | GatewayMetrics() | NodeMetrics() | ClusterMetrics() | RefusalMetrics():
                self._apply_metrics(message)
            case _:
                self._apply_parts(message)

    def _apply_parts(self, message: Message) -> None:
        match message:
            case ClusterState():
                self.nodes = {node.node: node for node in message.nodes}
            case NodeInfo():
                self.infos[message.node] = message
            case ServiceStatus():
                self.services[message.service] = message
            case Application():
                self.applications[message.name] = message
            case _:
                pass

    def _apply_metrics(
        self, message: TaskMetrics | GatewayMetrics | NodeMetrics | ClusterMetrics | RefusalMetrics
    ) -> None:
        match message:
            case TaskMetrics():
                self.tasks = message
            case GatewayMetrics():
                self.gateway = message
            case NodeMetrics():
                self.node_metrics[message.node] = message
            case ClusterMetrics():
                self.cluster = message
            case RefusalMetrics():
                self.refusals[message.reason] = message.count

    def _apply_task(self, message: TaskMessage) -> None:
        record = self.records.get(message.task)
        if record is None:
            if isinstance(message, StageFailure):
                return  # its application is not known
            record = self.records[message.task] = TaskRecord(message.task, message.application, 0.0)
            while len(self.records) > _RECORDS:
                del self.records[next(iter(self.records))]
        record.take(message)


async def observe(
    settings: Settings,
    observation: Observation,
    on_connect: Callable[[], Awaitable[None]] | None = None,
    on_message: Callable[[str, Message], None] | None = None,
) -> None:
    """Feed an observation until cancelled. Raises UnreachableError when the connection ends.

    Args:
        settings: where to listen.
        observation: is fed.
        on_connect: called once all topics are subscribed.
        on_message: called with the topic (without prefix) of every valid message, and the message. The
            parts of the cluster's state are put together first, as `cluster/state`.
    """
    assembly = ClusterAssembly()
    async with connected(settings, "watch") as client:
        denied = [topic.filter for topic in TOPICS if not await subscribe(client, settings, topic.filter)]
        if denied:
            raise UnreachableError(f"{may_not_read(settings, denied)}: watch as an operator or dashboard")
        if on_connect is not None:
            await on_connect()
        async for message in client.messages:
            name = message.topic.value.removeprefix(f"{settings.prefix}/")
            content = _content(name, message.payload)
            if isinstance(content, NodeState | ClusterMembers):
                name, content = CLUSTER_STATE, assembly.take(content)
            if content is not None:
                observation.apply(content)
                if on_message is not None:
                    on_message(name, content)


def _content(name: str, payload: bytes) -> Message | None:
    """Return a message of one of our topics; None for another topic or an invalid message."""
    for topic in TOPICS:
        content: Message | None = read(topic, name, payload)
        if content is not None:
            return content
    return None
