"""The one table of the gauges and counters on `/metrics`. Pure.

Names and units follow Prometheus' conventions: base units, counters end in `_total`. A figure that is null
is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from splitplace.messages.topics import (
    AVAILABILITY_NODE,
    AVAILABILITY_SERVICE,
    AVAILABILITY_SYSTEM,
    METRICS_APPLICATION,
    METRICS_CLUSTER,
    METRICS_DECISION,
    METRICS_GATEWAY,
    METRICS_NODE,
    METRICS_REFUSALS,
    METRICS_SENSOR,
    METRICS_SERVICE,
    Topic,
)

Kind = Literal["counter", "gauge"]

MILLI = 1e-3
MEGA = 1e6


@dataclass(frozen=True, slots=True)
class Figure:
    """A field of a message as a sample."""

    field: str
    labels: tuple[tuple[str, str], ...] = ()
    """Fixed labels beside those from the topic."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: where its samples come from."""

    name: str
    """Without `_total`."""
    kind: Kind
    help: str
    topic: Topic[Any]
    figures: tuple[Figure, ...]
    labels: Mapping[str, str]
    """Names of the topic's variable levels, by label."""
    scale: float = 1.0
    """From the unit of the message to a base unit."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """All labels, in order."""
        return (*self.labels, *(name for name, _ in self.figures[0].labels))

    @property
    def shown(self) -> str:
        """The name as queries use it."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _family(
    name: str, kind: Kind, help_text: str, topic: Topic[Any], *fields: str, scale: float = 1.0
) -> Family:
    labels = {_LABELS.get(level, level): level for level in topic.parameters}
    return Family(f"splitplace_{name}", kind, help_text, topic, tuple(map(Figure, fields)), labels, scale)


def _split(
    name: str, kind: Kind, help_text: str, topic: Topic[Any], *, label: str, fields: Mapping[str, str]
) -> Family:
    """A metric with a label that tells fields of one message apart."""
    figures = tuple(Figure(field, ((label, value),)) for value, field in fields.items())
    labels = {_LABELS.get(level, level): level for level in topic.parameters}
    return Family(f"splitplace_{name}", kind, help_text, topic, figures, labels)


_LABELS = {"variant": "decision"}
_ENDS = {each: each for each in ("answered", "refused", "expired", "failed")}


def _tasks(of: str, topic: Topic[Any]) -> tuple[Family, ...]:
    return (
        _split(f"{of}_tasks", "counter", "Finished tasks by their end.", topic, label="status", fields=_ENDS),
        _family(f"{of}_on_time", "counter", "Tasks with a result before the deadline.", topic, "on_time"),
        _family(f"{of}_partial", "counter", "Tasks answered with a branch missing.", topic, "partial"),
        _family(f"{of}_inputs", "counter", "Inputs of answered tasks.", topic, "inputs"),
        _family(
            f"{of}_moved_bytes", "counter", "Encoded tensors that crossed the broker.", topic, "moved_bytes"
        ),
        _family(f"{of}_reward_ratio", "gauge", "Mean of (on time + accuracy) / 2.", topic, "reward"),
        _family(
            f"{of}_accuracy_ratio",
            "gauge",
            "Share of right labels, where sensors sent them.",
            topic,
            "accuracy",
        ),
    )


FAMILIES: tuple[Family, ...] = (
    _family("online", "gauge", "Whether all services and a node are there.", AVAILABILITY_SYSTEM, "state"),
    _family("service_online", "gauge", "Whether a service is there.", AVAILABILITY_SERVICE, "state"),
    _family("node_available", "gauge", "Whether a node is connected.", AVAILABILITY_NODE, "state"),
    _family("received", "counter", "Messages on the task topics.", METRICS_GATEWAY, "received"),
    _family("accepted", "counter", "Tasks written to the journal.", METRICS_GATEWAY, "accepted"),
    _family("finished", "counter", "Accepted tasks with a terminal answer.", METRICS_GATEWAY, "finished"),
    _family("repeated", "counter", "Tasks answered from the journal.", METRICS_GATEWAY, "repeated"),
    _family("retries", "counter", "Attempts begun again.", METRICS_GATEWAY, "retried"),
    _split(
        "tasks_in_flight",
        "gauge",
        "Accepted tasks without an answer, by phase.",
        METRICS_GATEWAY,
        label="phase",
        fields={"waiting": "waiting_for_decision", "running": "running"},
    ),
    _family(
        "journal_write_seconds",
        "gauge",
        "Mean time of a write to the journal.",
        METRICS_GATEWAY,
        "journal_ms",
        scale=MILLI,
    ),
    _family("journal_bytes", "gauge", "Size of the journal.", METRICS_GATEWAY, "journal_bytes"),
    _family("refusals", "counter", "Tasks refused or invalid at intake.", METRICS_REFUSALS, "count"),
    *_tasks("application", METRICS_APPLICATION),
    *_tasks("decision", METRICS_DECISION),
    _split(
        "sensor_tasks",
        "counter",
        "Tasks of a sensor by their end.",
        METRICS_SENSOR,
        label="status",
        fields={**_ENDS, "invalid": "invalid"},
    ),
    _family(
        "sensor_on_time", "counter", "Tasks of a sensor with a result in time.", METRICS_SENSOR, "on_time"
    ),
    _family(
        "sensor_late_ratio",
        "gauge",
        "Share of finished tasks without a result in time.",
        METRICS_SENSOR,
        "late_ratio",
    ),
    _family(
        "sensor_tasks_in_flight",
        "gauge",
        "Accepted tasks of a sensor without an answer.",
        METRICS_SENSOR,
        "in_flight",
    ),
    _family(
        "sensor_quota_tasks", "gauge", "Tasks that a sensor may have in flight.", METRICS_SENSOR, "quota"
    ),
    _family("sensor_quota_ratio", "gauge", "How much of its quota it uses.", METRICS_SENSOR, "quota_ratio"),
    _family("node_online", "gauge", "Whether a node is there and beats.", METRICS_NODE, "online_flag"),
    _family("node_score_gigaflops", "gauge", "Speed of the reference benchmark.", METRICS_NODE, "score"),
    _family("node_threads", "gauge", "Cores that it computes on.", METRICS_NODE, "threads"),
    _family("node_cpu_ratio", "gauge", "Use of its CPU share.", METRICS_NODE, "cpu_ratio"),
    _family(
        "node_resident_bytes", "gauge", "Resident memory of its process.", METRICS_NODE, "resident_bytes"
    ),
    _family(
        "node_loaded_bytes", "gauge", "Memory reserved by loaded fragments.", METRICS_NODE, "loaded_bytes"
    ),
    _family("node_mapped_bytes", "gauge", "Mapped weights.", METRICS_NODE, "mapped_bytes"),
    _family(
        "node_memory_budget_bytes",
        "gauge",
        "What loaded fragments may take.",
        METRICS_NODE,
        "memory_budget_bytes",
    ),
    _family("node_queue_length", "gauge", "Micro-batches waiting or running.", METRICS_NODE, "queue_length"),
    _family(
        "node_queue_seconds",
        "gauge",
        "Computing time expected for them.",
        METRICS_NODE,
        "queue_ms",
        scale=MILLI,
    ),
    _family("node_executed", "counter", "Micro-batches run.", METRICS_NODE, "executed"),
    _family("node_dropped", "counter", "Micro-batches dropped.", METRICS_NODE, "dropped"),
    _family("node_sent_bytes", "counter", "MQTT payloads published.", METRICS_NODE, "sent_bytes"),
    _family("node_received_bytes", "counter", "MQTT payloads received.", METRICS_NODE, "received_bytes"),
    _family(
        "node_up_bytes_per_second",
        "gauge",
        "Speed of its link towards the broker.",
        METRICS_NODE,
        "up_megabytes_per_second",
        scale=MEGA,
    ),
    _family(
        "node_down_bytes_per_second",
        "gauge",
        "Speed of its link from the broker.",
        METRICS_NODE,
        "down_megabytes_per_second",
        scale=MEGA,
    ),
    _family(
        "node_round_trip_seconds",
        "gauge",
        "Between node and broker.",
        METRICS_NODE,
        "round_trip_ms",
        scale=MILLI,
    ),
    _family(
        "node_temperature_celsius", "gauge", "Temperature of the CPU.", METRICS_NODE, "temperature_celsius"
    ),
    _family(
        "node_throttled", "gauge", "Whether a Raspberry Pi slows itself down.", METRICS_NODE, "throttled_flag"
    ),
    _family(
        "node_energy_joules", "counter", "Estimate since the node started.", METRICS_NODE, "energy_joules"
    ),
    _family("fairness_ratio", "gauge", "Jain's index of the CPU use of nodes.", METRICS_CLUSTER, "fairness"),
    _family("service_received", "counter", "Messages received by a service.", METRICS_SERVICE, "received"),
    _family("service_rejected", "counter", "Messages that it could not use.", METRICS_SERVICE, "rejected"),
    _family(
        "service_overflowed", "counter", "Messages dropped from full queues.", METRICS_SERVICE, "overflowed"
    ),
    _family("service_reconnects", "counter", "Connections after the first.", METRICS_SERVICE, "reconnects"),
    _family(
        "service_refused", "counter", "Publications that the broker refused.", METRICS_SERVICE, "refused"
    ),
    _family("service_undeliverable", "counter", "Publications given up.", METRICS_SERVICE, "undeliverable"),
    _family(
        "service_trouble",
        "gauge",
        "Whether it says that something is wrong.",
        METRICS_SERVICE,
        "trouble_flag",
    ),
)
