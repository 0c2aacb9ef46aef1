"""Kill a node in the middle of a task, and count the work that was on it."""

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from splitplace.commands.processes.children import Child
from splitplace.commands.watch.observation import Observation
from splitplace.messages.base import Message
from splitplace.messages.task import TaskPlaced


@dataclass(frozen=True, slots=True)
class Killed:
    """How the tasks ended that ran on the node when it was killed."""

    node: str
    lost: int
    """Tasks with a stage on it that were not finished yet."""
    retried: int
    """How many of these were started again on other nodes."""
    answered: int
    """How many of these were answered."""
    in_time: int


class NodeKiller:
    """Kill the busiest node of a task as soon as the task is placed."""

    def __init__(
        self,
        seen: Observation,
        children: Mapping[str, Child],
        client: str,
        tasks: int,
        leaving: Callable[[str], None],
    ) -> None:
        """Prepare to kill.

        Args:
            seen: Has taken in each message before `take` gets it.
            children: Processes by name; nodes among them.
            client: Sensor whose tasks count.
            tasks: Number of tasks that it sends.
            leaving: Called with the name of the node before it is killed.
        """
        self._seen, self._children, self._client, self._leaving = seen, children, client, leaving
        self._before = tasks // 3
        """Tasks that are placed before."""
        self._patient_until = 2 * tasks // 3
        self._placed = 0
        self._usual_ms = 0.0
        self._open: tuple[str, ...] = ()
        self.node: str | None = None
        """The node that was killed."""

    def take(self, message: Message) -> None:
        """Kill if this message says that a task is placed now, and it is a good moment."""
        is_ours = isinstance(message, TaskPlaced) and message.task.startswith(f"{self._client}.")
        if not is_ours or not isinstance(message, TaskPlaced) or self.node is not None or not message.stages:
            return
        self._placed += 1
        predicted_ms = message.predicted_ms or 0.0
        self._usual_ms = max(self._usual_ms, predicted_ms) if self._placed <= self._before else self._usual_ms
        is_long = predicted_ms >= self._usual_ms / 2 or self._placed > self._patient_until
        if self._placed <= self._before or not is_long:
            return
        work: dict[str, float] = {}
        for stage in message.stages:
            work[stage.node] = work.get(stage.node, 0.0) + stage.work_ms
        self._kill(max(work, key=lambda name: work[name]))

    def outcome(self) -> Killed | None:
        """Return how the tasks on the node ended; None if none was killed."""
        if self.node is None:
            return None
        ends = [self._seen.finished[key] for key in self._open if key in self._seen.finished]
        return Killed(
            self.node,
            len(self._open),
            sum(end.attempt > 1 for end in ends),
            sum(end.status == "answered" for end in ends),
            sum(end.on_time for end in ends),
        )

    def _kill(self, name: str) -> None:
        child = self._children.get(name)
        if child is None or child.pid is None:
            return
        self.node = name
        self._leaving(name)
        os.kill(child.pid, signal.SIGKILL)
        self._open = tuple(
            key
            for key, record in self._seen.records.items()
            if record.finished is None
            and record.last.placed is not None
            and name in record.last.placed.nodes
            and key.startswith(f"{self._client}.")
        )
