"""One task as its messages tell it: attempts, what was chosen and why, and what took how long. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from splitplace.messages.application import Application
from splitplace.messages.cluster import StageFailure
from splitplace.messages.names import readable
from splitplace.messages.task import TaskAccepted, TaskDecided, TaskFinished, TaskPlaced, VariantEstimate

TaskMessage: TypeAlias = TaskAccepted | TaskDecided | TaskPlaced | TaskFinished | StageFailure
"""What tells of a task."""

Outcome = Literal["open", "on time", "late", "expired", "failed", "refused"]

_MUCH_MORE = 1.4
"""Actual over predicted time from which an explanation says that the prediction was wrong."""


@dataclass(slots=True)
class AttemptRecord:
    """One attempt at a task."""

    decided: TaskDecided | None = None
    placed: TaskPlaced | None = None
    failures: list[StageFailure] = field(default_factory=list)


@dataclass(slots=True)
class TaskRecord:
    """A task, from its acceptance to its answer."""

    task: str
    application: str
    seen_s: float
    """When its first message came, in seconds since 1970."""
    accepted: TaskAccepted | None = None
    attempts: dict[int, AttemptRecord] = field(default_factory=dict)
    finished: TaskFinished | None = None
    change: int = 0
    """Number of its last change; grows with every change of any task."""

    def take(self, message: TaskMessage) -> bool:
        """Take in a message about this task. Return whether it is its end."""
        match message:
            case TaskAccepted():
                self.accepted = self.accepted or message
            case TaskFinished():
                if self.finished is not None:
                    return False
                self.finished = message
                return True
            case TaskDecided():
                self._attempt(message.attempt).decided = message
            case TaskPlaced():
                self._attempt(message.attempt).placed = message
            case StageFailure():
                self._attempt(message.attempt).failures.append(message)
        return False

    def _attempt(self, number: int) -> AttemptRecord:
        return self.attempts.setdefault(number, AttemptRecord())

    @property
    def sensor(self) -> str:
        """Who sent it."""
        return readable(self.task.partition(".")[0])

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        end = self.finished
        if end is None:
            return "open"
        if end.status == "answered":
            return "on time" if end.on_time else "late"
        return end.status

    @property
    def last(self) -> AttemptRecord:
        """Its last attempt."""
        return self.attempts[max(self.attempts)] if self.attempts else AttemptRecord()


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task in a list."""

    task: str
    name: str
    """Its key for people."""
    sensor: str
    application: str
    seen_s: float
    outcome: Outcome
    variant: str | None
    nodes: tuple[str, ...]
    deadline_ms: float | None
    response_ms: float | None
    predicted_ms: float | None
    attempts: int
    reason: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A stage on a node, on the time axis of its task."""

    node: str
    stage: str
    start_ms: float
    """Since the arrival; the earliest that the order of the stages allows, as nodes share no clock."""
    wait_ms: float
    compute_ms: float


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One attempt in detail."""

    number: int
    policy: str | None
    variant: str | None
    reason: str
    predicted_ms: float | None
    slack_ms: float | None
    alternatives: tuple[VariantEstimate, ...]
    stages: tuple[tuple[str, str], ...]
    """Stage and node, in order."""
    placement: str
    """Why these nodes."""
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaskView:
    """Everything known about a task."""

    row: TaskRow
    why: str
    """In a few sentences."""
    bars: tuple[Bar, ...]
    attempts: tuple[AttemptView, ...]
    picture: bool = False
    """Whether its picture can be had."""


def row(record: TaskRecord) -> TaskRow:
    """Return a task as a row of a list."""
    last, end = record.last, record.finished
    decided, placed = last.decided, last.placed
    known = end or record.accepted or decided
    return TaskRow(
        task=record.task,
        name=readable(record.task),
        sensor=record.sensor,
        application=record.application,
        seen_s=record.seen_s,
        outcome=record.outcome,
        variant=end.variant if end else decided.variant if decided else None,
        nodes=end.nodes if end and end.nodes else placed.nodes if placed else (),
        deadline_ms=known.deadline_ms if known else None,
        response_ms=end.response_ms if end else None,
        predicted_ms=end.predicted_ms if end else placed.predicted_ms if placed else None,
        attempts=max(record.attempts, default=0),
        reason=end.reason if end else decided.reason if decided else "",
    )


def view(record: TaskRecord, application: Application | None) -> TaskView:
    """Return a task in detail. The application tells the order of its stages, where it is known."""
    return TaskView(
        row=row(record),
        why=why(record),
        bars=timeline(record, application),
        attempts=tuple(_attempt(number, each) for number, each in sorted(record.attempts.items())),
    )


def _attempt(number: int, record: AttemptRecord) -> AttemptView:
    decided, placed = record.decided, record.placed
    return AttemptView(
        number=number,
        policy=decided.policy if decided else None,
        variant=decided.variant if decided else None,
        reason=decided.reason if decided else "",
        predicted_ms=decided.predicted_ms if decided else None,
        slack_ms=decided.slack_ms if decided else None,
        alternatives=decided.alternatives if decided else (),
        stages=tuple((each.stage, each.node) for each in placed.stages) if placed else (),
        placement=placed.reason if placed else "",
        failures=tuple(f"{each.stage} on {each.node}: {each.reason}" for each in record.failures),
    )


def timeline(record: TaskRecord, application: Application | None) -> tuple[Bar, ...]:
    """Return a bar for each stage and node of a finished task.

    Nodes report durations, and no clock is shared. A stage begins where its source ends; one of unknown
    source begins where the one before it ends.
    """
    end = record.finished
    if end is None:
        return ()
    known = sources(application, end.variant)
    ends: dict[str, float] = {}
    offset = max(end.response_ms - end.after_decision_ms, 0.0) if end.after_decision_ms is not None else 0.0
    before, bars = offset, []
    for report in end.stages:
        source = known.get(report.stage)
        start = offset if source == "input" else ends.get(source, before) if source else before
        done = start + report.queue_ms + report.compute_ms
        ends[report.stage] = max(ends.get(report.stage, 0.0), done)
        bars.append(Bar(report.node, report.stage, start, report.queue_ms, report.compute_ms))
        before = max(before, done)
    return tuple(bars)


def sources(application: Application | None, variant: str | None) -> Mapping[str, str]:
    """Return the stage that each stage of a variant reads; empty where that is not known."""
    for each in application.variants if application else ():
        if each.name == variant:
            return {stage.name: stage.source for stage in each.stages}
    return {}


def why(record: TaskRecord) -> str:
    """Say how a task ended and why, in sentences that need no knowledge of the system."""
    end, last = record.finished, record.last
    said = [_end(record)]
    decided = last.decided
    if decided is not None and decided.variant is not None:
        others = sum(estimate.variant != decided.variant for estimate in decided.alternatives)
        chosen = f"“{decided.variant}” was chosen"
        said.append(
            f"{chosen} among {others + 1} ways to run it: {decided.reason}." if others else f"{chosen}."
        )
    if end is not None and end.predicted_ratio is not None:
        said.append(_prediction(end))
    failures = [each for attempt in record.attempts.values() for each in attempt.failures]
    if failures:
        said.append("It was repeated: " + "; ".join(f"{each.node}: {each.reason}" for each in failures) + ".")
    elif len(record.attempts) > 1:
        said.append(f"It took {max(record.attempts)} attempts.")
    return " ".join(said)


def _end(record: TaskRecord) -> str:
    end = record.finished
    if end is None:
        return "It is not answered yet."
    spare = end.deadline_ms - end.response_ms
    match record.outcome:
        case "on time":
            return f"Answered after {end.response_ms:.0f} ms, {spare:.0f} ms before its deadline."
        case "late":
            return f"Answered after {end.response_ms:.0f} ms, {-spare:.0f} ms too late."
        case other:
            return f"It {_ENDS.get(other, other)} after {end.response_ms:.0f} ms: {end.reason}."


_ENDS = {"expired": "expired", "failed": "failed", "refused": "was refused"}


def _prediction(end: TaskFinished) -> str:
    ratio = end.predicted_ratio or 1.0
    said = f"{end.predicted_ms or 0:.0f} ms were predicted, and it took {end.after_decision_ms or 0:.0f} ms."
    if ratio < _MUCH_MORE or not end.stages:
        return said
    measured_ms = sum(each.queue_ms + each.compute_ms for each in end.stages)
    if (rest_ms := (end.after_decision_ms or 0) - measured_ms) > measured_ms:
        return f"{said} Most of that, {rest_ms:.0f} ms, was sending, loading or merging, not computing."
    slowest = max(end.stages, key=lambda each: each.queue_ms + each.compute_ms)
    part = "waiting" if slowest.queue_ms > slowest.compute_ms else "computing"
    spent = max(slowest.queue_ms, slowest.compute_ms)
    return f"{said} The longest part was {part} on {slowest.node}: {spent:.0f} ms."


def chosen(rows: Sequence[TaskRow], outcome: str, sensor: str, application: str) -> list[TaskRow]:
    """Return the rows that fit a filter; an empty one fits all."""
    return [
        each
        for each in rows
        if (not outcome or each.outcome == outcome)
        and (not sensor or each.sensor == sensor)
        and (not application or each.application == application)
    ]
