"""Collects the outputs of tasks. Pure: outputs and times in, results out.

A task is complete when every last stage of its variant has given every micro-batch. Outputs of an older
attempt, of a task that is finished and those seen before change nothing; outputs that contradict the
catalogue, the placement or each other are refused one by one.

An output counts only if its trace names the node of the placement for every stage. Each receiver checks that
the last node of a trace is the sender. So a node without a stage of a task can change nothing in its result.

A task whose branches are missing in part has a *partial* result over the classes of the branches that have
come. It is returned when the gateway asks for it, and when a newer attempt replaces the outputs; the gateway
decides whether to use it (docs/decisions/0012-partial-answers.md).
"""

import contextlib
from collections import OrderedDict, deque
from collections.abc import Mapping

from splitplace.messages.application import Application
from splitplace.messages.frames import FrameError, TensorHeader
from splitplace.messages.limits import MAX_DEALT, MEBIBYTE
from splitplace.messages.second_run import LostReplica, OverdueOutputs, SecondRun, TaskLagging
from splitplace.messages.task import TaskPlaced, TaskResult
from splitplace.policies.ended import EndedTasks
from splitplace.policies.lagging import ONLY, Lagging
from splitplace.policies.placement.second_runs import outputs_through
from splitplace.services.result_aggregator.keeping import Kept, Unread
from splitplace.services.result_aggregator.outputs import SecondPath, TaskOutputs

MAX_TASKS = 4096
MAX_BYTES = 64 * MEBIBYTE
MAX_EARLY = 256
"""Outputs that wait for their catalogue entry or their placement."""
MAX_EARLY_BYTES = 16 * MEBIBYTE
"""Their memory."""
MAX_PLACED_TASKS = 8192
MAX_APPLICATIONS = 256
MAX_REMEMBERED = 16_384
REMEMBER_MS = 60_000.0
"""Time for which duplicates of a finished task are recognised; later ones waste a little memory."""


class ResultAggregatorCore:
    """All incomplete tasks. Times are of any clock that never goes back."""

    def __init__(self, *, max_tasks: int = MAX_TASKS, max_bytes: int = MAX_BYTES) -> None:
        """A core that knows no application and no task.

        Args:
            max_tasks: incomplete tasks; beyond it, the one longest without progress is dropped (the
                gateway's next attempt brings it back).
            max_bytes: memory of their outputs, bounded in the same way.
        """
        self._max_tasks = max_tasks
        self._max_bytes = max_bytes
        self._applications: dict[str, Application] = {}
        self._tasks: OrderedDict[str, TaskOutputs] = OrderedDict()
        self._finished = EndedTasks(keep_ms=REMEMBER_MS, most=MAX_REMEMBERED)
        self._placed: OrderedDict[str, dict[int, TaskPlaced]] = OrderedDict()
        self._early: deque[tuple[TensorHeader, Kept | Unread, float]] = deque(maxlen=MAX_EARLY)
        self._held_bytes = 0
        self._lagging = Lagging()
        self._second: dict[str, SecondPath] = {}

    def __len__(self) -> int:
        """Number of incomplete tasks."""
        return len(self._tasks)

    @property
    def held_bytes(self) -> int:
        """Memory of the outputs of incomplete tasks."""
        return self._held_bytes

    def add_application(self, application: Application, now_ms: float) -> tuple[TaskResult, ...]:
        """Add or replace a catalogue entry. Returns results of outputs that waited for it.

        Tasks that have begun keep the entry with which they began.
        """
        if application.name not in self._applications and len(self._applications) >= MAX_APPLICATIONS:
            return ()
        self._applications[application.name] = application
        return self._add_early(now_ms)

    def place(self, placed: TaskPlaced, now_ms: float) -> tuple[TaskResult, ...]:
        """Note where an attempt runs. Returns results of outputs that waited for that.

        The first placement of an attempt counts, as it does for the gateway.
        """
        if not placed.stages or placed.attempt <= self._finished.attempt(placed.task):
            return ()
        attempts = self._placed.setdefault(placed.task, {})
        if placed.attempt not in attempts:
            attempts[placed.attempt] = placed
            self._await(placed, now_ms)
        if len(self._placed) > MAX_PLACED_TASKS:
            forgotten, _ = self._placed.popitem(last=False)
            self._second.pop(forgotten, None)
        return self._add_early(now_ms)

    def second_run(self, second: SecondRun) -> None:
        """Note that what was overdue of an attempt runs a second time. The first such message counts."""
        placed = self._placed.get(second.task, {}).get(second.attempt)
        if placed is None or second.task in self._second:
            return
        application = self._applications.get(placed.application)
        path = SecondPath.of(second, application) if application is not None else None
        if path is None:
            return
        self._second[second.task] = path
        held = self._tasks.get(second.task)
        if held is not None and held.first.attempt == second.attempt:
            held.second = path

    def lagging(self, now_ms: float) -> list[TaskLagging]:
        """Return the attempts whose outputs are overdue, each once."""
        return [
            TaskLagging(task=each.task, attempt=each.attempt, outputs=_outputs(each.missing))
            for each in self._lagging.overdue(now_ms)
        ]

    def lost(self, lost: LostReplica) -> TaskLagging | None:
        """Return what will not come of an attempt, because a node is gone; None if that is nothing."""
        placed = self._placed.get(lost.task, {}).get(lost.attempt)
        application = self._applications.get(placed.application) if placed is not None else None
        if placed is None or application is None:
            return None
        missing = _outputs(self._lagging.missing(lost.task, lost.attempt))
        outputs = outputs_through(application, placed, missing, lost.node)
        if not outputs:
            return None
        return TaskLagging(task=lost.task, attempt=lost.attempt, outputs=outputs, lost=lost.node)

    @property
    def lagging_at_ms(self) -> float:
        """When `lagging` must be called next; infinite while nothing is awaited."""
        return self._lagging.next_due_ms

    def unread(self, application: str) -> tuple[TensorHeader, Unread] | None:
        """Return an output that waits for this catalogue entry; None if none does.

        Whoever adds the entry reads them first (`read`): that takes too long for an event loop.
        """
        for header, output, _ in self._early:
            if header.application == application and isinstance(output, Unread):
                return header, output
        return None

    def read(self, unread: Unread, kept: Kept | None) -> None:
        """Replace an output that waits by what is kept of it; None drops it."""
        early = list(self._early)
        self._early.clear()
        for header, output, ends_ms in early:
            if output is not unread:
                self._early.append((header, output, ends_ms))
            elif kept is not None:
                self._early.append((header, kept, ends_ms))

    def application(self, name: str) -> Application | None:
        """Return a catalogue entry; None if it is not known yet."""
        return self._applications.get(name)

    def may_send(self, header: TensorHeader) -> bool:
        """Whether an output can be what the placement asks for, as far as that is known."""
        placed = self._placed.get(header.task, {}).get(header.attempt)
        if header.second_run:
            second = self._second.get(header.task)
            return second is not None and second.leads_here(header)
        return placed is None or placed.runs(header.stage, header.micro_batch, header.sender)

    def add(self, header: TensorHeader, output: Kept | Unread, now_ms: float) -> TaskResult | None:
        """Add one output of one micro-batch.

        Returns:
            The result, if this was the last output missing; the partial result of the older attempt, if this
            is the first output of a newer one.

        Raises:
            FrameError: it contradicts the catalogue or the outputs before it.
        """
        if header.attempt <= self._finished.attempt(header.task):
            return None
        application = self._applications.get(header.application)
        placed = self._placed.get(header.task, {}).get(header.attempt)
        if application is None or placed is None or isinstance(output, Unread):
            self._wait(header, output, now_ms)
            return None
        task = self._tasks.get(header.task)
        if task is not None and header.attempt < task.first.attempt:
            return None
        if task is None or header.attempt > task.first.attempt:
            task = TaskOutputs.begin(header, application, placed, now_ms)
            second = self._second.get(header.task)
            if second is not None and second.run.attempt == header.attempt:
                task.second = second
        elif task.has(header):
            return None
        task.check(header, output)
        replaced = self._tasks.get(header.task)
        self._drop(header.task)
        task.take(header, output)
        branch = task.sink_of(header) if len(task.sinks) > 1 else ONLY
        self._lagging.came(header.task, header.attempt, header.micro_batch, branch)
        if not task.missing:
            self._finished.add(header.task, header.attempt, now_ms)
            return task.result()
        self._tasks[header.task] = task
        self._held_bytes += task.held_bytes
        while len(self._tasks) > self._max_tasks or self._held_bytes > self._max_bytes:
            self._drop(next(iter(self._tasks)))
        return replaced.partial() if replaced is not None and replaced is not task else None

    def settle(self, task: str) -> TaskResult | None:
        """Return a partial result of an unfinished task; None if some input has no output yet.

        The task goes on: a full result may still come.
        """
        held = self._tasks.get(task)
        return held.partial() if held is not None else None

    def finish(self, task: str, attempt: int, now_ms: float) -> None:
        """Drop a task that the gateway has answered."""
        self._drop(task)
        self._placed.pop(task, None)
        self._second.pop(task, None)
        self._lagging.forget(task)
        self._finished.add(task, attempt, now_ms)

    def expire(self, now_ms: float) -> int:
        """Drop expired tasks. Returns their number."""
        gone = [name for name, task in self._tasks.items() if now_ms >= task.ends_ms]
        for name in gone:
            self._drop(name)
        self._finished.forget(now_ms)
        return len(gone)

    def _await(self, placed: TaskPlaced, now_ms: float) -> None:
        """Notice when the outputs of an attempt are overdue."""
        self._second.pop(placed.task, None)
        application = self._applications.get(placed.application)
        if application is None or placed.predicted_ms is None or placed.micro_batch_count > MAX_DEALT:
            return
        variant = next((known for known in application.variants if known.name == placed.variant), None)
        if variant is not None:
            sinks = [sink.name for sink in variant.sinks]
            self._lagging.await_outputs(
                placed.task,
                placed.attempt,
                (placed.application, placed.variant),
                micro_batches=placed.micro_batch_count,
                branches=sinks if len(sinks) > 1 else (ONLY,),
                expected_ms=placed.predicted_ms,
                now_ms=now_ms,
            )

    def _wait(self, header: TensorHeader, output: Kept | Unread, now_ms: float) -> None:
        """Keep an output for which the catalogue entry or the placement is missing."""
        self._early.append((header, output, now_ms + header.expires_ms))
        while sum(early.nbytes for _, early, _ in self._early) > MAX_EARLY_BYTES:
            self._early.popleft()

    def _add_early(self, now_ms: float) -> tuple[TaskResult, ...]:
        """Add the outputs that waited, as far as everything is known now. Returns results."""
        waiting = tuple(self._early)
        self._early.clear()
        results: list[TaskResult] = []
        for header, output, ends_ms in waiting:
            with contextlib.suppress(FrameError):
                left_ms = ends_ms - now_ms
                if left_ms > 0:
                    changed = header.model_copy(update={"expires_ms": left_ms})
                    result = self.add(changed, output, now_ms)
                    results += [result] if result else []
        return tuple(results)

    def _drop(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            self._held_bytes -= task.held_bytes


def _outputs(missing: Mapping[str, tuple[int, ...]]) -> tuple[OverdueOutputs, ...]:
    """Return micro-batches by last stage as a message has them."""
    return tuple(
        OverdueOutputs(branch=None if branch == ONLY else branch, micro_batches=numbers)
        for branch, numbers in missing.items()
    )
