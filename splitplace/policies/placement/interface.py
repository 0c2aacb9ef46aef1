"""The interface of placement policies: what they are asked, and what they answer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Self

from typing_extensions import override

from splitplace.messages.limits import MAX_DEADLINE_MS
from splitplace.messages.placing import ForeseenPlacement
from splitplace.messages.task import TaskFinished
from splitplace.policies.cluster import ClusterView
from splitplace.policies.prediction import Estimate, Job, PlacedShare, StageSchedule
from splitplace.policies.stage_work import StageWork, share_of
from splitplace.policies.state import State


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """A job that needs a node for each of its stages.

    Times are points on the caller's clock, in ms.
    """

    task: str
    job: Job
    start_ms: float
    """When the gateway is expected to send the inputs."""
    due_ms: float = inf
    avoid: frozenset[str] = frozenset()
    """Nodes that failed this task before."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where each stage stands, and the estimate."""

    job: Job
    """The job as it was asked for, or cut into smaller micro-batches."""
    shares: tuple[PlacedShare, ...]
    """One for each stage, in their order; several where a stage has replicas."""
    prediction: Estimate

    @classmethod
    def of(cls, schedule: StageSchedule) -> Self:
        """Return the placement of a complete schedule."""
        return cls(schedule.job, schedule.shares, schedule.prediction())

    @property
    def nodes(self) -> Mapping[str, str]:
        """The node of each stage.

        Raises:
            ValueError: a stage has replicas; `shares` tells them.
        """
        if len(self.shares) > len(self.job.variant.stages):
            raise ValueError(f"{self.job.variant.name}: a stage stands on several nodes")
        return {share.stage: share.node for share in self.shares}

    @property
    def node_names(self) -> tuple[str, ...]:
        """All nodes that take part, each once, in the order of the stages."""
        return tuple(dict.fromkeys(share.node for share in self.shares))

    def stage_work(self) -> tuple[StageWork, ...]:
        """Return the work of each share on its node, for the ledger."""
        fragments, sizes, images = self.job.fragments, self.job.input_bytes, self.job.micro_batches
        return tuple(
            [
                StageWork(
                    share.node,
                    fragments[share.stage],
                    share.work_ms,
                    len(images),
                    sizes[share.stage] * share_of(share.micro_batches, images),
                )
                for share in self.shares
            ]
        )


@dataclass(frozen=True, slots=True)
class Infeasible:
    """No node can be found for some stage."""

    reason: str
    temporary: bool
    """Whether waiting can help: nodes are expected, or memory is held by outstanding tasks."""


@dataclass(frozen=True, slots=True)
class ActiveJob:
    """A task that is placed and not finished."""

    task: str
    job: Job
    """Its variant is the split decision."""
    nodes: Mapping[str, str]
    """Where each stage is, by the stage's name."""
    remaining: Mapping[str, float]
    """Share of each stage's work that is still to do, in [0, 1]. A stage with nothing left cannot move."""
    due_ms: float = inf


@dataclass(frozen=True, slots=True)
class PeriodOutcome:
    """Outcome of the last scheduling interval: the terms of equation 10."""

    tasks: int
    """Number of tasks that finished in it; without any, there is nothing to learn."""
    reward: float
    """`O^MAB`: their mean reward, in [0, 1]."""
    energy: float
    """`AEC`: mean energy of the nodes over what they would take at full load, in [0, 1]."""
    response: float
    """`ART`: mean of `objective.response_share` of their response times, in [0, 1]."""


Training = Callable[[], Callable[[], None]]
"""A computation too long for the event loop. It touches nothing that decisions read, so it may run in a
thread. It returns a function that adopts the result; call that where decisions are made."""


class PlacementPolicy(ABC):
    """Chooses a node for each stage. Pure but for what it has learnt and its seeded random numbers."""

    name: str
    """Its name in the registry."""

    @abstractmethod
    def place(self, request: PlacementRequest, cluster: ClusterView, now_ms: float) -> Placement | Infeasible:
        """Choose a node for every stage, none of them in `request.avoid`. The ledger stays as it is."""

    def confirm(
        self,
        request: PlacementRequest,  # noqa: ARG002
        foreseen: ForeseenPlacement,  # noqa: ARG002
        cluster: ClusterView,  # noqa: ARG002
        now_ms: float,  # noqa: ARG002
    ) -> Placement | None:
        """Return the placement that the splitter has found, if this policy would choose it now.

        None: search. That is the answer of policies that do not choose as the splitter does.
        """
        return None

    @abstractmethod
    def learn(self, outcome: TaskFinished) -> None:
        """Learn from how a task ended."""

    @abstractmethod
    def end_period(self, outcome: PeriodOutcome) -> Training | None:
        """Learn from a scheduling interval, after `learn` was called for each task that left in it.

        Returns training to do now, if any (line 14 of algorithm 1).
        """

    @abstractmethod
    def state(self) -> State:
        """Return the state, to be saved."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Replace the state by a saved one. Raises StateError."""


class Rearranging(ABC):
    """A policy that can also move stages of tasks that run. Only simulations do that."""

    @abstractmethod
    def rearrange(
        self, active: Sequence[ActiveJob], cluster: ClusterView, now_ms: float
    ) -> Mapping[str, Mapping[str, str]]:
        """Return the stages that should move, with their new nodes, by task.

        The caller moves them and bears the cost. The cluster's ledger holds the active jobs.
        """


class StatelessPlacement(PlacementPolicy):
    """A policy that learns nothing."""

    @override
    def learn(self, outcome: TaskFinished) -> None:
        pass

    @override
    def end_period(self, outcome: PeriodOutcome) -> Training | None:
        return None

    @override
    def state(self) -> State:
        return {}

    @override
    def restore(self, state: State) -> None:
        pass


def place(
    policy: PlacementPolicy, request: PlacementRequest, cluster: ClusterView, now_ms: float
) -> Placement | Infeasible:
    """Ask a policy for a placement; if only nodes that failed the task before can run it, allow them again.

    A placement that is predicted to take longer than `MAX_DEADLINE_MS` counts as infeasible.
    """
    found = policy.place(request, cluster, now_ms)
    if isinstance(found, Infeasible) and request.avoid & cluster.nodes.keys():
        again = policy.place(replace(request, avoid=frozenset()), cluster, now_ms)
        found = again if isinstance(again, Placement) else found
    if isinstance(found, Placement) and found.prediction.response_ms > MAX_DEADLINE_MS:
        reason = f"{request.job.variant.name} would take more than {MAX_DEADLINE_MS / 3_600_000:.0f} hours"
        return Infeasible(reason, temporary=False)
    return found
