"""What is asked of a plan, and whether the calibration reaches that far. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from splitplace.errors import SplitPlaceError
from splitplace.messages.application import Application
from splitplace.planning.kinds import Cluster
from splitplace.policies.placement import MOST_REPLICAS
from splitplace.policies.splitting import allows
from splitplace.simulator.arrivals import Arrival
from splitplace.simulator.calibration import FEWEST_TASKS, Calibration
from splitplace.simulator.scenario import Scenario
from splitplace.simulator.workload import Workload

Pattern = Literal["poisson", "steady"]
"""`poisson`: at random moments, as many sensors send; `steady`: at equal intervals, as a camera does."""

DEFAULT_POLICY = "expected-reward+earliest-finish"
MONITOR_S = 0.5
"""Period of the live resource monitor."""
WARM_UP_SHARE = 0.2
"""Share of the tasks that are simulated before those that count: policies begin without experience."""
_DRAIN_MS = 5_000.0
"""Time after the last deadline in which late answers still come."""
_INTERVAL_S = 1.0


class OutOfReachError(SplitPlaceError, ValueError):
    """The calibration says nothing about what was asked."""


@dataclass(frozen=True, slots=True)
class Question:
    """Nodes, a network, and what is wanted of them."""

    cluster: Cluster
    application: Application
    calibration: Calibration
    rate: float
    """Tasks a second."""
    deadline_ms: float
    batch: int = 1
    """Inputs of a task."""
    pattern: Pattern = "poisson"
    policy: str = DEFAULT_POLICY
    arms: frozenset[str] | None = None
    """Variants or kinds that may be chosen; None = all."""
    wanted: float = 0.95
    """Share of tasks that should be answered in time."""
    tasks: int = 150
    """Tasks that count in each simulation."""
    seeds: int = 10
    """Simulations."""
    given: tuple[Arrival, ...] = ()
    """Tasks to replay, instead of `rate`, `deadline_ms`, `batch` and `pattern`."""
    more: tuple[Application, ...] = ()
    """Further applications of the tasks to replay."""

    @property
    def workload(self) -> Workload:
        """The applications as the simulator takes them."""
        everything = (self.application, *self.more)
        return Workload(
            applications=everything,
            batch=(self.batch, self.batch),
            deadline_intervals={each.name: (1, 1) for each in everything},
            interval_s=_INTERVAL_S,
            images_per_item=1,
        )

    def arrivals(self, seed: int) -> Sequence[Arrival]:
        """Return the tasks of a simulation, warm-up included."""
        if self.given:
            return self.given
        random = Random(f"plan {seed}")
        count = self.tasks + self.warm_up
        at_ms, tasks = 0.0, []
        for number in range(count):
            gap_ms = 1000.0 / self.rate
            at_ms += gap_ms if self.pattern == "steady" else random.expovariate(1.0) * gap_ms
            tasks.append(Arrival(f"sim.{number}", at_ms, self.application.name, self.batch, self.deadline_ms))
        return tasks

    @property
    def warm_up(self) -> int:
        """Number of first tasks that do not count."""
        return 0 if self.given else max(10, round(WARM_UP_SHARE * self.tasks))

    def scenario(self, tasks: Sequence[Arrival], speed_factor: float) -> Scenario:
        """Return the simulation of these tasks.

        Args:
            tasks: what arrives.
            speed_factor: on the speed of nodes whose speed is in doubt: 1 - `doubt` at -1, 1 + `doubt` at 1.
        """
        last_ms = max([task.at_ms + task.deadline_ms for task in tasks], default=0.0) + _DRAIN_MS
        factors = {group.name: 1 + speed_factor * group.kind.doubt for group in self.cluster.groups}
        return Scenario(
            profile="store",
            arms=tuple(sorted(self.arms)) if self.arms is not None else tuple(sorted(self.variants)),
            intervals=max(1, round(last_ms / 1000 / _INTERVAL_S) + 1),
            interval_s=_INTERVAL_S,
            calibration=self.calibration,
            cluster=self.cluster.machines(factors),
            hosts=self.cluster.count,
            discipline="deadline",
            through_broker=True,
            broker_known=self.cluster.broker_link is not None,
            mobility=False,
            replicas=MOST_REPLICAS,
            monitor_s=MONITOR_S,
            rules="live",
            records=True,
        )

    @property
    def variants(self) -> frozenset[str]:
        """Names of all variants."""
        return frozenset(variant.name for each in (self.application, *self.more) for variant in each.variants)


def changed(question: Question, **changes: object) -> Question:
    """Return the question with other fields."""
    return replace(question, **changes)  # type: ignore[arg-type]


def check_reach(question: Question) -> None:
    """Refuse what the calibration says nothing about.

    Raises:
        OutOfReachError: every reason, and what to do about it.
        ValueError: the application has none of the arms.
    """
    if question.arms is not None and not any(
        allows(question.arms, variant.name, variant.kind) for variant in question.application.variants
    ):
        known = ", ".join(variant.name for variant in question.application.variants)
        raise ValueError(f"{question.application.name} has no variant among these arms, only {known}")
    known_run, reach = question.calibration, question.calibration.reach
    reasons = []
    if reach is None or known_run.tasks < FEWEST_TASKS:
        reasons.append(
            f"the calibration rests on {known_run.tasks} tasks, at least {FEWEST_TASKS} are needed"
        )
    else:
        reasons += [
            f"{group.name} has {group.kind.speed:g} GFLOP/s; the nodes of the calibration had "
            f"{reach.node_scores.least:.3g} to {reach.node_scores.greatest:.3g}"
            for group in question.cluster.groups
            if not reach.node_scores.reaches(group.kind.speed)
        ]
        if not question.given and not reach.batch.reaches(question.batch):
            reasons.append(
                f"tasks have {question.batch} inputs; those of the calibration had "
                f"{reach.batch.least:.3g} to {reach.batch.greatest:.3g}"
            )
    if reasons:
        raise OutOfReachError(
            f"{'; '.join(reasons)}. Record a run on nodes like these (splitplace watch --record LOG), then "
            "splitplace calibrate LOG"
        )
