"""The one table of topics: each is bound to its message type, direction, quality of service and size.

Patterns stand below the configurable prefix (`splitplace/v1`). `{name}` is one level of the topic.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Literal, TypeVar

from splitplace.messages import limits
from splitplace.messages.application import Application
from splitplace.messages.base import Message
from splitplace.messages.cluster import (
    CancelTask,
    ClusterState,
    FragmentMissing,
    FragmentRequest,
    NodeInfo,
    NodeStatus,
    NodeVitals,
    PrepareFragments,
    ServiceStatus,
    StageFailure,
)
from splitplace.messages.frames import FragmentHeader, TensorHeader
from splitplace.messages.joining import JoinAnswer, JoinRequest, TrustedAuthorities
from splitplace.messages.metrics import (
    ClusterMetrics,
    GatewayMetrics,
    NodeMetrics,
    RefusalMetrics,
    ServiceMetrics,
    TaskMetrics,
)
from splitplace.messages.task import (
    Answer,
    SettleTask,
    TaskAccepted,
    TaskDecided,
    TaskFinished,
    TaskPlaced,
    TaskRequest,
    TaskResult,
)

MessageT = TypeVar("MessageT", bound=Message)

Encoding = Literal["task", "json", "frame"]
"""`task`: JSON, msgpack or a picture, by content; `json`: always JSON; `frame`: see messages.frames."""

_PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Topic(Generic[MessageT]):
    """A topic pattern and everything that holds for messages on it."""

    pattern: str
    message: type[MessageT]
    publishers: tuple[str, ...]
    subscribers: tuple[str, ...]
    summary: str
    encoding: Encoding = "json"
    qos: Literal[0, 1] = 1
    retain: bool = False
    max_bytes: int = limits.MAX_CONTROL_BYTES
    is_open: bool = False
    """Whether the last parameter stands for any number of levels."""

    @property
    def level(self) -> str:
        """Regular expression of a parameter. Sensors may leave a level empty; no part of the system does."""
        return "[^/]*" if self.encoding == "task" else "[^/]+"

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the variable levels."""
        return tuple(_PARAMETER.findall(self.pattern))

    @cached_property
    def filter(self) -> str:
        """The MQTT subscription filter, without prefix."""
        return _PARAMETER.sub("+", self.pattern) + ("/#" if self.is_open else "")

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        expression = _PARAMETER.sub(rf"(?P<\1>{self.level})", self.pattern)
        if self.is_open:
            expression = expression.removesuffix(f"{self.level})") + ".*)"
        return re.compile(expression, re.DOTALL)

    def at(self, **values: str) -> str:
        """Return the topic for these parameters, without prefix. Raises KeyError for a missing one."""
        return self.pattern.format(**values)

    def name_of(self, message: MessageT, **values: str) -> str:
        """The topic of a message, without prefix: its fields give the parameters that are not in `values`."""
        fields = {name: getattr(message, name) for name in self.parameters if hasattr(message, name)}
        return self.at(**(fields | values))

    def match(self, topic: str) -> dict[str, str] | None:
        """Return the parameters in a topic (without prefix); None if the topic does not match."""
        found = self._regex.fullmatch(topic)
        return found.groupdict() if found else None


SENSOR = "sensor"
DASHBOARD = "dashboard"
GATEWAY = "gateway"
SPLITTER = "splitter"
PLACER = "placer"
RESOURCE_MONITOR = "resource-monitor"
RESULT_AGGREGATOR = "result-aggregator"
NODE = "node"
OPERATOR = "operator"
"""Who runs `status`, `doctor` and `watch`; only a user of the broker, no part of the system."""
ENROLLER = "enroller"
"""The only part that may make users of the broker."""
NEWCOMER = "newcomer"
"""A node that has a joining token and no user yet."""
SERVICES = (GATEWAY, SPLITTER, PLACER, RESOURCE_MONITOR, RESULT_AGGREGATOR)

TASK = Topic(
    "task/{application}",
    TaskRequest,
    (SENSOR,),
    (GATEWAY,),
    "A task to run.",
    encoding="task",
    max_bytes=limits.MAX_TASK_BYTES,
)
TASK_OF_CLIENT = Topic(
    "task/{application}/{client}",
    TaskRequest,
    (SENSOR,),
    (GATEWAY,),
    "A task of a named sensor, for clients without user properties.",
    encoding="task",
    max_bytes=limits.MAX_TASK_BYTES,
)
TASK_NAMED = Topic(
    "task/{application}/{client}/{task}",
    TaskRequest,
    (SENSOR,),
    (GATEWAY,),
    "A task with sensor and id in the topic.",
    encoding="task",
    max_bytes=limits.MAX_TASK_BYTES,
)
TASK_TOO_DEEP = Topic(
    "task/{application}/{client}/{task}/{more}",
    TaskRequest,
    (SENSOR,),
    (GATEWAY,),
    "Refused: a trailing slash, or a name with slashes. The refusal goes to `answer/{client}/{task}/{more}`.",
    encoding="task",
    max_bytes=limits.MAX_TASK_BYTES,
    is_open=True,
)
TASK_LEVEL = "task"
"""First level of all topics of tasks."""
TASKS = (TASK, TASK_OF_CLIENT, TASK_NAMED, TASK_TOO_DEEP)
"""Everything that sensors may publish on."""

ANSWER = Topic(
    "answer/{client}/{task}",
    Answer,
    (GATEWAY,),
    (SENSOR,),
    "The one terminal answer of a task (or on the request's response topic).",
    max_bytes=limits.MAX_ANSWER_BYTES,
)

JOB_ACCEPTED = Topic(
    "job/{task}/accepted",
    TaskAccepted,
    (GATEWAY,),
    (SPLITTER, DASHBOARD),
    "The journal holds the task; an attempt begins.",
)
JOB_DECIDED = Topic(
    "job/{task}/decided",
    TaskDecided,
    (SPLITTER,),
    (PLACER, GATEWAY, DASHBOARD),
    "How the task is split, and why.",
)
JOB_PLACED = Topic(
    "job/{task}/placed",
    TaskPlaced,
    (PLACER,),
    (GATEWAY, SPLITTER, RESULT_AGGREGATOR, RESOURCE_MONITOR, DASHBOARD),
    "Which node runs which stage.",
)
JOB_RESULT = Topic(
    "job/{task}/result",
    TaskResult,
    (RESULT_AGGREGATOR,),
    (GATEWAY,),
    "The merged outputs; a partial result on request, or when a new attempt replaces it.",
    max_bytes=limits.MAX_ANSWER_BYTES,
)
JOB_SETTLE = Topic(
    "job/{task}/settle",
    SettleTask,
    (GATEWAY,),
    (RESULT_AGGREGATOR, DASHBOARD),
    "A task nears its deadline: asks for its partial result.",
)
JOB_FINISHED = Topic(
    "job/{task}/finished",
    TaskFinished,
    (GATEWAY,),
    (SPLITTER, PLACER, RESULT_AGGREGATOR, RESOURCE_MONITOR, DASHBOARD),
    "The terminal outcome; policies learn from it.",
)

NODE_STATUS = Topic(
    "node/{node}/status",
    NodeStatus,
    (NODE,),
    (RESOURCE_MONITOR, GATEWAY, NODE, DASHBOARD),
    "Online or not; last will.",
    retain=True,
)
NODE_INFO = Topic(
    "node/{node}/info",
    NodeInfo,
    (NODE,),
    (RESOURCE_MONITOR, NODE, DASHBOARD),
    "Capacity, measured at start.",
    retain=True,
)
NODE_VITALS = Topic("node/{node}/vitals", NodeVitals, (NODE,), (RESOURCE_MONITOR, NODE), "Heartbeat.", qos=0)
NODE_PREPARE = Topic(
    "node/{node}/prepare", PrepareFragments, (PLACER,), (NODE,), "Load these fragments soon."
)
NODE_CANCEL = Topic("node/{node}/cancel", CancelTask, (GATEWAY,), (NODE,), "Drop the waiting work of a task.")
NODE_FAILURE = Topic(
    "node/{node}/failure", StageFailure, (NODE,), (GATEWAY, DASHBOARD), "A stage could not run here."
)

CLUSTER_STATE = Topic(
    "cluster/state",
    ClusterState,
    (RESOURCE_MONITOR,),
    (SPLITTER, PLACER, GATEWAY, DASHBOARD),
    "All nodes at one moment.",
    retain=True,
    max_bytes=limits.MAX_TASK_BYTES,
)
SERVICE_STATUS = Topic(
    "service/{service}/status",
    ServiceStatus,
    SERVICES,
    (GATEWAY, RESOURCE_MONITOR, DASHBOARD),
    "Online or not; last will.",
    retain=True,
)
APPLICATION = Topic(
    "application/{application}",
    Application,
    (SPLITTER,),
    (GATEWAY, SPLITTER, PLACER, RESULT_AGGREGATOR, RESOURCE_MONITOR, NODE, DASHBOARD),
    "Catalogue entry: inputs, labels, variants and their measurements.",
    retain=True,
    max_bytes=limits.MAX_CATALOGUE_BYTES,
)

TENSOR = Topic(
    "tensor/{receiver}/{sender}",
    TensorHeader,
    (GATEWAY, NODE),
    (NODE, RESULT_AGGREGATOR),
    "A chunk of a micro-batch on its way to the next stage, from the node that its trace names last.",
    encoding="frame",
    max_bytes=limits.MAX_FRAME_BYTES,
)
FRAGMENT_REQUEST = Topic(
    "fragment/{fragment}/request",
    FragmentRequest,
    (NODE,),
    (SPLITTER,),
    "A node asks for chunks of a file of a fragment.",
)
FRAGMENT_CHUNK = Topic(
    "fragment/{fragment}/chunk",
    FragmentHeader,
    (SPLITTER,),
    (NODE,),
    "A chunk of a file of a fragment, for every node that listens.",
    encoding="frame",
    max_bytes=limits.MAX_FRAME_BYTES,
)
FRAGMENT_MISSING = Topic(
    "fragment/{fragment}/missing", FragmentMissing, (SPLITTER,), (NODE,), "The model store does not have it."
)

JOIN_REQUEST = Topic(
    "join/{node}/request",
    JoinRequest,
    (NEWCOMER,),
    (ENROLLER,),
    "A node with a joining token asks for a user.",
)
JOIN_ANSWER = Topic("join/{node}/answer", JoinAnswer, (ENROLLER,), (NEWCOMER,), "Whether it has one now.")
AUTHORITY = Topic("authority", TrustedAuthorities, (ENROLLER,), (NODE,), "Whom to trust.", retain=True)

METRICS_TASKS = Topic(
    "metrics/tasks",
    TaskMetrics,
    (RESULT_AGGREGATOR,),
    (DASHBOARD,),
    "Outcomes of all tasks.",
    qos=0,
    retain=True,
    max_bytes=limits.MAX_METRIC_BYTES,
)
METRICS_APPLICATION = Topic(
    "metrics/application/{application}",
    TaskMetrics,
    (RESULT_AGGREGATOR,),
    (DASHBOARD,),
    "Outcomes of one application.",
    qos=0,
    retain=True,
    max_bytes=limits.MAX_METRIC_BYTES,
)
METRICS_DECISION = Topic(
    "metrics/decision/{variant}",
    TaskMetrics,
    (RESULT_AGGREGATOR,),
    (DASHBOARD,),
    "Outcomes of one decision.",
    qos=0,
    retain=True,
    max_bytes=limits.MAX_METRIC_BYTES,
)
METRICS_GATEWAY = Topic(
    "metrics/gateway",
    GatewayMetrics,
    (GATEWAY,),
    (DASHBOARD,),
    "Intake and unfinished tasks.",
    qos=0,
    retain=True,
    max_bytes=limits.MAX_METRIC_BYTES,
)
METRICS_REFUSALS = Topic(
    "metrics/refusals/{reason}",
    RefusalMetrics,
    (GATEWAY,),
    (DASHBOARD,),
    "Refused and invalid tasks by reason.",
    qos=0,
    retain=True,
    max_bytes=limits.MAX_METRIC_BYTES,
)
METRICS_NODE = Topic(
    "metrics/node/{node}",
    NodeMetrics,
    (RESOURCE_MONITOR,),
    (DASHBOARD,),
    "One node's load, memory, temperature, energy, bytes.",
    qos=0,
    retain=True,
    max_bytes=limits.MAX_METRIC_BYTES,
)
METRICS_CLUSTER = Topic(
    "metrics/cluster",
    ClusterMetrics,
    (RESOURCE_MONITOR,),
    (DASHBOARD,),
    "All nodes together.",
    qos=0,
    retain=True,
    max_bytes=limits.MAX_METRIC_BYTES,
)
METRICS_SERVICE = Topic(
    "metrics/service/{service}",
    ServiceMetrics,
    SERVICES,
    (DASHBOARD,),
    "What a service's bus received and dropped.",
    qos=0,
    retain=True,
    max_bytes=limits.MAX_METRIC_BYTES,
)


def all_topics() -> Iterator[Topic[Message]]:
    """Every topic of the table, in its order."""
    for value in globals().values():
        if isinstance(value, Topic):
            yield value
