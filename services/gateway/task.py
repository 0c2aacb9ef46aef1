"""One unfinished task: its phase, what is known of it, and the rules for retries. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final, Literal

from splitplace.messages.second_run import SecondRun
from splitplace.messages.task import TaskDecided, TaskPlaced, TaskResult
from splitplace.services.gateway.instructions import Announce, Finish, TerminalStatus, unique

Phase = Literal["deciding", "running", "degraded", "settling"]

TRANSITIONS: Final[Mapping[Phase, frozenset[Phase | Literal["ended"]]]] = {
    "deciding": frozenset({"deciding", "running", "settling", "ended"}),
    "running": frozenset({"deciding", "degraded", "settling", "ended"}),
    "degraded": frozenset({"deciding", "settling", "ended"}),
    "settling": frozenset({"ended"}),
}
"""Which phase may follow which. `deciding` follows itself when the next attempt begins undecided."""

MAX_AVOIDED = 9
"""Nodes that an attempt avoids at most; the oldest is forgiven."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """When to try again and when to give up. The defaults suit tasks of about a second."""

    grace_ms: float = 500.0
    """How long after its deadline a late answer is still given; infinite: always."""
    max_attempts: int = 8
    stall_ms: float = 1500.0
    """Retry a task after this time without progress; doubles with each attempt."""
    predicted_factor: float = 3.0
    """A task may take this many times its prediction before it counts as stalled."""
    replace_ms: float = 0.0
    """How long an attempt that has lost a replica waits for a second run of its work; 0: not at all."""
    pause_ms: float = 200.0
    """Pause before the next attempt where no placement was possible; grows with the number of attempts."""
    max_pause_ms: float = inf
    settle_ms: float = 80.0
    """How long before the deadline the aggregator is asked for a partial result."""
    hand_over_ms: float = 30.0
    """How long before the deadline a partial answer is given, so that it is still on time."""
    least_coverage: float = 0.0
    """Share of the classes that a partial answer must cover; 1: there are no partial answers."""

    def patience_ms(self, task: "Task") -> float:
        """Return how long an attempt may go without progress: at least the stall limit, doubled each time."""
        predicted_ms = (task.placed.predicted_ms if task.placed is not None else None) or 0.0
        return max(self.predicted_factor * predicted_ms, self.stall_ms * 2.0 ** min(task.attempt - 1, 6))

    def settle_at_ms(self, task: "Task") -> float:
        """Return when the aggregator is asked: once before the deadline, once before the end of the grace."""
        if not task.branched or task.settles > 1:
            return inf
        return task.due_ms - self.settle_ms + (self.grace_ms if task.settles else 0.0)

    def expires_at_ms(self, task: "Task") -> float:
        """Return when nobody wants the answer any more."""
        return task.due_ms + self.grace_ms

    def hand_over_at_ms(self, task: "Task") -> float:
        """Return when the best partial result becomes the answer."""
        return inf if task.partial is None else task.due_ms - self.hand_over_ms


@dataclass(frozen=True, slots=True)
class NewTask:
    """An accepted task, as the journal knows it."""

    key: str
    application: str
    batch: int
    input_bytes: int
    deadline_ms: float
    """Duration, from its arrival."""
    accepted_at_ms: float
    """Negative for tasks that were accepted before the clock started."""
    attempt: int = 1
    """Above 1 where an earlier process has begun attempts."""


@dataclass(frozen=True, slots=True)
class Ending:
    """An end without a result, put off for a moment: the aggregator is asked what it has."""

    status: TerminalStatus
    reason: str
    at_ms: float


@dataclass(slots=True)
class Task:
    """An unfinished task."""

    accepted: NewTask
    attempt: int
    phase: Phase = "deciding"
    decided: TaskDecided | None = None
    """The decision of this attempt."""
    placed: TaskPlaced | None = None
    """The placement of this attempt; set in `running` and `degraded`, and kept in `settling`."""
    second: SecondRun | None = None
    """The second run of what is overdue or lost of this attempt."""
    boots: dict[str, str] = field(default_factory=dict)
    """Boot id of each node that this attempt was sent to."""
    lost: set[str] = field(default_factory=set)
    """Nodes from which this attempt gets nothing more."""
    avoid: tuple[str, ...] = ()
    """Nodes that failed this task before."""
    retry_at_ms: float = inf
    """When the attempt counts as stalled."""
    trouble: str = ""
    """Why the last attempt ended, or this one is degraded."""
    branched: bool = False
    """Whether any attempt had branches, so that there can be a partial result."""
    partial: TaskResult | None = None
    """The best partial result of any attempt: the answer where no full one comes in time."""
    settles: int = 0
    """How often the aggregator was asked because of the time: before the deadline, before the grace ends."""
    ending: Ending | None = None
    """Set in `settling`."""

    @property
    def key(self) -> str:
        """`<client>.<task id>.<incarnation>`."""
        return self.accepted.key

    @property
    def due_ms(self) -> float:
        """The deadline, as a point on the clock."""
        return self.accepted.accepted_at_ms + self.accepted.deadline_ms

    def took_part(self, result: TaskResult | None) -> tuple[str, ...]:
        """Return the nodes that took part; of a partial result, those from which something came."""
        if result is not None and (result.coverage < 1 or self.second is not None):
            return unique(report.node for report in result.stages)
        return self.nodes

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes that this attempt was sent to."""
        second = self.second.stages if self.second is not None else ()
        return unique(stage.node for stage in (*self.placed.stages, *second)) if self.placed else ()

    @property
    def needed_nodes(self) -> tuple[str, ...]:
        """The nodes that this attempt still depends on: with a second run, those of it.

        Where that stands in for a lost replica, the others of the first run are needed as well.
        """
        if self.second is not None and self.second.lost is None:
            return self.second.nodes
        return tuple(node for node in self.nodes if node not in self.lost)

    def avoid_node(self, node: str) -> None:
        """Let further attempts avoid a node."""
        if node not in self.avoid:
            self.avoid = (*self.avoid[1 - MAX_AVOIDED :], node)

    def enter(self, phase: Phase) -> None:
        """Change the phase.

        Raises:
            AssertionError: `TRANSITIONS` does not know this transition; a fault of this module.
        """
        if phase not in TRANSITIONS[self.phase]:
            raise AssertionError(f"{self.key}: no transition from {self.phase} to {phase}")
        self.phase = phase


def announcement(task: Task, rules: RetryRules) -> Announce:
    """Return the announcement of the present attempt."""
    known = task.accepted
    return Announce(
        key=task.key,
        attempt=task.attempt,
        application=known.application,
        batch=known.batch,
        input_bytes=known.input_bytes,
        deadline_ms=known.deadline_ms,
        due_ms=task.due_ms,
        avoid=task.avoid,
        grace_ms=rules.grace_ms if rules.grace_ms < inf else None,
    )


def unbegun(task: NewTask, reason: str, now_ms: float) -> Finish:
    """Refuse an accepted task that was never announced."""
    return Finish(
        key=task.key,
        attempt=task.attempt,
        application=task.application,
        batch=task.batch,
        deadline_ms=task.deadline_ms,
        status="refused",
        reason=reason,
        response_ms=now_ms - task.accepted_at_ms,
        result=None,
        decided=None,
        nodes=(),
    )
