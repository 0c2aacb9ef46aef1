"""The interface of split policies: what they are asked, and what they answer."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Generic, TypeVar

from typing_extensions import override

from splitplace.messages.application import VariantKind
from splitplace.messages.task import TaskFinished, VariantEstimate
from splitplace.policies.state import State

MAX_PENDING = 10_000
"""Notes kept on decisions without an outcome; beyond it, the oldest is dropped."""

Note = TypeVar("Note")


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant that may be chosen, with what is predicted of it now."""

    variant: str
    kind: VariantKind
    accuracy: float
    """Share of right answers on its test set."""
    predicted_ms: float | None
    """From now to the answer, corrected by past errors; None if it cannot run now."""
    note: str
    """Where it runs, or why it cannot."""
    temporary: bool = False
    """Whether waiting can help, if it cannot run now."""
    foreseen_ms: float | None = None
    """The prediction before its correction; None if it cannot run now, or unknown."""
    wait_ms: float | None = None
    """Part of `foreseen_ms` that is waiting for other tasks; None = unknown."""
    work_ms: float | None = None
    """Computing time of all its stages on the foreseen nodes; None = unknown."""
    burden_ms: float | None = None
    """The larger of its shares of nodes and broker's link, as computing time of all nodes; None = unknown."""

    def estimate(self, score: float | None = None) -> VariantEstimate:
        """Return the part of a published decision. A score that is not finite is left out."""
        return VariantEstimate(
            variant=self.variant,
            kind=self.kind,
            accuracy=self.accuracy,
            predicted_ms=self.predicted_ms,
            note=self.note[:1000],
            work_ms=self.work_ms,
            wait_ms=self.wait_ms,
            burden_ms=self.burden_ms,
            score=score if score is not None and isfinite(score) else None,
        )


@dataclass(frozen=True, slots=True)
class SplitContext:
    """What is known at a decision. The policy gets it again with the outcome, so nothing is recomputed."""

    task: str
    attempt: int
    application: str
    batch: int
    deadline_ms: float
    slack_ms: float
    """Time until the deadline; negative after it."""
    arms: tuple[Arm, ...]
    load_ms: float = 0.0
    """Mean backlog of the live nodes, or that of the broker's link if it is longer."""
    link_megabytes_per_second: float = 0.0
    """Mean bandwidth of the live nodes."""
    grace_ms: float | None = None
    """Grace after the deadline; None = unlimited or unknown."""

    @property
    def feasible(self) -> tuple[tuple[Arm, float], ...]:
        """Arms that can run now, with their predicted response in ms."""
        return tuple((arm, arm.predicted_ms) for arm in self.arms if arm.predicted_ms is not None)


@dataclass(frozen=True, slots=True)
class Decision:
    """A choice and its reason, for people."""

    variant: str | None
    """None refuses the task."""
    reason: str
    can_wait: bool = False
    """Whether a refused task may be decided otherwise a little later."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Score of each arm considered, by variant; higher is better, in the policy's own units."""
    propensity: float = 1.0
    """Probability of exactly this decision in this context, in (0, 1]."""
    explored: bool = False
    """Whether it was made to learn although another choice looked better."""
    promised: float | None = None
    """Probability of an answer in time, as far as the policy can tell; None = it does not say."""


class SplitPolicy(ABC):
    """Chooses a variant for each task. Pure but for what it has learnt and its seeded random numbers."""

    name: str
    """Its name in the registry."""
    kinds: frozenset[VariantKind] | None = None
    """Kinds of variants among which the policy always chooses; None = whatever the settings allow."""
    reads_waits: bool = False
    """Whether it reads `Arm.wait_ms`."""

    @abstractmethod
    def decide(self, context: SplitContext) -> Decision:
        """Choose a variant for a task, or refuse it."""

    @abstractmethod
    def learn(self, context: SplitContext, outcome: TaskFinished) -> None:
        """Learn from how a task ended, given the context in which it was decided."""

    @abstractmethod
    def state(self) -> State:
        """Return the state, to be saved."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Replace the state by a saved one. Raises StateError."""


class StatelessSplit(SplitPolicy):
    """A policy that learns nothing."""

    @override
    def learn(self, context: SplitContext, outcome: TaskFinished) -> None:
        pass

    @override
    def state(self) -> State:
        return {}

    @override
    def restore(self, state: State) -> None:
        pass


class Pending(Generic[Note]):
    """What a policy noted at decisions, by task, until their outcomes come: nothing is recomputed then.

    A later attempt at a task replaces the note on the earlier one.
    """

    def __init__(self) -> None:
        self._notes: OrderedDict[str, Note] = OrderedDict()

    def put(self, task: str, note: Note) -> None:
        """Keep a note until its task ends."""
        self._notes.pop(task, None)
        self._notes[task] = note
        if len(self._notes) > MAX_PENDING:
            self._notes.popitem(last=False)

    def take(self, task: str) -> Note | None:
        """Remove the note on a task and return it; None where there is none."""
        return self._notes.pop(task, None)


def nothing_can_run(context: SplitContext) -> Decision:
    """Refuse a task none of whose variants can run now."""
    notes = "; ".join(dict.fromkeys(arm.note for arm in context.arms))
    return Decision(
        None, f"nothing can run now: {notes}", can_wait=any(arm.temporary for arm in context.arms)
    )
