"""The result of a simulation."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from splitplace.messages.application import Application, VariantKind
from splitplace.policies.scoring import mean, mean_reward, quantile, violation_rate

TaskStatus = Literal["answered", "refused", "failed", "expired", "overdue", "unfinished"]
"""`overdue` and `unfinished` tasks still ran or waited at the end: after or before their deadline."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskRecord(_Frozen):
    """One task. All times except `arrived_ms` count from its arrival."""

    task: str
    application: str
    arrived_ms: float
    """Arrival on the simulation's clock."""
    deadline_ms: float
    batch: int
    status: TaskStatus
    variant: str | None = None
    attempts: int = 1
    response_ms: float | None = None
    """None without an answer. Otherwise `wait_ms + transfer_ms + compute_ms`."""
    wait_ms: float | None = None
    """Time until its inputs were sent: decision, placement, earlier attempts."""
    transfer_ms: float | None = None
    """Time of transfers on the path to the last output."""
    compute_ms: float | None = None
    """Time of computing on that path, including CPU sharing, swapping and migration."""
    accuracy: float = 0.0
    coverage: float = 1.0
    """Share of the classes that the answer covers; below 1 it was partial."""
    on_time: bool = False
    explored: bool = False
    migrations: int = 0

    @property
    def known(self) -> bool:
        """Whether the outcome is known: the task ended, or its deadline has passed."""
        return self.status != "unfinished"


class Spread(_Frozen):
    """Distribution of response times, in scheduling intervals; None if nothing was answered."""

    mean: float | None
    p50: float | None
    p95: float | None


class Energy(_Frozen):
    """Energy of all hosts together, per interval."""

    total: float
    above_idle: float


class DecisionTime(_Frozen):
    """Wall-clock milliseconds of one decision with its placement. They differ between runs."""

    p50: float | None
    p99: float | None


class TaskCounts(_Frozen):
    """Number of tasks by outcome."""

    arrived: int
    answered: int
    refused: int
    failed: int
    expired: int
    overdue_unfinished: int
    """Running or waiting at the end, after their deadline. They count as violations."""
    unfinished: int
    """Running or waiting at the end, before their deadline. They are not counted."""


class Quality(_Frozen):
    """Figures of a set of tasks. All tasks with a known outcome count, answered or not."""

    reward: float | None
    """Equation 15."""
    accuracy: float | None
    """Equation 13: mean over tasks that ended; one without an answer counts as 0."""
    sla_violation_rate: float | None
    """Equation 14."""
    response_intervals: Spread
    wait_intervals: float | None
    decisions: Mapping[str, int]
    """Number of tasks by the variant last chosen; `none` for tasks that were refused or not decided."""
    decisions_by_kind: Mapping[VariantKind, int]
    """Tasks by the kind of the variant last chosen, without those that were refused or not decided."""


class ApplicationResult(Quality):
    """The tasks of one application."""

    tasks: int
    """Number of tasks with a known outcome."""


class Result(Quality):
    """The figures of one run."""

    policy: str
    seed: int
    hosts: int
    intervals: int
    rate: float
    fairness: float | None
    """Jain's index of the computing done by each host."""
    energy_mj_per_interval: Energy
    cost_usd: float
    """Price of all hosts over the whole run."""
    cost_usd_per_task: float | None
    """`cost_usd` divided by the number of answered tasks."""
    decision_ms: DecisionTime
    tasks: TaskCounts
    explored: int
    migrations: int
    attempts: float | None
    """Mean number of attempts."""
    objective: float | None
    """Equation 10, mean over the intervals in which a task ended."""
    by_application: Mapping[str, ApplicationResult]
    wall_s: float
    cpu_s: float
    records: tuple[TaskRecord, ...] | None = None

    def figures(self) -> Mapping[str, object]:
        """Everything except timings and records: the part that the same seed reproduces."""
        return self.model_dump(exclude={"wall_s", "cpu_s", "decision_ms", "records"})


def quality(
    records: Sequence[TaskRecord], interval_ms: float, applications: Iterable[Application]
) -> ApplicationResult:
    """Compute the figures of a set of tasks.

    Args:
        records: the tasks; those without a known outcome are left out.
        interval_ms: unit of the response times.
        applications: those of the tasks, with their variants.
    """
    known = [record for record in records if record.known]
    answered = [record for record in known if record.status == "answered"]
    responses = [record.response_ms / interval_ms for record in answered if record.response_ms is not None]
    waits = [record.wait_ms / interval_ms for record in answered if record.wait_ms is not None]
    decisions = Counter(record.variant or "none" for record in records)
    kinds = {
        (application.name, variant.name): variant.kind
        for application in applications
        for variant in application.variants
    }
    by_kind = Counter(kinds[record.application, record.variant] for record in records if record.variant)
    return ApplicationResult(
        tasks=len(known),
        reward=mean_reward([(record.on_time, record.accuracy) for record in known]),
        accuracy=mean([record.accuracy for record in known if record.status != "overdue"]),
        sla_violation_rate=violation_rate([record.on_time for record in known]),
        response_intervals=Spread(
            mean=mean(responses), p50=quantile(responses, 0.5), p95=quantile(responses, 0.95)
        ),
        wait_intervals=mean(waits),
        decisions=dict(sorted(decisions.items())),
        decisions_by_kind=dict(sorted(by_kind.items())),
    )


def counts(records: Sequence[TaskRecord]) -> TaskCounts:
    """Count tasks by outcome."""
    by_status = Counter(record.status for record in records)
    return TaskCounts(
        arrived=len(records),
        answered=by_status["answered"],
        refused=by_status["refused"],
        failed=by_status["failed"],
        expired=by_status["expired"],
        overdue_unfinished=by_status["overdue"],
        unfinished=by_status["unfinished"],
    )
