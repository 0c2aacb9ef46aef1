"""What the gateway's core tells its shell to do. Values only: nothing in them changes afterwards."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from splitplace.messages.second_run import LostReplica, SecondRun
from splitplace.messages.task import TaskAccepted, TaskDecided, TaskPlaced, TaskResult
from splitplace.policies.scoring import is_on_time

TerminalStatus = Literal["answered", "expired", "failed", "refused"]


@dataclass(frozen=True, slots=True)
class Announce:
    """Journal that an attempt begins, then publish `accepted`."""

    key: str
    attempt: int
    application: str
    batch: int
    input_bytes: int
    deadline_ms: float
    due_ms: float
    """The deadline, as a point on the clock."""
    avoid: tuple[str, ...]
    grace_ms: float | None

    def message(self, now_ms: float) -> TaskAccepted:
        """Build the message for splitter and placer, with the slack that is left now."""
        return TaskAccepted(
            task=self.key,
            attempt=self.attempt,
            application=self.application,
            batch=self.batch,
            input_bytes=self.input_bytes,
            deadline_ms=self.deadline_ms,
            slack_ms=self.due_ms - now_ms,
            avoid=self.avoid,
            grace_ms=self.grace_ms,
        )


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send the micro-batches to the nodes of the root stages."""

    key: str
    attempt: int
    application: str
    placed: TaskPlaced
    expires_at_ms: float
    """After this nobody wants the answer; may be infinite."""
    second: SecondRun | None = None
    """Send these micro-batches alone, for their second run."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Tell nodes to drop what waits of a task, up to this attempt."""

    key: str
    attempt: int
    nodes: tuple[str, ...]
    micro_batches: tuple[int, ...] = ()
    """Only these, where they wait for their first run; empty = all."""


@dataclass(frozen=True, slots=True)
class Settle:
    """Ask the aggregator what it has of a task."""

    key: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Journal the terminal answer, then publish it."""

    key: str
    attempt: int
    application: str
    batch: int
    deadline_ms: float
    status: TerminalStatus
    reason: str
    response_ms: float
    """Since the task was accepted."""
    result: TaskResult | None
    decided: TaskDecided | None
    """The decision of the last attempt."""
    nodes: tuple[str, ...]
    """Nodes that took part."""

    @property
    def on_time(self) -> bool:
        """Whether there is an answer, and it comes before the deadline."""
        return self.status == "answered" and is_on_time(self.response_ms, self.deadline_ms)

    @property
    def variant(self) -> str | None:
        """The variant that was answered by; without an answer, the one that was decided on."""
        if self.result is not None:
            return self.result.variant
        return self.decided.variant if self.decided else None


Instruction = Announce | Dispatch | Cancel | LostReplica | Settle | Finish


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """Names without repetition, in order of first appearance."""
    return tuple(dict.fromkeys(names))
