"""What is noted of tasks and intervals, and said of them to those who learn."""

from collections.abc import Collection, Sequence

from splitplace.messages.task import StageReport, TaskFinished
from splitplace.policies.placement.interface import PeriodOutcome
from splitplace.policies.placement.objective import objective, response_share
from splitplace.policies.scoring import is_on_time, mean, reward
from splitplace.simulator.arrivals import Arrival
from splitplace.simulator.execution import Execution, Machine, StageRun
from splitplace.simulator.result import TaskRecord, TaskStatus


def record_of(
    arrival: Arrival,
    status: TaskStatus,
    now_ms: float,
    *,
    variant: str | None,
    accuracy: float,
    attempts: int,
    explored: bool,
    execution: Execution | None,
) -> TaskRecord:
    """What is noted of a task that is over, or that the end of the simulation cut off.

    Args:
        arrival: the task.
        status: what became of it.
        now_ms: when that was.
        variant: the last decision.
        accuracy: that of the variant.
        attempts: how many there were.
        explored: whether the last decision explored.
        execution: how it ran; None where it has no answer.
    """
    record = TaskRecord(
        task=arrival.task,
        application=arrival.application,
        arrived_ms=arrival.at_ms,
        deadline_ms=arrival.deadline_ms,
        batch=arrival.batch,
        status=status,
        variant=variant,
        attempts=attempts,
        explored=explored,
    )
    if execution is None:
        return record
    response_ms = now_ms - arrival.at_ms
    transfer_ms, compute_ms = execution.critical_ms
    return record.model_copy(
        update={
            "response_ms": response_ms,
            "wait_ms": execution.began_ms - arrival.at_ms,
            "transfer_ms": transfer_ms,
            "compute_ms": compute_ms,
            "accuracy": accuracy,
            "on_time": is_on_time(response_ms, arrival.deadline_ms),
            "migrations": execution.migrations,
        }
    )


def finished_of(
    record: TaskRecord,
    elapsed_ms: float,
    *,
    reason: str,
    predicted_ms: float | None,
    execution: Execution | None,
) -> TaskFinished:
    """The message from which splitter, placer and their policies learn.

    Args:
        record: of a task that is over.
        elapsed_ms: since its arrival.
        reason: for people.
        predicted_ms: what the placer foresaw.
        execution: how it ran; None where it has no answer.

    Raises:
        ValueError: the task is not over.
    """
    status = record.status
    if status == "overdue" or status == "unfinished":  # noqa: PLR1714 - the type checker follows this form
        raise ValueError(f"task {record.task} is not over")
    runs = execution.runs if execution else {}
    return TaskFinished(
        task=record.task,
        attempt=record.attempts,
        application=record.application,
        batch=record.batch,
        status=status,
        reason=reason[:1000],
        variant=record.variant,
        nodes=tuple(dict.fromkeys(run.machine.name for run in runs.values())),
        deadline_ms=record.deadline_ms,
        response_ms=elapsed_ms,
        predicted_ms=predicted_ms,
        on_time=record.on_time,
        accuracy=record.accuracy if execution else None,
        variant_accuracy=record.accuracy if execution else None,
        stages=tuple(_report(run) for run in runs.values()),
        moved_bytes=round(execution.moved_bytes) if execution else 0,
    )


def _report(run: StageRun) -> StageReport:
    """Of a stage that is through.

    A live node does one call at a time, so its computing time is that of its processor. Where a processor is
    shared, what a call waits for others counts as waiting here too: a crowded host is slow, not dear.
    """
    work = sum([run.execution.work(run, number) for number in range(run.computed)])
    compute_ms = min(run.compute_ms, work / run.machine.processor.score)
    return StageReport(
        stage=run.stage.name,
        node=run.machine.name,
        queue_ms=max(0.0, run.computed_ms - run.received_ms - compute_ms),
        compute_ms=compute_ms,
    )


class Accounts:
    """Keeps the terms of equation 10, interval by interval."""

    def __init__(self, machines: Collection[Machine], interval_ms: float, alpha: float) -> None:
        """Accounts of hosts that have done nothing yet.

        Args:
            machines: all hosts.
            interval_ms: length of an interval.
            alpha: weight of energy in equation 10.
        """
        self.objectives: list[float] = []
        """Equation 10 of every interval in which a task ended."""
        self._machines = machines
        self._most_joules = sum([one.host.power_watts(1.0) for one in machines]) * interval_ms / 1000
        self._alpha = alpha
        self._joules = 0.0
        self._left: list[TaskRecord] = []

    def left(self, record: TaskRecord) -> None:
        """A task ended in this interval."""
        self._left.append(record)

    def end_interval(self) -> PeriodOutcome:
        """What the interval that is over brought."""
        joules = sum([machine.processor.measure().joules for machine in self._machines])
        used, self._joules = joules - self._joules, joules
        left, self._left = self._left, []
        outcome = _outcome(left, used / self._most_joules)
        if left:
            terms = (outcome.reward, outcome.energy, outcome.response)
            self.objectives.append(objective(*terms, self._alpha))
        return outcome


def _outcome(left: Sequence[TaskRecord], energy: float) -> PeriodOutcome:
    """The terms of equation 10.

    Args:
        left: tasks that left in the interval. One without an answer counts as if it took for ever.
        energy: of all hosts in it, over what they take at full load.
    """
    responses = [
        1.0 if one.response_ms is None else response_share(one.response_ms, one.deadline_ms) for one in left
    ]
    return PeriodOutcome(
        tasks=len(left),
        reward=mean([reward(one.on_time, one.accuracy) for one in left]) or 0.0,
        energy=energy,
        response=mean(responses) or 0.0,
    )
