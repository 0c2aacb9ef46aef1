"""Small, flat, retained JSON for dashboards, below `metrics/`; docs/metrics.md lists the fields and units."""

from typing import Annotated, Literal

from pydantic import Field, computed_field

from splitplace.messages.base import Bytes, Count, Message, Milliseconds, Name, NonNegative, Ratio, Text
from splitplace.messages.findings import LabelText
from splitplace.messages.names import SensorKey, SensorName
from splitplace.messages.task import AnswerStatus

Flag = Literal[0, 1]
"""A truth value as a number, for readers that drop booleans, such as Telegraf."""


class Availability(Message):
    """On `availability/...`, as bare text."""

    state: Literal["online", "offline"]


ONLINE, OFFLINE = Availability(state="online"), Availability(state="offline")


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
    promised: Ratio | None = None
    """Mean probability of an answer in time that was promised, over the last 1000 tasks with a promise."""
    promise_kept: Ratio | None = None
    """Share of them that were answered in time."""
    promise_error: Ratio | None = None
    """Largest difference of both in a bin of probabilities that holds at least 30 of them."""
    inputs: Count
    moved_bytes: Bytes


class SensorMetrics(Message):
    """On `metrics/sensor/<sensor>`: one sensor. Those beyond the bound count together.

    Counts begin with the gateway, or when the sensor is heard of again after it was forgotten.
    """

    sensor: SensorKey
    name: SensorName
    """As the sensor calls itself."""
    finished: Count
    answered: Count
    on_time: Count
    late: Count
    """Answered after the deadline."""
    late_ratio: Ratio | None
    """Share of finished tasks that had no answer before their deadline."""
    refused: Count
    """At intake, or as hopeless later."""
    invalid: Count
    expired: Count
    failed: Count
    last_status: AnswerStatus
    last_response_ms: Milliseconds | None
    in_flight: Count | None = None
    """Accepted, without an answer; None for sensors that count together, as for the quota."""
    quota: Count | None = None
    """Tasks that it may have in flight while others have theirs."""
    quota_ratio: Ratio | None = None
    """How much of its quota it uses: of tasks or of bytes of inputs, whichever is more."""

    @property
    def turned_away(self) -> int:
        """Tasks that were never accepted: refused at intake, or invalid."""
        refused_later = self.finished - self.answered - self.expired - self.failed
        return self.refused + self.invalid - refused_later


class LatestAnswer(Message):
    """On `latest/...`: the last answer to a sensor, or of an application; not for every dashboard."""

    sensor: SensorKey
    name: SensorName
    """As the sensor calls itself."""
    application: Name | None
    status: AnswerStatus
    label: LabelText | None
    """That of the first input."""
    confidence: Ratio | None
    inputs: Count
    """Predictions in the answer."""
    on_time: bool
    response_ms: Milliseconds | None
    reason: Text

    @computed_field  # type: ignore[prop-decorator]
    @property
    def on_time_flag(self) -> Flag:
        """`on_time` as a number."""
        return 1 if self.on_time else 0


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

    @computed_field  # type: ignore[prop-decorator]
    @property
    def online_flag(self) -> Flag:
        """`online` as a number."""
        return 1 if self.online else 0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def throttled_flag(self) -> Flag | None:
        """`throttled` as a number."""
        return None if self.throttled is None else 1 if self.throttled else 0


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

    @computed_field  # type: ignore[prop-decorator]
    @property
    def trouble_flag(self) -> Flag:
        """Whether there is trouble, as a number."""
        return 1 if self.trouble else 0
