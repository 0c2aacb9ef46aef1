"""Chooses a node for each stage of a decided task. Pure: messages and times in, placements out.

All times are points on the caller's clock, in ms.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from splitplace.messages.application import Application
from splitplace.messages.base import Part
from splitplace.messages.cluster import ClusterState, PrepareFragments
from splitplace.messages.placing import ForeseenPlacement
from splitplace.messages.second_run import TaskLagging
from splitplace.messages.task import TaskDecided, TaskFinished, TaskPlaced
from splitplace.policies.cluster import ClusterView
from splitplace.policies.ended import EndedTasks, forgotten_ms
from splitplace.policies.job import Job, Jobs
from splitplace.policies.placement import (
    Infeasible,
    PeriodOutcome,
    Placement,
    PlacementPolicy,
    PlacementRequest,
    Training,
    place,
)
from splitplace.policies.placement.earliest_finish import EarliestFinish
from splitplace.policies.placement.foreseen import stage_placements
from splitplace.policies.placement.loading import DemandLoading
from splitplace.policies.placement.objective import response_share
from splitplace.policies.placement.warm_up import warm_up
from splitplace.policies.scoring import mean, reward_of
from splitplace.policies.state import Json, State, validated_state
from splitplace.services.placer.hints import loading_hints, missing_hints, warm_up_hints
from splitplace.services.placer.second_runs import HOPS_TO_DISPATCH, SecondPlacing, place_again

MAX_RECORDS = 10_000
"""Unfinished tasks that are remembered at most; the oldest are forgotten."""


@dataclass(frozen=True, slots=True)
class Placing:
    """A placement to publish, and hints to nodes that have not loaded what they will need."""

    placed: TaskPlaced
    prepare: tuple[PrepareFragments, ...] = ()


@dataclass(slots=True)
class _PlacedTask:
    attempt: int
    placing: Placing
    due_ms: float
    forget_ms: float
    """When it is forgotten although its end was never heard."""
    avoid: frozenset[str]
    second: SecondPlacing | None = None
    """The second run of what was overdue or lost of it."""


@dataclass(slots=True)
class _Interval:
    """Sums over the tasks that ended in a scheduling interval."""

    tasks: int = 0
    reward: float = 0.0
    response: float = 0.0

    def count(self, task: TaskFinished) -> None:
        self.tasks += 1
        self.reward += reward_of(task)
        self.response += response_share(task.response_ms, task.deadline_ms)

    def mean(self, total: float) -> float:
        return total / self.tasks if self.tasks else 0.0


class _SavedState(Part):
    """The saved state."""

    policy: str
    learnt: dict[str, Json]


class PlacerCore:
    """Asks the placement policy and keeps the ledger of its placements."""

    def __init__(
        self,
        policy: PlacementPolicy,
        *,
        warm_up: bool = True,
        second_runs: bool = True,
        loading: DemandLoading | None = None,
        cluster: ClusterView | None = None,
    ) -> None:
        """A placer that knows no applications and no cluster yet.

        Args:
            policy: chooses nodes.
            warm_up: tell nodes with free memory what to load before a task needs it.
            second_runs: run elsewhere a second time what is overdue; what is lost always does.
            loading: decides anew now and then what nodes hold, by demand; None = the warm-up alone.
            cluster: the view it keeps up to date, if somebody else reads it too.
        """
        self._policy = policy
        self._warms_up = warm_up
        self._runs_again = second_runs
        self._loading = loading
        self._again = EarliestFinish()
        self._cluster = ClusterView() if cluster is None else cluster
        self._applications: dict[str, Application] = {}
        self._jobs = Jobs()
        self._removed: set[str] = set()
        """Applications whose tasks only end: none is loaded ahead."""
        self._records: OrderedDict[str, _PlacedTask] = OrderedDict()
        self._ended = EndedTasks()
        self._interval = _Interval()

    def add_application(self, application: Application) -> list[PrepareFragments]:
        """Add or replace a catalogue entry. Returns hints for nodes that have room for its fragments."""
        self._removed.discard(application.name)
        if self._applications.get(application.name) == application:
            return []
        self._applications[application.name] = application
        return self._warm_up(self._cluster.nodes)

    def remove_application(self, name: str) -> None:
        """Load nothing of an application ahead any more. Tasks that are under way are placed as before."""
        if name in self._applications:
            self._removed.add(name)

    def cluster(self, snapshot: ClusterState, now_ms: float) -> list[PrepareFragments]:
        """Apply the newest cluster state. Returns hints for nodes that are new in it."""
        before = self._cluster.nodes
        self._cluster.apply(snapshot, now_ms)
        for task in [key for key, known in self._records.items() if now_ms > known.forget_ms]:
            del self._records[task]
        if not self._warms_up:
            return []
        boots = {name: state.boot for name, state in before.items()}
        return self._warm_up(
            {name for name, state in self._cluster.nodes.items() if boots.get(name) != state.boot}
        )

    def place(self, decided: TaskDecided, now_ms: float) -> Placing | None:
        """Place a decided task. Without a feasible node, the placement has no stages but a reason.

        Returns None for a task that was refused, is over or superseded; the same placement again if the
        message is a repetition.
        """
        known = self._records.get(decided.task)
        if self._loading is not None and known is None:
            self._loading.decided(decided, now_ms)
        if decided.variant is None or decided.task in self._ended:
            return None
        if known is not None and decided.attempt <= known.attempt:
            return known.placing if decided.attempt == known.attempt else None
        self._cluster.placed(decided.task, decided.attempt, (), now_ms)  # an earlier attempt is cancelled
        placing = self._place(decided, decided.variant, now_ms)
        due_ms = now_ms + decided.slack_ms
        forget_ms = forgotten_ms(due_ms, decided.grace_ms)
        avoid = frozenset(decided.avoid)
        self._remember(decided.task, _PlacedTask(decided.attempt, placing, due_ms, forget_ms, avoid))
        return placing

    def lagging(self, lagging: TaskLagging, now_ms: float) -> SecondPlacing | None:
        """Place what is overdue or lost of a task a second time; None if that is not worth it.

        The same again if the message is a repetition.
        """
        known = self._records.get(lagging.task)
        if known is None or known.attempt != lagging.attempt:
            return None
        if lagging.lost is None and not self._runs_again:
            return None
        application = self._applications.get(known.placing.placed.application)
        if known.second is None and application is not None:
            known.second = self._place_again(known, application, lagging, now_ms)
        return known.second

    def finished(self, finished: TaskFinished, now_ms: float) -> None:
        """Learn from a task that ended."""
        self._cluster.finished(finished.task, now_ms)
        self._records.pop(finished.task, None)
        if finished.task not in self._ended:
            self._policy.learn(finished)
            self._interval.count(finished)
        self._ended.add(finished.task, finished.attempt, now_ms)

    def end_period(self) -> Training | None:
        """End a scheduling interval. Returns the training to run now, if any.

        The cluster state does not tell the energy of the interval. The CPU use of the nodes stands for it:
        energy above idle is proportional to it.
        """
        interval, self._interval = self._interval, _Interval()
        ratios = [state.cpu_ratio for state in self._cluster.nodes.values()]
        return self._policy.end_period(
            PeriodOutcome(
                tasks=interval.tasks,
                reward=interval.mean(interval.reward),
                energy=mean(ratios) or 0.0,
                response=interval.mean(interval.response),
            )
        )

    def plan_loading(self, now_ms: float) -> Callable[[], Callable[[], list[PrepareFragments]]] | None:
        """Plan what nodes should hold, by the demand to come; None if there is nothing to plan.

        Returns:
            What may take seconds and needs nothing of this placer, for a thread. It returns what to call
            afterwards for the hints to nodes; none where no plan was found.
        """
        programme = self._loading and self._loading.plan(self._loaded_ahead(), self._cluster, now_ms)
        if not programme:
            return None

        def solve() -> Callable[[], list[PrepareFragments]]:
            held = programme.solve()
            return lambda: [] if held is None else self._load(held)

        return solve

    def state(self) -> State:
        """Return what to save."""
        return {"policy": self._policy.name, "learnt": dict(self._policy.state())}

    def restore(self, state: State) -> None:
        """Restore a saved state; that of another policy is ignored.

        Raises:
            StateError: it is not what `state` gives.
        """
        saved = validated_state(_SavedState, state)
        if saved.policy == self._policy.name:
            self._policy.restore(saved.learnt)

    # --- inside ----------------------------------------------------------------------------------------

    def _warm_up(self, names: Collection[str]) -> list[PrepareFragments]:
        if not self._warms_up or not names:
            return []
        return warm_up_hints(warm_up(self._loaded_ahead(), self._cluster, names))

    def _loaded_ahead(self) -> list[Application]:
        return [each for name, each in self._applications.items() if name not in self._removed]

    def _load(self, held: Mapping[str, tuple[str, ...]]) -> list[PrepareFragments]:
        """Return hints for what a plan wants nodes to hold."""
        assert self._loading is not None  # noqa: S101 - it has made the plan
        return loading_hints(self._loading.changes(held, self._loaded_ahead(), self._cluster))

    def _place(self, decided: TaskDecided, variant: str, now_ms: float) -> Placing:
        job = self._job(decided, variant)
        if job is None:
            return self._refuse(
                decided, variant, f"{decided.application} with variant {variant} is not known"
            )
        due_ms = now_ms + decided.slack_ms
        start_ms = now_ms + HOPS_TO_DISPATCH * self._cluster.hop_ms
        request = PlacementRequest(decided.task, job, start_ms, due_ms, frozenset(decided.avoid))
        found = self._confirm(request, decided.foreseen, now_ms)
        found = found or place(self._policy, request, self._cluster, now_ms)
        if isinstance(found, Infeasible):
            return self._refuse(decided, variant, found.reason)
        prepare = missing_hints(self._cluster, decided.task, decided.attempt, found)
        self._cluster.placed(
            decided.task,
            decided.attempt,
            found.stage_work(),
            now_ms,
            due_ms=due_ms,
            forget_ms=forgotten_ms(due_ms, decided.grace_ms),
        )
        if self._loading is not None:
            self._loading.placed(found.job)
        return Placing(self._placed(decided, found), prepare)

    def _place_again(
        self, known: _PlacedTask, application: Application, lagging: TaskLagging, now_ms: float
    ) -> SecondPlacing | None:
        placed = known.placing.placed
        if not placed.stages:
            return None
        return place_again(
            application,
            placed,
            lagging,
            self._again,
            self._cluster,
            now_ms=now_ms,
            due_ms=known.due_ms,
            avoid=known.avoid,
        )

    def _confirm(
        self, request: PlacementRequest, foreseen: ForeseenPlacement | None, now_ms: float
    ) -> Placement | Infeasible | None:
        """Return the placement that the splitter has found, if it holds still."""
        if foreseen is None:
            return None
        return self._policy.confirm(request, foreseen, self._cluster, now_ms)

    def _job(self, decided: TaskDecided, variant: str) -> Job | None:
        application = self._applications.get(decided.application)
        return None if application is None else self._jobs.of(application, decided.batch).get(variant)

    def _placed(self, decided: TaskDecided, found: Placement) -> TaskPlaced:
        return TaskPlaced(
            task=decided.task,
            attempt=decided.attempt,
            application=decided.application,
            variant=found.job.variant.name,
            batch=decided.batch,
            micro_batch=found.job.micro_batch,
            policy=self._policy.name,
            stages=stage_placements(found),
            predicted_ms=found.prediction.response_ms,
            reason=_reason(found)[:1000],
        )

    def _refuse(self, decided: TaskDecided, variant: str, reason: str) -> Placing:
        return Placing(
            TaskPlaced(
                task=decided.task,
                attempt=decided.attempt,
                application=decided.application,
                variant=variant,
                batch=decided.batch,
                micro_batch=decided.batch,
                policy=self._policy.name,
                stages=(),
                predicted_ms=None,
                reason=reason[:1000],
            )
        )

    def _remember(self, task: str, record: _PlacedTask) -> None:
        self._records[task] = record
        self._records.move_to_end(task)
        while len(self._records) > MAX_RECORDS:
            self._records.popitem(last=False)


def _reason(found: Placement) -> str:
    count = len(found.job.micro_batches)
    return f"{count} micro-batch{'es' if count > 1 else ''} on {', '.join(found.node_names)}"
