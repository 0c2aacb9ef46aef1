"""The one table of topics: each is bound to its message type, direction, quality of service and size.

Patterns stand below the configurable prefix (`splitplace/v1`). `{name}` is one level of the topic.
"""

from collections.abc import Iterator

from splitplace.messages import limits
from splitplace.messages.application import Application
from splitplace.messages.base import Message
from splitplace.messages.cluster import (
    CancelTask,
    ClusterMembers,
    FragmentMissing,
    FragmentRequest,
    NodeInfo,
    NodeState,
    NodeStatus,
    NodeVitals,
    PrepareFragments,
    ServiceStatus,
    StageFailure,
)
from splitplace.messages.frames import FragmentHeader, TensorHeader
from splitplace.messages.joining import JoinAnswer, JoinRequest, TrustedAuthorities
from splitplace.messages.metrics import (
    Availability,
    ClusterMetrics,
    GatewayMetrics,
    LatestAnswer,
    NodeMetrics,
    RefusalMetrics,
    SensorMetrics,
    ServiceMetrics,
    TaskMetrics,
)
from splitplace.messages.second_run import LostReplica, SecondRun, TaskLagging
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
from splitplace.messages.topic import Topic as Topic  # noqa: PLC0414 - for those who read the table

SENSOR = "sensor"
DASHBOARD = "dashboard"
HOME_ASSISTANT = "home-assistant"
"""A dashboard that sees the labels of answers, too."""
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
    "job/{task}/accepted", TaskAccepted, (GATEWAY,), (SPLITTER, DASHBOARD), "An attempt begins."
)
JOB_DECIDED = Topic(
    "job/{task}/decided", TaskDecided, (SPLITTER,), (PLACER, GATEWAY, DASHBOARD), "How it is split, and why."
)
JOB_PLACED = Topic(
    "job/{task}/placed",
    TaskPlaced,
    (PLACER,),
    (GATEWAY, SPLITTER, RESULT_AGGREGATOR, RESOURCE_MONITOR, DASHBOARD),
    "Which node runs which stage.",
)
JOB_LOST_REPLICA = Topic(
    "job/{task}/lost-replica", LostReplica, (GATEWAY,), (RESULT_AGGREGATOR, DASHBOARD), "A replica is gone."
)
JOB_LAGGING = Topic(
    "job/{task}/lagging", TaskLagging, (RESULT_AGGREGATOR,), (PLACER, DASHBOARD), "Outputs are late or lost."
)
JOB_SECOND_RUN = Topic(
    "job/{task}/second-run",
    SecondRun,
    (PLACER,),
    (GATEWAY, RESULT_AGGREGATOR, DASHBOARD),
    "Where overdue or lost micro-batches run a second time.",
    max_bytes=limits.MAX_SECOND_RUN_BYTES,
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
    "job/{task}/settle", SettleTask, (GATEWAY,), (RESULT_AGGREGATOR, DASHBOARD), "Asks for a partial result."
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
    "What it offers, whenever that changes.",
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

CLUSTER_NODE = Topic(
    "cluster/node/{node}",
    NodeState,
    (RESOURCE_MONITOR,),
    (SPLITTER, PLACER, GATEWAY, RESOURCE_MONITOR, DASHBOARD),
    "What is known of a node, whenever it changes.",
    retain=True,
)
CLUSTER_MEMBERS = Topic(
    "cluster/members",
    ClusterMembers,
    (RESOURCE_MONITOR,),
    (SPLITTER, PLACER, GATEWAY, DASHBOARD),
    "Which nodes there are, and how busy they are.",
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
METRICS_SENSOR = Topic(
    "metrics/sensor/{sensor}",
    SensorMetrics,
    (GATEWAY,),
    (DASHBOARD, HOME_ASSISTANT),
    "Outcomes of one sensor's tasks.",
    qos=0,
    retain=True,
    max_bytes=limits.MAX_METRIC_BYTES,
)
LATEST_OF_SENSOR = Topic(
    "latest/sensor/{sensor}",
    LatestAnswer,
    (GATEWAY,),
    (HOME_ASSISTANT,),
    "The last answer to a sensor.",
    qos=0,
    retain=True,
    max_bytes=limits.MAX_METRIC_BYTES,
)
LATEST_OF_APPLICATION = Topic(
    "latest/application/{application}",
    LatestAnswer,
    (GATEWAY,),
    (HOME_ASSISTANT,),
    "The last answer with a result of an application.",
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


def _availability(pattern: str, publishers: tuple[str, ...], summary: str) -> Topic[Availability]:
    return Topic(
        pattern,
        Availability,
        publishers,
        (DASHBOARD,),
        f"{summary}; last will.",
        encoding="word",
        retain=True,
        max_bytes=limits.MAX_METRIC_BYTES,
    )


AVAILABILITY_NODE = _availability("availability/node/{node}", (NODE,), "Whether a node is there")
AVAILABILITY_SERVICE = _availability("availability/service/{service}", SERVICES, "Whether a service is there")
AVAILABILITY_SYSTEM = _availability(
    "availability/system", (RESOURCE_MONITOR,), "Whether all services and a node are there"
)


def all_topics() -> Iterator[Topic[Message]]:
    """Every topic of the table, in its order."""
    for value in globals().values():
        if isinstance(value, Topic):
            yield value
