"""What a split policy is asked and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Protocol

from splitplace.messages.task import ArmEstimate, TaskFinished
from splitplace.policies.state import State


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant that may be chosen, with what is predicted of it now."""

    variant: str
    accuracy: float
    """Share of right answers on its test set."""
    predicted_ms: float | None
    """From now to the answer, corrected by experience; None where it cannot run now."""
    note: str
    """Where it runs, or why it cannot."""
    temporary: bool = False
    """Of one that cannot run now: whether waiting can help."""
    foreseen_ms: float | None = None
    """The prediction before experience corrected it; None where it cannot run now, or nobody says."""
    wait_ms: float | None = None
    """How much of `foreseen_ms` is waiting for other tasks' work; None where nobody says."""
    work_ms: float | None = None
    """Computing time of all its stages together on the nodes foreseen; None where nobody says."""

    @property
    def kind(self) -> str:
        """The first part of the variant's name: `layer` of `layer-4`."""
        return kind_of(self.variant)

    def estimate(self, score: float | None = None) -> ArmEstimate:
        """As it is published with a decision. A score that is no finite number is left out."""
        return ArmEstimate(
            variant=self.variant,
            accuracy=self.accuracy,
            predicted_ms=self.predicted_ms,
            note=self.note[:1000],
            work_ms=self.work_ms,
            wait_ms=self.wait_ms,
            score=score if score is not None and isfinite(score) else None,
        )


def kind_of(variant: str) -> str:
    """How a variant splits, by the first part of its name: `layer` of `layer-4`."""
    return variant.partition("-")[0]


@dataclass(frozen=True, slots=True)
class SplitContext:
    """What is known when a decision is taken. It comes back with the outcome: nothing is recomputed then."""

    task: str
    attempt: int
    application: str
    batch: int
    deadline_ms: float
    slack_ms: float
    """What is left of the deadline; negative when it has passed."""
    arms: tuple[Arm, ...]
    load_ms: float = 0.0
    """Work that waits on a living node, in the mean over all."""
    link_megabytes_per_second: float = 0.0
    """Bandwidth of a living node, in the mean over all."""
    grace_ms: float | None = None
    """So long after the deadline a late answer is still given; None where always, or nobody says."""

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
    """Of a refusal: whether asking again a little later may bring another decision."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """What the policy thinks of each arm it considered, the more the better, by variant; in its own units."""
    propensity: float = 1.0
    """Probability with which this very choice is made in this context, in (0, 1]."""
    explored: bool = False
    """Whether it was made to learn, although another choice looked better."""


class SplitPolicy(Protocol):
    """Chooses a variant. Pure but for what it has learnt and its seeded random numbers."""

    @property
    def name(self) -> str:
        """Its name in the registry."""
        ...

    def decide(self, context: SplitContext) -> Decision:
        """How to split the task."""
        ...

    def learn(self, context: SplitContext, outcome: TaskFinished) -> None:
        """How a task ended, with the context in which it was decided."""
        ...

    def state(self) -> State:
        """What was learnt."""
        ...

    def restore(self, state: State) -> None:
        """Take up what was learnt earlier. Raises StateError."""
        ...


class StatelessSplit:
    """The learning half of a policy that learns nothing."""

    def learn(self, context: SplitContext, outcome: TaskFinished) -> None:
        """Nothing."""

    def state(self) -> State:
        """Nothing."""
        return {}

    def restore(self, state: State) -> None:
        """Nothing."""


def nothing_can_run(context: SplitContext) -> Decision:
    """The refusal of a task none of whose variants can run now."""
    notes = "; ".join(dict.fromkeys(arm.note for arm in context.arms))
    return Decision(
        None, f"nothing can run now: {notes}", can_wait=any(arm.temporary for arm in context.arms)
    )
