"""Small, flat, retained JSON for dashboards, below `metrics/`; docs/metrics.md lists the fields and units."""

from typing import Annotated

from pydantic import Field

from splitplace.messages.base import Bytes, Count, Message, Milliseconds, Name, NonNegative, Ratio, Text


class TaskMetrics(Message):
    """Outcomes since the aggregator started: on `metrics/tasks` for all, `metrics/application/<name>` for one
    application and `metrics/decision/<variant>` for one decision.

    Ratios are None before there is anything to count.
    """

    finished: Count
    answered: Count
    partial: Count = 0
    """Answered with a branch missing."""
    on_time: Count
    refused: Count
    expired: Count
    failed: Count
    hit_rate: Ratio | None
    """on_time / finished."""
    reward: Ratio | None
    """Eq. 15: mean over finished tasks of (on time + accuracy) / 2; tasks without a result count 0."""
    accuracy: Ratio | None
    """Share of right labels over inputs whose truth came with the task."""
    variant_accuracy: Ratio | None
    """Mean test-set accuracy of the variants that answered."""
    response_p50_ms: Milliseconds | None
    response_p95_ms: Milliseconds | None
    """Over the most recent answered tasks (a sliding window of 1000)."""
    predicted_ratio_p50: NonNegative | None = None
    """Actual over predicted time from the decision to the answer, over the same tasks."""
    predicted_within: Ratio | None = None
    """Share of them whose ratio is between 0.6 and 1.4."""
    inputs: Count
    moved_bytes: Bytes


class GatewayMetrics(Message):
    """On `metrics/gateway`."""

    received: Count
    accepted: Count
    finished: Count
    in_flight: Count
    waiting_for_decision: Count
    running: Count
    retried: Count
    """New attempts after a failure, a death or a stall."""
    refused: Count
    invalid: Count
    repeated: Count
    journal_ms: Milliseconds
    """Mean time of a write to the journal."""
    journal_bytes: Bytes = 0
    """Size of its file and write-ahead log."""


class RefusalMetrics(Message):
    """On `metrics/refusals/<reason>`: one counter for each kind of refusal."""

    reason: Name
    count: Count


class NodeMetrics(Message):
    """On `metrics/node/<id>`."""

    node: Name
    online: bool
    score: NonNegative = 0.0
    threads: Annotated[int, Field(ge=1, le=4096)] = 1
    cpu_ratio: Ratio
    resident_bytes: Bytes
    loaded_bytes: Bytes
    mapped_bytes: Bytes = 0
    memory_budget_bytes: Bytes
    queue_length: Count
    queue_ms: Milliseconds
    executed: Count
    dropped: Count
    sent_bytes: Bytes
    received_bytes: Bytes
    up_megabytes_per_second: NonNegative | None = None
    down_megabytes_per_second: NonNegative | None = None
    round_trip_ms: Milliseconds | None = None
    temperature_celsius: Annotated[float, Field(ge=-100, le=300, allow_inf_nan=False)] | None
    throttled: bool | None
    energy_joules: NonNegative


class ClusterMetrics(Message):
    """On `metrics/cluster`."""

    nodes: Count
    online: Count
    queue_ms: Milliseconds
    """Sum over online nodes."""
    energy_joules: NonNegative
    fairness: Ratio | None
    """Jain's index of the CPU use of online nodes."""


class ServiceMetrics(Message):
    """On `metrics/service/<name>`: messages on all connections of a service, and those it could not use."""

    service: Name
    received: Count
    rejected: Count
    """Broken, too big, or not what the topic allows."""
    overflowed: Count
    """Dropped because a bounded queue was full."""
    reconnects: Count
    refused: Count = 0
    """Publications and subscriptions that the broker refused."""
    undeliverable: Count = 0
    """Publications given up because each attempt cost the connection."""
    trouble: Text = ""
    """What the service cannot do, and why; empty if all is well."""
