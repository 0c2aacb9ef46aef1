"""The life of tasks as a state machine: stimuli in, instructions out. No I/O and no clock.

`docs/task-life.md` shows the phases and transitions; a test checks the page against `TRANSITIONS`.

Every trouble leads to `_retry`, which begins the next attempt, with two exceptions. What a lost replica still
owes runs a second time in the same attempt. Where some branches are left and a new attempt would come too
late, the attempt goes on without what was lost (phase `degraded`), for a partial answer at the deadline.

Two shells drive this core: `services.gateway.service` on MQTT and real time, and `simulator.simulation` on a
virtual clock. All times are points on the clock of the shell, in ms.
"""

from collections.abc import Iterable, Mapping
from math import inf
from types import MappingProxyType
from typing import Final

from splitplace.messages.application import Application, Variant
from splitplace.messages.cluster import NodeState, StageFailure
from splitplace.messages.second_run import SecondRun
from splitplace.messages.task import TaskDecided, TaskPlaced, TaskResult
from splitplace.services.gateway import partial, second_runs
from splitplace.services.gateway.agenda import Agenda
from splitplace.services.gateway.instructions import (
    Cancel,
    Dispatch,
    Finish,
    Instruction,
    Settle,
    TerminalStatus,
)
from splitplace.services.gateway.loading import Loading
from splitplace.services.gateway.progress import Deciders
from splitplace.services.gateway.task import Ending, NewTask, RetryRules, Task, announcement

NO_REASONS: Final[Mapping[str, str]] = MappingProxyType({})


class GatewayCore:
    """All unfinished tasks. Each method takes a stimulus and returns what is to be done, in order."""

    def __init__(self, rules: RetryRules, applications: Mapping[str, Application] | None = None) -> None:
        """Start without tasks.

        Args:
            rules: when to try again and when to give up.
            applications: the catalogue, live: tasks of unknown applications get no partial answers.
        """
        self.rules = rules
        self.retried = 0
        """Attempts begun after a first one."""
        self._applications = applications if applications is not None else {}
        self._tasks: dict[str, Task] = {}
        self._agenda = Agenda()
        self._online: dict[str, str] = {}
        self._deciders = Deciders()
        self._loading = Loading(self._applications)

    # --- questions ---------------------------------------------------------------------------------

    @property
    def tasks(self) -> Mapping[str, Task]:
        """Unfinished tasks by key; not to be changed."""
        return self._tasks

    @property
    def next_due_ms(self) -> float:
        """When `time_passed` must be called at the latest; infinite while nothing waits for time."""
        return self._agenda.next_ms

    def is_current(self, key: str, attempt: int) -> bool:
        """Whether this attempt at a task is neither over nor superseded."""
        return self._current(key, attempt) is not None

    # --- stimuli -----------------------------------------------------------------------------------

    def accept(self, task: NewTask, now_ms: float) -> list[Instruction]:
        """A task is in the journal: new, or found there after a restart."""
        if task.key in self._tasks:
            return []
        made = Task(task, task.attempt)
        self._tasks[task.key] = made
        return self._after(made, self._announce(made, now_ms))

    def decided(self, decided: TaskDecided, now_ms: float) -> list[Instruction]:
        """The splitter has chosen a variant, or refuses."""
        task = self._current(decided.task, decided.attempt)
        if task is None or task.phase == "settling" or task.decided is not None:
            return []
        task.decided = decided
        if task.phase == "deciding":
            self._passed_over(self._deciders.decided(task.key, now_ms), now_ms)
        if decided.variant is not None:
            return []
        return self._after(task, self._end_without_result(task, "refused", decided.reason, now_ms))

    def placed(self, placed: TaskPlaced, now_ms: float) -> list[Instruction]:
        """The placer has chosen nodes, or found none."""
        task = self._current(placed.task, placed.attempt)
        if task is None or task.phase != "deciding":
            return []
        self._passed_over(self._deciders.placed(task.key, now_ms), now_ms)
        if not placed.stages:
            return self._after(task, self._pause(task, placed.reason, now_ms))
        return self._after(task, self._dispatch(task, placed, now_ms))

    def second_run(self, second: SecondRun, now_ms: float) -> list[Instruction]:
        """What is overdue or lost of a running attempt runs a second time, on other nodes."""
        task = self._current(second.task, second.attempt)
        if task is None:
            return []
        return self._after(task, second_runs.begin(task, second, self._online, self.rules, now_ms))

    def moved(self, placed: TaskPlaced, now_ms: float) -> list[Instruction]:
        """Stages of an attempt that runs stand on other nodes from now on."""
        task = self._current(placed.task, placed.attempt)
        if task is None or task.phase not in {"running", "degraded"}:
            return []
        task.placed = placed
        nodes = {stage.node for stage in placed.stages} - task.lost
        gone = sorted(nodes - self._online.keys()) if self._online else []
        if gone:
            return self._after(task, self._retry(task, f"node {gone[0]} went away", now_ms))
        task.boots = {node: self._online[node] for node in nodes if node in self._online}
        return []

    def result(self, result: TaskResult, now_ms: float) -> list[Instruction]:
        """The aggregator has merged the outputs: all of them, or those that it had when it was asked."""
        if result.coverage < 1:
            return self._keep_partial(result, now_ms)
        task = self._current(result.task, result.attempt)
        if task is None or task.placed is None or len(result.inputs) != task.accepted.batch:
            return []
        if not result.predicted:
            return self._finish(task, "failed", partial.NOT_FINITE, None, now_ms)
        reason = task.decided.reason if task.decided else task.placed.reason
        return self._finish(task, "answered", reason, result, now_ms)

    def stage_failed(self, failure: StageFailure, now_ms: float) -> list[Instruction]:
        """A node could not run a stage: try again without it."""
        task = self._current(failure.task, failure.attempt)
        if task is None or task.phase not in {"running", "degraded"} or task.placed is None:
            return []
        if failure.node not in task.needed_nodes:
            return []
        task.avoid_node(failure.node)
        trouble = f"{failure.node}: {failure.kind}: {failure.reason}"
        return self._after(task, self._go_on_without(task, failure.node, trouble, now_ms))

    def nodes_online(
        self, online: Mapping[str, str], now_ms: float, stalled: Mapping[str, str] = NO_REASONS
    ) -> list[Instruction]:
        """These nodes live and compute now, with their boot ids. Retry the tasks of the others.

        Args:
            online: the nodes that can be used.
            now_ms: the present moment.
            stalled: nodes that live but do not compute, with the reasons.
        """
        self._online = dict(online)
        instructions: list[Instruction] = []
        for task in list(self._tasks.values()):
            gone = [node for node, boot in task.boots.items() if self._online.get(node) != boot]
            for node in gone:
                if node in task.boots:  # else another of them has begun a new attempt
                    trouble = f"node {node} died while it worked on this"
                    if node in stalled:
                        trouble = f"node {node} stopped computing: {stalled[node]}"
                    instructions += self._after(task, self._go_on_without(task, node, trouble, now_ms))
        return instructions

    def note_nodes(self, nodes: Iterable[NodeState], now_ms: float) -> None:
        """Note what nodes have loaded and load now: a task that waits for its fragment does not stall."""
        self._loading.report(nodes, now_ms)

    def service_restarted(self, service: str, now_ms: float) -> list[Instruction]:
        """A service has lost what it held: partial outputs, or tasks it was to decide or place."""
        if service not in {"splitter", "placer", "result-aggregator"}:
            return []
        phases = {"running", "degraded"} if service == "result-aggregator" else {"deciding"}
        instructions: list[Instruction] = []
        for task in list(self._tasks.values()):
            if task.phase in phases:
                instructions += self._after(task, self._retry(task, f"the {service} restarted", now_ms))
        return instructions

    def time_passed(self, now_ms: float) -> list[Instruction]:
        """Settle, hand over or expire what is due, and repeat what stands still."""
        instructions: list[Instruction] = []
        for key in self._agenda.take_due(now_ms):
            task = self._tasks[key]
            instructions += self._after(task, self._on_time(task, now_ms))
        return instructions

    # --- time --------------------------------------------------------------------------------------

    def _on_time(self, task: Task, now_ms: float) -> list[Instruction]:
        instructions: list[Instruction] = []
        if now_ms >= self.rules.settle_at_ms(task):
            task.settles += 1
            instructions.append(Settle(task.key))
        if task.ending is not None:
            if now_ms >= task.ending.at_ms:
                instructions += self._finish(task, task.ending.status, task.ending.reason, None, now_ms)
        elif now_ms >= self.rules.expires_at_ms(task):
            why = "the deadline passed"
            if task.trouble:
                why += f" after attempt {task.attempt}: {task.trouble}"
            instructions += self._finish(task, "expired", why, None, now_ms)
        elif now_ms >= self.rules.hand_over_at_ms(task):
            instructions += self._finish(task, "expired", task.trouble, None, now_ms)
        elif now_ms >= task.retry_at_ms:
            instructions += self._on_stall(task, now_ms)
        return instructions

    def _on_stall(self, task: Task, now_ms: float) -> list[Instruction]:
        if second_runs.is_awaited(task):
            return self._degrade_or_retry(task, task.trouble, now_ms)
        if self._is_excused(task, now_ms):
            return []
        trouble = task.trouble if task.phase == "deciding" else ""
        nodes = task.took_part(None)
        if self._online.keys() - {*nodes, *task.avoid}:  # else there would be no node left to try
            for node in nodes:
                task.avoid_node(node)
        return self._retry(task, trouble or "nothing moved for too long", now_ms)

    def _is_excused(self, task: Task, now_ms: float) -> bool:
        """Whether an attempt waits for a fragment, or behind others that were decided or placed lately."""
        decided_ms = self._deciders.waits_since_ms(task.key) + self.rules.patience_ms(task)
        task.retry_at_ms = max(task.retry_at_ms, decided_ms, self._loading.excused_until_ms(task, now_ms))
        return task.retry_at_ms > now_ms

    def _passed_over(self, keys: Iterable[str], now_ms: float) -> None:
        """A service has handled what came after these: from now on their silence is a stall."""
        for key in keys:
            task = self._tasks[key]
            task.retry_at_ms = max(task.retry_at_ms, now_ms + self.rules.patience_ms(task))
            self._after(task, [])

    def _next_due_ms(self, task: Task) -> float:
        if task.ending is not None:
            return min(task.ending.at_ms, self.rules.settle_at_ms(task))
        return min(
            self.rules.settle_at_ms(task),
            self.rules.expires_at_ms(task),
            self.rules.hand_over_at_ms(task),
            task.retry_at_ms,
        )

    def _after(self, task: Task, instructions: list[Instruction]) -> list[Instruction]:
        """Note when the task needs attention next; passes the instructions on."""
        if task.key in self._tasks:
            self._agenda.plan(task.key, self._next_due_ms(task))
        return instructions

    # --- steps -------------------------------------------------------------------------------------

    def _current(self, key: str, attempt: int) -> Task | None:
        task = self._tasks.get(key)
        return task if task is not None and task.attempt == attempt else None

    def _announce(self, task: Task, now_ms: float) -> list[Instruction]:
        """Begin an attempt."""
        self._deciders.announced(task.key)
        task.decided = None
        task.placed = None
        task.second = None
        task.boots = {}
        task.lost = set()
        task.retry_at_ms = now_ms + self.rules.patience_ms(task)
        return [announcement(task, self.rules)]

    def _pause(self, task: Task, reason: str, now_ms: float) -> list[Instruction]:
        """No placement is possible now: ask again soon, and allow all nodes."""
        task.trouble = reason
        task.avoid = ()
        pause_ms = min(self.rules.max_pause_ms, self.rules.pause_ms * task.attempt)
        task.retry_at_ms = min(task.retry_at_ms, now_ms + pause_ms)
        return []

    def _dispatch(self, task: Task, placed: TaskPlaced, now_ms: float) -> list[Instruction]:
        task.enter("running")
        task.placed = placed
        task.branched |= self._branches(task) is not None
        nodes = {stage.node for stage in placed.stages}
        gone = sorted(nodes - self._online.keys()) if self._online else []
        if gone:
            task.avoid_node(gone[0])  # the placer does not know while the monitor is away as well
            return self._retry(task, f"node {gone[0]} went away before it got its work", now_ms)
        task.boots = {node: self._online[node] for node in nodes if node in self._online}
        task.retry_at_ms = now_ms + max(self.rules.patience_ms(task), self._loading.floor_ms(task))
        return [
            Dispatch(
                task.key, task.attempt, task.accepted.application, placed, self.rules.expires_at_ms(task)
            )
        ]

    def _branches(self, task: Task) -> Variant | None:
        """The variant that a task runs now, where it has branches that may answer without each other."""
        application = self._applications.get(task.accepted.application)
        if application is None or task.placed is None or self.rules.least_coverage >= 1:
            return None
        named = (variant for variant in application.variants if variant.name == task.placed.variant)
        variant = next(named, None)  # its stages are fixed if it has branches
        return variant if variant is not None and partial.has_branches(variant) else None

    def _go_on_without(self, task: Task, node: str, trouble: str, now_ms: float) -> list[Instruction]:
        """A node is lost to this attempt: others do its work, or it goes on without, or it ends."""
        task.lost.add(node)
        task.boots.pop(node, None)
        asked = second_runs.replace_lost(task, node, trouble, self.rules, now_ms)
        return asked or self._degrade_or_retry(task, trouble, now_ms)

    def _degrade_or_retry(self, task: Task, trouble: str, now_ms: float) -> list[Instruction]:
        if task.phase == "settling":
            return []
        variant = self._branches(task)
        if variant is not None and task.placed is not None:
            coverage = partial.surviving_coverage(variant, task.placed, task.lost)
            enough = coverage > 0 and coverage >= self.rules.least_coverage
            if enough and partial.comes_too_late(task.decided, task.due_ms - now_ms):
                if task.phase == "running":
                    task.enter("degraded")
                task.trouble = trouble
                task.retry_at_ms = inf
                return []
        return self._retry(task, trouble, now_ms)

    def _retry(self, task: Task, trouble: str, now_ms: float) -> list[Instruction]:
        """Cancel this attempt and begin the next one, if there may be one."""
        if task.phase == "settling":
            return []
        task.trouble = trouble
        instructions = self._cancel(task)
        if task.attempt >= self.rules.max_attempts:
            reason = f"gave up after {task.attempt} attempts; the last: {trouble}"
            return instructions + self._end_without_result(task, "failed", reason, now_ms)
        self.retried += 1
        task.attempt += 1
        task.enter("deciding")
        return instructions + self._announce(task, now_ms)

    def _cancel(self, task: Task) -> list[Instruction]:
        if task.placed is None:
            return []
        return [Cancel(task.key, task.attempt, task.nodes)]

    def _keep_partial(self, result: TaskResult, now_ms: float) -> list[Instruction]:
        """Keep a partial result of this or an earlier attempt, if it is the best: the inputs are the same."""
        task = self._tasks.get(result.task)
        if task is None or result.attempt > task.attempt or len(result.inputs) != task.accepted.batch:
            return []
        if not partial.is_better(result, task.partial, self.rules.least_coverage):
            return []
        task.partial = result
        if task.ending is not None:
            return self._finish(task, task.ending.status, task.ending.reason, None, now_ms)
        return self._after(task, [])

    def _end_without_result(
        self, task: Task, status: TerminalStatus, reason: str, now_ms: float
    ) -> list[Instruction]:
        """Nothing more is tried: end now, or as soon as it is known whether there is a part of an answer."""
        if not task.branched or task.partial is not None:
            return self._finish(task, status, reason, None, now_ms)
        at_ms = min(now_ms + self.rules.settle_ms, self.rules.expires_at_ms(task))
        task.enter("settling")
        task.ending = Ending(status, reason, at_ms)
        return [Settle(task.key)]

    def _finish(
        self, task: Task, status: TerminalStatus, reason: str, result: TaskResult | None, now_ms: float
    ) -> list[Instruction]:
        """End the task; a partial result turns any other end into an answer."""
        del self._tasks[task.key]
        self._deciders.forget(task.key)
        self._agenda.forget(task.key)
        # After an answer, the other run of each micro-batch is not wanted any more.
        instructions = self._cancel(task) if status != "answered" or task.second is not None else []
        if status != "answered" and task.partial is not None:
            decision = task.decided.reason if task.decided else ""
            status, result = "answered", task.partial
            reason = partial.reason(result, task.trouble, decision)
        return [
            *instructions,
            Finish(
                key=task.key,
                attempt=task.attempt,
                application=task.accepted.application,
                batch=task.accepted.batch,
                deadline_ms=task.accepted.deadline_ms,
                status=status,
                reason=reason[:1000],
                response_ms=now_ms - task.accepted.accepted_at_ms,
                result=result,
                decided=task.decided,
                nodes=task.took_part(result),
            ),
        ]
