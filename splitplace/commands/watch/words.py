"""Say in words what happens in a system, and why. Pure."""

from fnmatch import fnmatchcase

from splitplace.commands.shared.task_path import arrows
from splitplace.commands.shared.task_record import TaskRecord, why
from splitplace.commands.watch.observation import Observation
from splitplace.messages.base import Message
from splitplace.messages.cluster import ClusterState, NodeState, ServiceStatus, StageFailure
from splitplace.messages.metrics import RefusalMetrics
from splitplace.messages.names import readable, sensor_key
from splitplace.messages.task import TaskFinished

_MARKS = {
    "on time": "in time",
    "late": "LATE",
    "expired": "EXPIRED",
    "failed": "FAILED",
    "refused": "REFUSED",
}


class Teller:
    """Turn messages into lines for people: what changed, and why."""

    def __init__(self, observation: Observation) -> None:
        """Tell about an observation that has taken in each message already."""
        self._seen = observation
        self._nodes: dict[str, str] = {}
        self._services: dict[str, bool] = {}
        self._refusals: dict[str, int] = {}

    def lines(self, message: Message) -> list[str]:
        """Return what a message means; nothing if it changes nothing."""
        match message:
            case TaskFinished():
                record = self._seen.records.get(message.task)
                is_first = record is not None and record.finished is message
                return [task_line(record, self._seen)] if record is not None and is_first else []
            case StageFailure():
                failed = f"stage {message.stage} failed on {message.node}: {message.reason}"
                return [f"{readable(message.task)}: {failed}; it is tried again while there is time"]
            case ClusterState():
                return self._node_news(message)
            case ServiceStatus():
                return self._service_news(message)
            case _:
                return self._refusal_news(message) if isinstance(message, RefusalMetrics) else []

    def _node_news(self, state: ClusterState) -> list[str]:
        now = {node.node: _state(node) for node in state.nodes}
        gone = dict.fromkeys(self._nodes.keys() - now.keys(), "gone")
        news = [
            f"node {name} {_NODE_WORDS[said]}"
            for name, said in sorted({**now, **gone}.items())
            if self._nodes.get(name, "gone") != said
        ]
        self._nodes = now
        return news

    def _service_news(self, status: ServiceStatus) -> list[str]:
        if self._services.get(status.service) == status.online:
            return []
        self._services[status.service] = status.online
        return [f"service {status.service} is {'there' if status.online else 'gone'}"]

    def _refusal_news(self, metrics: RefusalMetrics) -> list[str]:
        before = self._refusals.get(metrics.reason)
        self._refusals[metrics.reason] = metrics.count
        if before is None or metrics.count <= before:
            return []  # the first figure tells of the time before
        return [f"REFUSED at intake: {metrics.count - before} more tasks ({metrics.reason})"]


def mark(record: TaskRecord) -> str:
    """Return how a task stands, in a word; capitals for what did not go well."""
    return _MARKS.get(record.outcome, "open")


def task_line(record: TaskRecord, seen: Observation) -> str:
    """Return how a task ended, on which nodes, and why, in one line."""
    end = record.finished
    size = f"{end.batch} x {record.application}" if end else record.application
    path = arrows(record, seen.applications.get(record.application))
    way = f", {end.variant} on {path}" if end and end.variant and path else ""
    return f"{mark(record)}: {name_of(record)}, {size}{way}. {why(record)}"


def name_of(record: TaskRecord) -> str:
    """Return sensor and task id, as the sender wrote them."""
    return readable(sensor_key(record.task))


def is_named(key: str, wanted: str) -> bool:
    """Whether a user means this task: by its key, by sensor and id, or by the id alone; `*` fits anything."""
    short = sensor_key(key)
    names = [key, short, short.partition(".")[2]]
    return any(fnmatchcase(name, wanted) for name in (*names, *map(readable, names)))


def _state(node: NodeState) -> str:
    if not node.online:
        return "gone"
    return "stalled" if node.stalled else "there"


_NODE_WORDS = {
    "there": "is there",
    "stalled": "makes no progress: it gets no new work",
    "gone": "is gone: its open tasks move to other nodes",
}
