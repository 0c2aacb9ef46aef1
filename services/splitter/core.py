"""Decides how to split each accepted task. Pure: messages and times in, decisions out.

All times are points on the caller's clock, in ms.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from splitplace.messages.application import Application
from splitplace.messages.base import Part
from splitplace.messages.cluster import ClusterState
from splitplace.messages.groupings import GroupingError
from splitplace.messages.placing import ForeseenPlacement
from splitplace.messages.task import TaskAccepted, TaskDecided, TaskFinished, TaskPlaced
from splitplace.policies.cluster import ClusterView
from splitplace.policies.correction import Correction
from splitplace.policies.ended import EndedTasks, forgotten_ms
from splitplace.policies.job import Job, Jobs
from splitplace.policies.placement import Infeasible, Placement, PlacementPolicy, PlacementRequest, place
from splitplace.policies.placement.foreseen import foreseen_of
from splitplace.policies.prediction import scheduled
from splitplace.policies.splitting import Arm, Decision, SplitContext, SplitPolicy
from splitplace.policies.stage_work import stage_work
from splitplace.policies.state import Json, State, validated_state

HOPS_TO_DISPATCH = 2
"""Decision to placer, placement to gateway: then the inputs are sent."""

LAST_MOMENT_MS = 50.0
"""Slack at which a task that waits for the cluster is decided at the latest."""

MAX_ASKED_AGAIN = 4
"""Waiting tasks that may stay undecided in one call: predictions for large clusters cost milliseconds."""

MAX_RECORDS = 10_000
"""Unfinished tasks that are remembered at most; the oldest are forgotten."""


@dataclass(slots=True)
class _TrackedTask:
    """A task as this splitter knows it."""

    accepted: TaskAccepted
    due_ms: float
    decided: TaskDecided | None = None
    """None while it waits."""
    context: SplitContext | None = None
    uncorrected_ms: float | None = None
    loads: bool = False
    """Whether a node has to load what it was given: that tells nothing of the network's speed."""

    @property
    def forget_ms(self) -> float:
        """When it is forgotten although its end was never heard."""
        return forgotten_ms(self.due_ms, self.accepted.grace_ms)


class _SavedState(Part):
    """The saved state."""

    policy: str
    policy_state: dict[str, Json]
    correction: dict[str, Json]


class SplitterCore:
    """Predicts every variant, asks the policy, and learns from outcomes."""

    def __init__(
        self,
        policy: SplitPolicy,
        placement: PlacementPolicy,
        cluster: ClusterView | None = None,
        *,
        waits: bool = True,
    ) -> None:
        """A splitter that knows no applications and no cluster yet.

        Args:
            policy: decides.
            placement: foresees what the placer will do, and hands it on as a hint.
            cluster: the view it keeps up to date, if it is not a plain one.
            waits: whether arms tell how much of their time is waiting.
        """
        self._policy = policy
        self._placement = placement
        self._waits = waits
        self._correction = Correction()
        self._cluster = ClusterView() if cluster is None else cluster
        self._applications: dict[str, Application] = {}
        self._jobs = Jobs()
        self._records: OrderedDict[str, _TrackedTask] = OrderedDict()
        self._ended = EndedTasks()
        self._waiting: dict[str, _TrackedTask] = {}

    # --- stimuli ---------------------------------------------------------------------------------------

    def add_applications(self, applications: Iterable[Application]) -> None:
        """Replace the catalogue."""
        self._applications = {application.name: application for application in applications}

    def cluster(self, snapshot: ClusterState, now_ms: float) -> list[TaskDecided]:
        """Apply the newest cluster state; decide waiting tasks that it makes possible."""
        self._cluster.apply(snapshot, now_ms)
        self._forget_overdue(now_ms)
        return self.decide_waiting(now_ms)

    def accepted(self, accepted: TaskAccepted, now_ms: float) -> list[TaskDecided]:
        """Decide a task, or a further attempt at it.

        Returns no decision if the task waits for the cluster, is over or was superseded; the same decision
        again if the message is a repetition.
        """
        known = self._records.get(accepted.task)
        if accepted.task in self._ended or (known and accepted.attempt < known.accepted.attempt):
            return []
        if known is not None and accepted.attempt == known.accepted.attempt:
            return [known.decided] if known.decided else []
        self._cluster.placed(accepted.task, accepted.attempt, (), now_ms)  # an earlier attempt is cancelled
        record = _TrackedTask(accepted, now_ms + accepted.slack_ms)
        self._remember(accepted.task, record)
        return self._decide(record, now_ms)

    def decide_waiting(self, now_ms: float) -> list[TaskDecided]:
        """Decide waiting tasks: those whose last moment has come, and some others in turn."""
        decided: list[TaskDecided] = []
        undecided = 0
        for task, record in list(self._waiting.items()):
            if undecided < MAX_ASKED_AGAIN or record.due_ms - now_ms <= LAST_MOMENT_MS:
                decided += self._decide(record, now_ms)
                if task in self._waiting:
                    undecided += 1
                    self._waiting[task] = self._waiting.pop(task)  # to the end of the queue
        return decided

    def placed(self, placed: TaskPlaced, now_ms: float) -> None:
        """Replace the foreseen placement of a task by the placer's."""
        record = self._records.get(placed.task)
        if placed.task in self._ended or (record and placed.attempt < record.accepted.attempt):
            return
        application = self._applications.get(placed.application)
        if application is None:
            return
        try:
            work = stage_work(application, placed)
        except GroupingError:
            return
        due_ms = record.due_ms if record else now_ms + (placed.predicted_ms or 0.0)
        forget_ms = record.forget_ms if record else 0.0
        self._cluster.placed(placed.task, placed.attempt, work, now_ms, due_ms=due_ms, forget_ms=forget_ms)

    def finished(self, finished: TaskFinished, now_ms: float) -> list[TaskDecided]:
        """Learn from a task that ended; decide tasks that waited for its memory."""
        self._cluster.finished(finished.task, now_ms)
        self._ended.add(finished.task, finished.attempt, now_ms)
        self._waiting.pop(finished.task, None)
        record = self._records.pop(finished.task, None)
        if record is None:
            return []
        if record.context is not None and record.accepted.attempt == finished.attempt:
            self._learn(record, record.context, finished)
        return self.decide_waiting(now_ms)

    @property
    def next_due_ms(self) -> float | None:
        """Latest time for `decide_waiting`; None if no task waits."""
        return min((record.due_ms - LAST_MOMENT_MS for record in self._waiting.values()), default=None)

    # --- state -----------------------------------------------------------------------------------------

    def state(self) -> State:
        """Return what to save."""
        return {
            "policy": self._policy.name,
            "policy_state": dict(self._policy.state()),
            "correction": dict(self._correction.state()),
        }

    def restore(self, state: State) -> None:
        """Restore a saved state; the part of another policy is dropped.

        Raises:
            StateError: not a state of a splitter.
        """
        saved = validated_state(_SavedState, state)
        self._correction.restore(saved.correction)
        if saved.policy == self._policy.name:
            self._policy.restore(saved.policy_state)

    # --- inside ----------------------------------------------------------------------------------------

    def _remember(self, task: str, record: _TrackedTask) -> None:
        self._waiting.pop(task, None)
        self._records[task] = record
        self._records.move_to_end(task)
        while len(self._records) > MAX_RECORDS:
            forgotten, _ = self._records.popitem(last=False)
            self._waiting.pop(forgotten, None)

    def _forget_overdue(self, now_ms: float) -> None:
        """Forget tasks whose end was never heard: the gateway died before it could tell."""
        for task, record in list(self._records.items()):
            if now_ms > record.forget_ms:
                del self._records[task]
                self._waiting.pop(task, None)

    def _decide(self, record: _TrackedTask, now_ms: float) -> list[TaskDecided]:
        accepted = record.accepted
        application = self._applications.get(accepted.application)
        if application is None:
            unknown = Decision(None, f"no application {accepted.application}")
            return self._settle(record, unknown, now_ms, None)
        jobs = self._jobs.of(application, accepted.batch)
        foreseen = {name: self._foresee(record, job, now_ms) for name, job in jobs.items()}
        arms = tuple(self._arm(job, foreseen[name], now_ms) for name, job in jobs.items())
        context = SplitContext(
            task=accepted.task,
            attempt=accepted.attempt,
            application=accepted.application,
            batch=accepted.batch,
            deadline_ms=accepted.deadline_ms,
            slack_ms=record.due_ms - now_ms,
            arms=arms,
            load_ms=self._cluster.load_ms(now_ms),
            link_megabytes_per_second=self._cluster.link_megabytes_per_second,
            grace_ms=accepted.grace_ms,
        )
        decision = self._policy.decide(context)
        if decision.variant is None and decision.can_wait and context.slack_ms > LAST_MOMENT_MS:
            self._waiting[accepted.task] = record
            return []
        placement = foreseen.get(decision.variant) if decision.variant is not None else None
        hint = None
        if isinstance(placement, Placement):
            hint = foreseen_of(placement, self._cluster)
            work = placement.stage_work()
            self._cluster.placed(
                accepted.task,
                accepted.attempt,
                work,
                now_ms,
                due_ms=record.due_ms,
                forget_ms=record.forget_ms,
            )
            record.context = context
            record.uncorrected_ms = placement.prediction.response_ms
            record.loads = self._must_load(placement)
        return self._settle(record, decision, now_ms, context, hint)

    def _must_load(self, placement: Placement) -> bool:
        return not all(
            self._cluster.is_loaded(share.node, placement.job.fragments[share.stage].sha256)
            for share in placement.shares
        )

    def _foresee(self, record: _TrackedTask, job: Job, now_ms: float) -> Placement | Infeasible:
        request = PlacementRequest(
            task=record.accepted.task,
            job=job,
            start_ms=now_ms + HOPS_TO_DISPATCH * self._cluster.hop_ms,
            due_ms=record.due_ms,
            avoid=frozenset(record.accepted.avoid),
        )
        return place(self._placement, request, self._cluster, now_ms)

    def _arm(self, job: Job, found: Placement | Infeasible, now_ms: float) -> Arm:
        variant = job.variant
        if isinstance(found, Infeasible):
            return Arm(variant.name, variant.kind, variant.accuracy, None, found.reason, found.temporary)
        foreseen_ms, work_ms = found.prediction.response_ms, sum(found.prediction.work_ms.values())
        return Arm(
            variant.name,
            variant.kind,
            variant.accuracy,
            self._correction.corrected_ms(job.application.name, variant.name, foreseen_ms),
            f"on {', '.join(found.node_names)}",
            foreseen_ms=foreseen_ms,
            wait_ms=self._wait_ms(found, now_ms) if self._waits else None,
            work_ms=work_ms,
            burden_ms=self._cluster.burden_ms(work_ms, found.prediction.carried_bytes),
        )

    def _wait_ms(self, found: Placement, now_ms: float) -> float:
        """Return how much of a predicted time is waiting for other tasks."""
        if not self._cluster.delays(found.node_names, now_ms):
            return 0.0
        start_ms = now_ms + HOPS_TO_DISPATCH * self._cluster.hop_ms
        alone = scheduled(self._cluster, found.job, found.shares, now_ms, start_ms=start_ms, idle=True)
        return max(0.0, found.prediction.response_ms - alone.prediction().response_ms)

    def _settle(
        self,
        record: _TrackedTask,
        decision: Decision,
        now_ms: float,
        context: SplitContext | None,
        foreseen: ForeseenPlacement | None = None,
    ) -> list[TaskDecided]:
        accepted = record.accepted
        arms = context.arms if context is not None else ()
        self._waiting.pop(accepted.task, None)
        record.decided = TaskDecided(
            task=accepted.task,
            attempt=accepted.attempt,
            application=accepted.application,
            batch=accepted.batch,
            slack_ms=record.due_ms - now_ms,
            policy=self._policy.name,
            variant=decision.variant,
            reason=decision.reason[:1000],
            predicted_ms=next((arm.predicted_ms for arm in arms if arm.variant == decision.variant), None),
            alternatives=tuple(arm.estimate(decision.scores.get(arm.variant)) for arm in arms),
            avoid=accepted.avoid,
            deadline_ms=accepted.deadline_ms,
            load_ms=context.load_ms if context is not None else 0.0,
            link_megabytes_per_second=context.link_megabytes_per_second if context is not None else 0.0,
            grace_ms=accepted.grace_ms,
            propensity=decision.propensity,
            explored=decision.explored,
            promised=decision.promised,
            foreseen=foreseen,
        )
        return [record.decided]

    def _learn(self, record: _TrackedTask, context: SplitContext, finished: TaskFinished) -> None:
        """Learn from the time since the decision; time lost in earlier attempts is not its fault."""
        self._policy.learn(context, finished)
        same = record.decided is not None and record.decided.variant == finished.variant
        if finished.in_full and finished.variant and same and record.uncorrected_ms and not record.loads:
            elapsed_ms = context.deadline_ms - context.slack_ms
            actual_ms = max(0.0, finished.response_ms - elapsed_ms)
            self._correction.learn(context.application, finished.variant, record.uncorrected_ms, actual_ms)
