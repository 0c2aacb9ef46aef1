"""The life of tasks as a state machine: stimuli in, instructions out. No I/O and no clock.

Every way in which something can go wrong leads to the same place: `_retry`, which begins the next attempt.
One exception: where branches of the answer are left and a new attempt would come too late, the attempt goes
on without what was lost, for a partial answer at the deadline.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from splitplace.messages.application import Application, Variant
from splitplace.messages.cluster import StageFailure
from splitplace.messages.task import TaskDecided, TaskPlaced, TaskResult
from splitplace.services.gateway import partial

TerminalStatus = Literal["answered", "expired", "failed", "refused"]

INFEASIBLE_PAUSE_MS = 200.0
"""How long to wait before asking again when no placement was possible."""


@dataclass(frozen=True, slots=True)
class Ending:
    """An end without a result that is put off for a moment: the aggregator is asked what it has."""

    status: TerminalStatus
    reason: str
    at_ms: float


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
    lost: set[str] = field(default_factory=set)
    """Nodes from which this attempt gets nothing more, though it goes on."""
    partial: TaskResult | None = None
    """The best partial result of any attempt: what is answered where no full one comes in time."""
    branched: bool = False
    """Whether an attempt so far had branches, so that there can be a partial result."""
    times_asked: int = 0
    """How often the aggregator was asked what it has: before the deadline, and before the grace ends."""
    ending: Ending | None = None
    """What this becomes, unless a partial result comes first."""

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
class Settle:
    """Ask the aggregator what it has of a task."""

    key: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Journal the terminal state, then answer."""

    task: Task
    status: TerminalStatus
    reason: str
    result: TaskResult | None
    response_ms: float


Instruction = Announce | Dispatch | Cancel | Settle | Finish


@dataclass(frozen=True, slots=True)
class RetryRules:
    """When to try again and when to give up."""

    grace_ms: float = 500.0
    max_attempts: int = 8
    stall_ms: float = 1500.0
    predicted_factor: float = 3.0
    """A task may take this many times its prediction before it counts as stalled."""
    settle_ms: float = 80.0
    """So long before the deadline the aggregator is asked for a partial result."""
    hand_over_ms: float = 30.0
    """So long before the deadline a partial answer is given, so that it is still on time."""
    least_coverage: float = 0.0
    """Share of the classes that a partial answer must cover."""


class GatewayCore:
    """All unfinished tasks. Each method takes a stimulus and yields what is to be done."""

    def __init__(self, rules: RetryRules, applications: Mapping[str, Application] | None = None) -> None:
        """No task yet.

        Args:
            rules: when to try again and when to give up.
            applications: the catalogue, also as it changes; tasks of unknown ones get no partial answers.
        """
        self.rules = rules
        self._applications = applications if applications is not None else {}
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
            yield from self._end_without_result(task, "refused", decided.reason, now_ms)

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
        task.branched |= self._branches(task) is not None
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
        """The aggregator has merged the outputs: all of them, or those that it had when it was asked."""
        if result.coverage < 1:
            yield from self._keep(result, now_ms)
            return
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
        trouble = f"{failure.node}: {failure.kind}: {failure.reason}"
        yield from self._go_on_without(task, failure.node, trouble, now_ms)

    def nodes_online(self, online: Mapping[str, str], now_ms: float) -> Iterator[Instruction]:
        """Which nodes live now, with their boot ids; tasks of a vanished or restarted one are tried again."""
        self._online = dict(online)
        for task in list(self.tasks.values()):
            lost = [node for node, boot in task.boots.items() if self._online.get(node) != boot]
            for node in lost:
                if node in task.boots:  # else another of them has begun a new attempt
                    trouble = f"node {node} died while it worked on this"
                    yield from self._go_on_without(task, node, trouble, now_ms)

    def service_restarted(self, service: str, now_ms: float) -> Iterator[Instruction]:
        """A service has lost what it held: partial outputs, or tasks it was to decide or place."""
        if service not in {"splitter", "placer", "result-aggregator"}:
            return
        for task in list(self.tasks.values()):
            if (task.placed is not None) == (service == "result-aggregator"):
                yield from self._retry(task, f"the {service} restarted", now_ms)

    def tick(self, now_ms: float) -> Iterator[Instruction]:
        """Time has passed: settle or expire what is too late, repeat what stands still."""
        for task in list(self.tasks.values()):
            slack_ms = task.slack_ms(now_ms)
            if self._is_time_to_ask(task, slack_ms):
                task.times_asked += 1
                yield Settle(task.key)
            if task.ending is not None:
                if now_ms >= task.ending.at_ms:
                    yield from self._finish(task, task.ending.status, task.ending.reason, None, now_ms)
            elif slack_ms + self.rules.grace_ms <= 0:
                why = "the deadline passed"
                if task.last_trouble:
                    why += f" after attempt {task.attempt}: {task.last_trouble}"
                yield from self._finish(task, "expired", why, None, now_ms)
            elif slack_ms <= self.rules.hand_over_ms and task.partial is not None:
                yield from self._finish(task, "expired", task.last_trouble, None, now_ms)
            elif now_ms >= task.retry_at_ms:
                trouble = task.last_trouble if task.placed is None else ""
                yield from self._retry(task, trouble or "nothing moved for too long", now_ms)

    # --- steps -------------------------------------------------------------------------------------

    def _current(self, key: str, attempt: int) -> Task | None:
        task = self.tasks.get(key)
        return task if task is not None and task.attempt == attempt else None

    def _stall_ms(self, task: Task) -> float:
        return self.rules.stall_ms * 2.0 ** min(task.attempt - 1, 6)

    def _branches(self, task: Task) -> Variant | None:
        """The variant that a task runs now, where it has branches."""
        application = self._applications.get(task.application)
        if application is None or task.placed is None:
            return None
        named = (variant for variant in application.variants if variant.name == task.placed.variant)
        variant = next(named, None)
        return variant if variant is not None and partial.has_branches(variant) else None

    def _is_time_to_ask(self, task: Task, slack_ms: float) -> bool:
        """Once before the deadline, once before the end of the grace."""
        if not task.branched or task.times_asked > 1:
            return False
        return slack_ms + task.times_asked * self.rules.grace_ms <= self.rules.settle_ms

    def _keep(self, result: TaskResult, now_ms: float) -> Iterator[Instruction]:
        """A partial result of this or an earlier attempt: the inputs are the same."""
        task = self.tasks.get(result.task)
        if task is None or result.attempt > task.attempt or len(result.scores) != task.batch:
            return
        if partial.is_better(result, task.partial, self.rules.least_coverage):
            task.partial = result
            if task.ending is not None:
                yield from self._finish(task, task.ending.status, task.ending.reason, None, now_ms)

    def _end_without_result(
        self, task: Task, status: TerminalStatus, reason: str, now_ms: float
    ) -> Iterator[Instruction]:
        """Nothing more is tried: end now, or as soon as it is known whether there is a part of an answer."""
        if not task.branched or task.partial is not None:
            yield from self._finish(task, status, reason, None, now_ms)
            return
        end_ms = now_ms + task.slack_ms(now_ms) + self.rules.grace_ms
        task.ending = Ending(status, reason, min(now_ms + self.rules.settle_ms, end_ms))
        yield Settle(task.key)

    def _go_on_without(self, task: Task, node: str, trouble: str, now_ms: float) -> Iterator[Instruction]:
        """A node is lost to this attempt: wait for the other branches, or try again."""
        task.lost.add(node)
        task.boots.pop(node, None)
        variant = self._branches(task)
        if variant is not None and task.placed is not None:
            nodes = {stage.stage: stage.node for stage in task.placed.stages}
            coverage = partial.surviving_coverage(variant, nodes, task.lost)
            enough = coverage > 0 and coverage >= self.rules.least_coverage
            if enough and partial.comes_too_late(task.decided, task.slack_ms(now_ms)):
                task.last_trouble = trouble
                task.retry_at_ms = inf
                return
        yield from self._retry(task, trouble, now_ms)

    def _begin(self, task: Task, now_ms: float) -> Iterator[Instruction]:
        task.decided = None
        task.placed = None
        task.boots = {}
        task.lost = set()
        task.retry_at_ms = now_ms + self._stall_ms(task)
        yield Announce(task)

    def _retry(self, task: Task, trouble: str, now_ms: float) -> Iterator[Instruction]:
        if task.ending is not None:
            return
        task.last_trouble = trouble
        yield from self._cancel(task)
        if task.attempt >= self.rules.max_attempts:
            reason = f"gave up after {task.attempt} attempts; the last: {trouble}"
            yield from self._end_without_result(task, "failed", reason, now_ms)
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
            if task.partial is not None:
                decision = task.decided.reason if task.decided else ""
                status, result = "answered", task.partial
                reason = partial.reason(result, task.last_trouble, decision)
        yield Finish(task, status, reason[:1000], result, now_ms - task.accepted_at_ms)


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """Names without repetition, in order of first appearance."""
    return tuple(dict.fromkeys(names))
