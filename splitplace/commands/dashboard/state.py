"""What the topics of a running system show, folded into a bounded model. Pure: each call names its time."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from splitplace.commands.dashboard.minutes import MINUTE_S, Minute
from splitplace.commands.shared.task_record import AttemptRecord, TaskMessage, TaskRecord
from splitplace.messages.application import Application
from splitplace.messages.base import Message
from splitplace.messages.cluster import (
    ClusterState,
    NodeInfo,
    NodeState,
    NodeStatus,
    ServiceStatus,
    StageFailure,
)
from splitplace.messages.cluster_parts import ClusterAssembly
from splitplace.messages.metrics import (
    ClusterMetrics,
    GatewayMetrics,
    LatestAnswer,
    NodeMetrics,
    RefusalMetrics,
    SensorMetrics,
    ServiceMetrics,
    TaskMetrics,
)
from splitplace.messages.names import OTHER_SENSORS, readable
from splitplace.messages.task import TaskAccepted, TaskDecided, TaskFinished, TaskPlaced
from splitplace.messages.topics import (
    METRICS_APPLICATION,
    METRICS_DECISION,
    METRICS_NODE,
    METRICS_REFUSALS,
    METRICS_SENSOR,
    NODE_INFO,
    NODE_STATUS,
    SERVICE_STATUS,
)

MessageT = TypeVar("MessageT", bound=Message)

MAX_TASKS = 600
MAX_SENSORS = 500
HOUR_MINUTES = 60
GONE_S = 600.0
"""How long a node that is gone stays, marked."""
_RECENT_S = 60.0
_MAX_RECENT = 6000
_RATIOS = 30


@dataclass(slots=True)
class NodeRecord:
    """A node: what it says of itself, and when it was last there."""

    status: NodeStatus | None = None
    info: NodeInfo | None = None
    state: NodeState | None = None
    metrics: NodeMetrics | None = None
    seen_s: float = 0.0
    """When it was last online."""
    work_ratios: deque[float] = field(default_factory=lambda: deque(maxlen=_RATIOS))
    """Computing time of its last stages over what the placer expected."""

    @property
    def online(self) -> bool:
        """Whether it says that it is online, and the resource monitor agrees."""
        said = self.status is not None and self.status.online
        return said and (self.state is None or self.state.online)


@dataclass(slots=True)
class SensorRecord:
    """What a sensor sent lately."""

    outcomes: Counter[str] = field(default_factory=Counter)
    application: str = ""
    last_outcome: str = ""
    seen_s: float = 0.0


@dataclass
class DashboardState:
    """Everything worth showing."""

    started_s: float
    connected: bool = False
    trouble: str = ""
    """Why there is no connection to the broker."""
    services: dict[str, ServiceStatus] = field(default_factory=dict)
    service_metrics: dict[str, tuple[ServiceMetrics, float]] = field(default_factory=dict)
    """With the time of the last that was no leftover."""
    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    assembly: ClusterAssembly = field(default_factory=ClusterAssembly)
    """What was told of the cluster."""
    applications: dict[str, Application] = field(default_factory=dict)
    tasks_metrics: TaskMetrics | None = None
    by_application: dict[str, TaskMetrics] = field(default_factory=dict)
    by_decision: dict[str, TaskMetrics] = field(default_factory=dict)
    gateway: GatewayMetrics | None = None
    cluster: ClusterMetrics | None = None
    refusals: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, TaskRecord] = field(default_factory=dict)
    """The last of them, oldest first."""
    sensors: dict[str, SensorRecord] = field(default_factory=dict)
    sensor_metrics: dict[str, SensorMetrics] = field(default_factory=dict)
    """What the gateway counts of each sensor."""
    latest: dict[str, LatestAnswer] = field(default_factory=dict)
    """The last answer to each sensor, where the broker lets this dashboard read it."""
    minutes: deque[Minute] = field(default_factory=lambda: deque(maxlen=HOUR_MINUTES))
    arrivals: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=_MAX_RECENT))
    """Time and sensor of the tasks that were accepted in the last minute."""
    turned_away: deque[tuple[float, str, int]] = field(default_factory=lambda: deque(maxlen=_MAX_RECENT))
    """Time, sensor and number of the tasks that were not, as the gateway counts them."""
    changes: int = 0
    ended: list[TaskRecord] = field(default_factory=list)
    """Tasks that ended since the history took the last ones."""
    on_end: Callable[[TaskRecord], None] = field(default=lambda _: None)
    """Called with each task that ends, once."""

    def apply(self, topic: str, message: Message, now_s: float, *, retained: bool = False) -> None:
        """Take in a message.

        Args:
            topic: where it came, without prefix.
            message: its content.
            now_s: seconds since 1970.
            retained: whether it is a leftover, which is no sign of life.
        """
        match message:
            case TaskAccepted() | TaskDecided() | TaskPlaced() | TaskFinished() | StageFailure():
                self._apply_task(message, now_s)
            case NodeStatus() | NodeInfo() | NodeMetrics():
                self._apply_node(message, now_s)
            case ClusterState():
                self._apply_cluster(message, now_s)
            case ServiceStatus():
                self.services[message.service] = message
            case ServiceMetrics():
                known = self.service_metrics.get(message.service, (message, 0.0))
                self.service_metrics[message.service] = (message, known[1] if retained else now_s)
            case Application():
                self.applications[message.name] = message
            case SensorMetrics():
                self._apply_sensor(message, now_s, retained=retained)
            case _:
                self._apply_metrics(topic, message)

    def clear(self, topic: str, now_s: float) -> None:
        """Forget what was retained on a topic. A node stays for a while, marked as gone."""
        for pattern in (NODE_STATUS, NODE_INFO, METRICS_NODE):
            if found := pattern.match(topic):
                record = self.nodes.get(found["node"])
                if record is not None and pattern is NODE_STATUS:
                    record.status = None
        if found := SERVICE_STATUS.match(topic):
            self.services.pop(found["service"], None)
        if found := METRICS_SENSOR.match(topic):
            self.sensor_metrics.pop(readable(found["sensor"]), None)
            self.latest.pop(readable(found["sensor"]), None)
        if topic.startswith("application/"):
            self.applications.pop(topic.partition("/")[2], None)
        self.forget(now_s)

    def forget(self, now_s: float) -> None:
        """Drop nodes that have been gone for long, and arrivals of more than a minute ago."""
        for name in [name for name, node in self.nodes.items() if not node.online]:
            if now_s - self.nodes[name].seen_s > GONE_S:
                del self.nodes[name]
        while self.arrivals and now_s - self.arrivals[0][0] > _RECENT_S:
            self.arrivals.popleft()
        while self.turned_away and now_s - self.turned_away[0][0] > _RECENT_S:
            self.turned_away.popleft()

    def sent_lately(self, now_s: float) -> Counter[str]:
        """Return the tasks that each sensor sent in the last minute, also those that were turned away."""
        self.forget(now_s)
        sent = Counter(sensor for _, sensor in self.arrivals)
        for _, sensor, count in self.turned_away:
            sent[sensor] += count
        return sent

    def lost(self, why: str) -> None:
        """Note that the broker is gone, and why."""
        self.connected, self.trouble = False, why

    def take_ended(self) -> Sequence[TaskRecord]:
        """Return the tasks that ended since the last call."""
        ended, self.ended = self.ended, []
        return ended

    def last_minutes(self, count: int, now_s: float) -> list[Minute]:
        """Return the minutes with ended tasks among the last ones."""
        first = int(now_s // MINUTE_S) - count + 1
        return [each for each in self.minutes if each.minute >= first]

    def _apply_task(self, message: TaskMessage, now_s: float) -> None:
        record = self.tasks.get(message.task)
        if record is None:
            if isinstance(message, StageFailure):
                return  # its application is not known
            record = self.tasks[message.task] = TaskRecord(message.task, message.application, now_s)
            self.arrivals.append((now_s, record.sensor))
            self.forget(now_s)
            while len(self.tasks) > MAX_TASKS:
                del self.tasks[next(iter(self.tasks))]
        self.changes += 1
        record.change = self.changes
        if record.take(message) and isinstance(message, TaskFinished):
            self._end(record, message, now_s)

    def _end(self, record: TaskRecord, end: TaskFinished, now_s: float) -> None:
        minute = int(now_s // MINUTE_S)
        if not self.minutes or self.minutes[-1].minute != minute:
            self.minutes.append(Minute(minute))
        self.minutes[-1].add(end)
        self.ended.append(record)
        self.on_end(record)
        del self.ended[:-MAX_TASKS]
        sensor = self.sensors.pop(record.sensor, None) or SensorRecord()
        self.sensors[record.sensor] = sensor  # the latest stands last
        sensor.outcomes[record.outcome] += 1
        sensor.application, sensor.last_outcome = record.application, record.outcome
        sensor.seen_s = now_s
        while len(self.sensors) > MAX_SENSORS:
            del self.sensors[next(iter(self.sensors))]
        placed = record.attempts.get(end.attempt, AttemptRecord()).placed
        expected = {(each.stage, each.node): each.work_ms for each in placed.stages} if placed else {}
        for report in end.stages:
            work_ms = expected.get((report.stage, report.node))
            if work_ms and report.node in self.nodes:
                self.nodes[report.node].work_ratios.append(report.compute_ms / work_ms)

    def _apply_node(self, message: NodeStatus | NodeInfo | NodeMetrics, now_s: float) -> None:
        record = self.nodes.setdefault(message.node, NodeRecord(seen_s=now_s))
        match message:
            case NodeStatus():
                record.status = message
            case NodeInfo():
                record.info = message
            case NodeMetrics():
                record.metrics = message
        if record.online:
            record.seen_s = now_s

    def _apply_cluster(self, message: ClusterState, now_s: float) -> None:
        for state in message.nodes:
            record = self.nodes.setdefault(state.node, NodeRecord(seen_s=now_s))
            record.state = state
            if record.online:
                record.seen_s = now_s
        self.forget(now_s)

    def _apply_sensor(self, message: SensorMetrics, now_s: float, *, retained: bool) -> None:
        if message.sensor == OTHER_SENSORS:
            return
        sensor = readable(message.sensor)
        before = self.sensor_metrics.get(sensor)
        self._keep(self.sensor_metrics, sensor, message)
        more = message.turned_away - (before.turned_away if before else 0)
        if more > 0 and not retained and sensor in self.sensor_metrics:
            self.turned_away.append((now_s, sensor, more))

    def _apply_metrics(self, topic: str, message: Message) -> None:
        match message:
            case TaskMetrics():
                if found := METRICS_APPLICATION.match(topic):
                    self.by_application[found["application"]] = message
                elif found := METRICS_DECISION.match(topic):
                    self.by_decision[found["variant"]] = message
                else:
                    self.tasks_metrics = message
            case GatewayMetrics():
                self.gateway = message
            case ClusterMetrics():
                self.cluster = message
            case LatestAnswer() if topic.startswith("latest/sensor/"):
                self._keep(self.latest, readable(message.sensor), message)
            case RefusalMetrics() if METRICS_REFUSALS.match(topic):
                self.refusals[message.reason] = message.count
            case _:
                pass

    def _keep(self, kept: dict[str, MessageT], sensor: str, message: MessageT) -> None:
        if sensor in kept or len(kept) < MAX_SENSORS:
            kept[sensor] = message
