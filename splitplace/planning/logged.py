"""A live run as its log tells it: tasks with their decisions and ends, and the nodes. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from splitplace.messages.cluster import ClusterState, NodeState
from splitplace.messages.task import TaskDecided, TaskFinished
from splitplace.simulator.arrivals import Arrival

LogEntry = tuple[float | None, TaskDecided | TaskFinished | ClusterState]
"""A message with its time in Unix seconds, where that is known."""


@dataclass(frozen=True, slots=True)
class LoggedTask:
    """A task with its first decision and its end."""

    decided: TaskDecided
    finished: TaskFinished
    at_s: float | None
    """When it was decided."""

    @property
    def deadline_ms(self) -> float:
        """From its arrival."""
        return self.finished.deadline_ms

    @property
    def intake_ms(self) -> float:
        """From its arrival to its first decision."""
        return max(0.0, self.deadline_ms - self.decided.slack_ms)

    @property
    def on_time(self) -> bool:
        """Whether it was answered in time."""
        return self.finished.status == "answered" and self.finished.on_time

    @property
    def went_well(self) -> bool:
        """Whether its first attempt was answered in full, so that its times tell something."""
        return self.finished.in_full and self.decided.attempt == self.finished.attempt == 1


@dataclass(slots=True)
class LoggedRun:
    """What a log holds. Tasks are in the order of their decisions."""

    tasks: list[LoggedTask] = field(default_factory=list)
    states: dict[str, list[NodeState]] = field(default_factory=dict)
    """What each node was, from time to time."""

    @property
    def nodes(self) -> Sequence[NodeState]:
        """Each node as it was last, with the median of its speeds."""
        return [
            states[-1].model_copy(update={"score": self.scores[name], "online": True})
            for name, states in self.states.items()
            if name in self.scores
        ]

    @property
    def scores(self) -> Mapping[str, float]:
        """Speed of each node: the median over the run."""
        known = {
            name: [each.score for each in states if each.score > 0] for name, states in self.states.items()
        }
        return {name: median(scores) for name, scores in known.items() if scores}

    @property
    def arms(self) -> frozenset[str]:
        """Variants that could be chosen: those that were, or that the policy scored."""
        return frozenset(
            estimate.variant
            for task in self.tasks
            for estimate in task.decided.alternatives
            if estimate.score is not None or estimate.variant == task.decided.variant
        )

    def arrivals(self) -> Sequence[Arrival] | None:
        """Return the tasks as they arrived; None where the log does not tell when."""
        times = [task.at_s for task in self.tasks]
        known = [at_s for at_s in times if at_s is not None]
        if not known or len(known) < len(times):
            return None
        found = [
            Arrival(
                f"sim.{number}",
                1000 * (at_s - known[0]) - task.intake_ms,
                task.decided.application,
                task.decided.batch,
                task.deadline_ms,
            )
            for number, (task, at_s) in enumerate(zip(self.tasks, known, strict=True))
        ]
        first_ms = min(task.at_ms for task in found)
        return [
            Arrival(task.task, task.at_ms - first_ms, task.application, task.batch, task.deadline_ms)
            for task in found
        ]

    @property
    def unrestricted(self) -> Sequence[int]:
        """Places of all tasks but those that might not have a variant that could run.

        A policy that scores variants scores all that it may choose. So where no variant of a task was scored
        although one could run, and others of its application were, the splitter had fewer variants then.
        """
        scored = [any(each.score is not None for each in task.decided.alternatives) for task in self.tasks]
        applications = {task.decided.application for task, its in zip(self.tasks, scored, strict=True) if its}
        return [
            number
            for number, task in enumerate(self.tasks)
            if scored[number]
            or task.decided.application not in applications
            or all(each.predicted_ms is None for each in task.decided.alternatives)
        ]

    def only(self, places: Collection[int]) -> "LoggedRun":
        """Return the tasks at some places, with all that is known of the nodes."""
        return LoggedRun([self.tasks[place] for place in sorted(places)], self.states)


def logged_run(entries: Iterable[LogEntry]) -> LoggedRun:
    """Put a log together. Tasks without both a decision and an end are left out."""
    run = LoggedRun()
    decided: dict[str, tuple[float | None, TaskDecided]] = {}
    ends: dict[str, TaskFinished] = {}
    for at_s, message in entries:
        match message:
            case TaskDecided():
                decided.setdefault(message.task, (at_s, message))
            case TaskFinished():
                ends.setdefault(message.task, message)
            case ClusterState():
                for node in message.nodes:
                    if node.online:
                        run.states.setdefault(node.node, []).append(node)
    run.tasks = [
        LoggedTask(message, ends[key], at_s) for key, (at_s, message) in decided.items() if key in ends
    ]
    return run
