"""Records of tasks, and the terms of equation 10 for each interval."""

from collections.abc import Collection, Sequence

from splitplace.messages.task import TaskDecided, TaskFinished
from splitplace.policies.placement.interface import PeriodOutcome
from splitplace.policies.placement.objective import objective, response_share
from splitplace.policies.scoring import accuracy_of, mean, reward
from splitplace.simulator.arrivals import Arrival
from splitplace.simulator.execution import Execution, Machine
from splitplace.simulator.result import TaskRecord, TaskStatus


def record_of(
    arrival: Arrival,
    status: TaskStatus,
    *,
    attempts: int = 1,
    decided: TaskDecided | None = None,
) -> TaskRecord:
    """Record a task without an answer: it ended so, or the end of the simulation cut it off.

    Args:
        arrival: the task.
        status: how it ended.
        attempts: how many there were.
        decided: the decision of the last attempt, if there is one.
    """
    return TaskRecord(
        task=arrival.task,
        application=arrival.application,
        arrived_ms=arrival.at_ms,
        deadline_ms=arrival.deadline_ms,
        batch=arrival.batch,
        status=status,
        variant=decided.variant if decided else None,
        attempts=attempts,
        explored=decided.explored if decided else False,
    )


def answered(record: TaskRecord, outcome: TaskFinished, execution: Execution) -> TaskRecord:
    """Complete the record of a task that has an answer.

    Args:
        record: from `record_of`.
        outcome: as splitter and placer hear of it.
        execution: the attempt that gave the answer.
    """
    response_ms = outcome.response_ms
    if outcome.in_full:
        transfer_ms, compute_ms = execution.critical_ms
    else:
        transfer_ms, compute_ms = execution.parts_until(record.arrived_ms + response_ms)
    return record.model_copy(
        update={
            "variant": outcome.variant,
            "response_ms": response_ms,
            "wait_ms": response_ms - transfer_ms - compute_ms,
            "transfer_ms": transfer_ms,
            "compute_ms": compute_ms,
            "accuracy": accuracy_of(outcome),
            "on_time": outcome.on_time,
            "coverage": outcome.coverage if outcome.coverage is not None else 1.0,
            "migrations": execution.migrations,
        }
    )


class Accounts:
    """Keeps the terms of equation 10, interval by interval."""

    def __init__(self, machines: Collection[Machine], interval_ms: float, alpha: float) -> None:
        """Start with hosts that have done nothing.

        Args:
            machines: all hosts.
            interval_ms: length of an interval.
            alpha: weight of energy in equation 10.
        """
        self.objectives: list[float] = []
        """Equation 10 of every interval in which a task ended."""
        self._machines = machines
        self._most_joules = sum([machine.host.power_watts(1.0) for machine in machines]) * interval_ms / 1000
        self._alpha = alpha
        self._joules = 0.0
        self._left: list[TaskRecord] = []

    def left(self, record: TaskRecord) -> None:
        """Note that a task ended in this interval."""
        self._left.append(record)

    def end_interval(self) -> PeriodOutcome:
        """Close an interval and return its outcome."""
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
        1.0 if record.response_ms is None else response_share(record.response_ms, record.deadline_ms)
        for record in left
    ]
    return PeriodOutcome(
        tasks=len(left),
        reward=mean([reward(record.on_time, record.accuracy) for record in left]) or 0.0,
        energy=energy,
        response=mean(responses) or 0.0,
    )
