"""The life of tasks as a state machine: stimuli in, instructions out. No I/O and no clock.

Every way in which something can go wrong leads to the same place: `_retry`, which begins the next attempt.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from messages.cluster import StageFailure
from messages.task import TaskDecided, TaskPlaced, TaskResult

TerminalStatus = Literal["answered", "expired", "failed", "refused"]

INFEASIBLE_PAUSE_MS = 200.0
"""How long to wait before asking again when no placement was possible."""


@dataclass(slots=True)
class Task:
    """What the gateway knows of an unfinished task."""

    key: str
    application: str
    batch: int
    input_bytes: int
    deadline_ms: float
    accepted_at_ms: float
    """On the clock of this process; negative for tasks accepted before it started."""
    attempt: int = 1
    decided: TaskDecided | None = None
    placed: TaskPlaced | None = None
    boots: dict[str, str] = field(default_factory=dict)
    """Which start of each node the task was sent to."""
    avoid: tuple[str, ...] = ()
    retry_at_ms: float = 0.0
    last_trouble: str = ""

    def slack_ms(self, now_ms: float) -> float:
        """Remaining until the deadline."""
        return self.accepted_at_ms + self.deadline_ms - now_ms


@dataclass(frozen=True, slots=True)
class Announce:
    """Journal the attempt and publish `accepted`."""

    task: Task


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send the micro-batches to the nodes of the root stages."""

    task: Task
    placed: TaskPlaced


@dataclass(frozen=True, slots=True)
class Cancel:
    """Tell nodes to drop what waits of a task up to an attempt."""

    key: str
    attempt: int
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    """Journal the terminal state, then answer."""

    task: Task
    status: TerminalStatus
    reason: str
    result: TaskResult | None
    response_ms: float


Instruction = Announce | Dispatch | Cancel | Finish


@dataclass(frozen=True, slots=True)
class RetryRules:
    """When to try again and when to give up."""

    grace_ms: float = 500.0
    max_attempts: int = 8
    stall_ms: float = 1500.0
    predicted_factor: float = 3.0
    """A task may take this many times its prediction before it counts as stalled."""


class TaskBook:
    """All unfinished tasks. Each method takes a stimulus and yields what is to be done."""

    def __init__(self, rules: RetryRules) -> None:
        self.rules = rules
        self.tasks: dict[str, Task] = {}
        self.retried = 0
        self._online: dict[str, str] = {}

    # --- stimuli -----------------------------------------------------------------------------------

    def accept(self, task: Task, now_ms: float) -> Iterator[Instruction]:
        """A task is in the journal (new, or found there after a restart)."""
        if task.key in self.tasks:
            return
        self.tasks[task.key] = task
        yield from self._begin(task, now_ms)

    def decided(self, decided: TaskDecided, now_ms: float) -> Iterator[Instruction]:
        """The splitter has chosen a variant, or refuses."""
        task = self._current(decided.task, decided.attempt)
        if task is None or task.decided is not None:
            return
        task.decided = decided
        if decided.variant is None:
            yield from self._finish(task, "refused", decided.reason, None, now_ms)

    def placed(self, placed: TaskPlaced, now_ms: float) -> Iterator[Instruction]:
        """The placer has chosen nodes, or found none."""
        task = self._current(placed.task, placed.attempt)
        if task is None or task.placed is not None:
            return
        if not placed.stages:
            task.last_trouble = placed.reason
            task.avoid = ()
            task.retry_at_ms = min(task.retry_at_ms, now_ms + INFEASIBLE_PAUSE_MS * task.attempt)
            return
        task.placed = placed
        nodes = {stage.node for stage in placed.stages}
        gone = sorted(nodes - self._online.keys()) if self._online else []
        if gone:
            yield from self._retry(task, f"node {gone[0]} went away before it got its work", now_ms)
            return
        task.boots = {node: self._online[node] for node in nodes if node in self._online}
        expected_ms = self.rules.predicted_factor * (placed.predicted_ms or 0.0)
        task.retry_at_ms = now_ms + max(expected_ms, self._stall_ms(task))
        yield Dispatch(task, placed)

    def result(self, result: TaskResult, now_ms: float) -> Iterator[Instruction]:
        """The aggregator has merged the outputs."""
        task = self._current(result.task, result.attempt)
        if task is None or task.placed is None or len(result.scores) != task.batch:
            return
        reason = task.decided.reason if task.decided else task.placed.reason
        yield from self._finish(task, "answered", reason, result, now_ms)

    def stage_failed(self, failure: StageFailure, now_ms: float) -> Iterator[Instruction]:
        """A node could not run a stage: try again without it."""
        task = self._current(failure.task, failure.attempt)
        if task is None or task.placed is None:
            return
        if failure.node not in {stage.node for stage in task.placed.stages}:
            return
        if failure.node not in task.avoid:
            task.avoid = (*task.avoid[-8:], failure.node)
        yield from self._retry(task, f"{failure.node}: {failure.kind}: {failure.reason}", now_ms)

    def nodes_online(self, online: Mapping[str, str], now_ms: float) -> Iterator[Instruction]:
        """Which nodes live now, with their boot ids; tasks of a vanished or restarted one are tried again."""
        self._online = dict(online)
        for task in list(self.tasks.values()):
            lost = [node for node, boot in task.boots.items() if self._online.get(node) != boot]
            if lost:
                yield from self._retry(task, f"node {lost[0]} died while it worked on this", now_ms)

    def service_restarted(self, service: str, now_ms: float) -> Iterator[Instruction]:
        """A service has lost what it held: partial outputs, or tasks it was to decide or place."""
        if service not in {"splitter", "placer", "result-aggregator"}:
            return
        for task in list(self.tasks.values()):
            if (task.placed is not None) == (service == "result-aggregator"):
                yield from self._retry(task, f"the {service} restarted", now_ms)

    def tick(self, now_ms: float) -> Iterator[Instruction]:
        """Time has passed: expire what is too late, repeat what stands still."""
        for task in list(self.tasks.values()):
            if task.slack_ms(now_ms) + self.rules.grace_ms <= 0:
                why = "the deadline passed"
                if task.last_trouble:
                    why += f" after attempt {task.attempt}: {task.last_trouble}"
                yield from self._finish(task, "expired", why, None, now_ms)
            elif now_ms >= task.retry_at_ms:
                trouble = task.last_trouble if task.placed is None else ""
                yield from self._retry(task, trouble or "nothing moved for too long", now_ms)

    # --- steps -------------------------------------------------------------------------------------

    def _current(self, key: str, attempt: int) -> Task | None:
        task = self.tasks.get(key)
        return task if task is not None and task.attempt == attempt else None

    def _stall_ms(self, task: Task) -> float:
        return self.rules.stall_ms * 2.0 ** min(task.attempt - 1, 6)

    def _begin(self, task: Task, now_ms: float) -> Iterator[Instruction]:
        task.decided = None
        task.placed = None
        task.boots = {}
        task.retry_at_ms = now_ms + self._stall_ms(task)
        yield Announce(task)

    def _retry(self, task: Task, trouble: str, now_ms: float) -> Iterator[Instruction]:
        task.last_trouble = trouble
        yield from self._cancel(task)
        if task.attempt >= self.rules.max_attempts:
            reason = f"gave up after {task.attempt} attempts; the last: {trouble}"
            yield from self._finish(task, "failed", reason, None, now_ms)
            return
        self.retried += 1
        task.attempt += 1
        yield from self._begin(task, now_ms)

    def _cancel(self, task: Task) -> Iterator[Instruction]:
        if task.placed is not None:
            yield Cancel(task.key, task.attempt, unique(stage.node for stage in task.placed.stages))

    def _finish(
        self, task: Task, status: TerminalStatus, reason: str, result: TaskResult | None, now_ms: float
    ) -> Iterator[Instruction]:
        del self.tasks[task.key]
        if status != "answered":
            yield from self._cancel(task)
        yield Finish(task, status, reason[:1000], result, now_ms - task.accepted_at_ms)


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """Names without repetition, in order of first appearance."""
    return tuple(dict.fromkeys(names))
