"""GOBI and DASO: gradient search over a surrogate of the objective (sections 4.2 and 4.3 of the paper).

Both are one class. DASO (decision-aware) gives the surrogate the split decision, the variant's accuracy and
the slack, GOBI does not.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from typing_extensions import override

from splitplace.messages.task import TaskFinished
from splitplace.policies.cluster import ClusterView
from splitplace.policies.cluster_columns import ClusterColumns
from splitplace.policies.placement.feasibility import candidates, no_room
from splitplace.policies.placement.features import PlacingJob, Problem, problem
from splitplace.policies.placement.interface import (
    ActiveJob,
    Infeasible,
    PeriodOutcome,
    Placement,
    PlacementPolicy,
    PlacementRequest,
    Rearranging,
    Training,
)
from splitplace.policies.placement.objective import ALPHA, Charged, charged, objective
from splitplace.policies.placement.search import Chosen, Room, climb, one_hot, rounded, settled, softmax
from splitplace.policies.placement.surrogate import Array, Fragments, Relaxed, Weights
from splitplace.policies.placement.training import PlacementSample, fit, predicted
from splitplace.policies.placement.weights import weights_of, weights_state
from splitplace.policies.prediction import predict
from splitplace.policies.state import State

FINE_TUNING_STEPS = 10
FINE_TUNING_RATE = 5e-4
"""A quarter of the rate of the first training: what was learnt there is not to be lost in one interval."""

LEAST_SAMPLES = 64
"""Before so many tasks have left, the weights stay as they are."""

MAX_SAMPLES = 4_000
"""The newest of them are kept and learnt from again."""

MAX_PENDING = 10_000
"""Placements whose outcome is awaited; the oldest are forgotten."""

JITTER = 0.1
"""Of the first logits, so that equal fragments do not all go to the first of equal hosts."""

STAY = 3.0
"""By how much the logit of the host where a fragment stands is above the others."""

LEAST_GAIN = 0.01
"""Objective that a task must gain by moving."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """A task that was placed and has not left."""

    variant: str
    micro_batches: int
    sample: PlacementSample
    own_ms: float
    """Its computing time on a host of mean speed."""
    expense: float
    """What `_Left.expense` is expected to be."""


@dataclass(frozen=True, slots=True)
class _Left:
    """A task that left in this interval: all but the target's energy is known."""

    sample: PlacementSample
    charged: Charged
    expense: float
    """Computing time it took, over what it takes on a host of mean speed."""


class SurrogatePlacement(PlacementPolicy, Rearranging):
    """Places by equation 12, learns by equation 11."""

    def __init__(
        self,
        weights: Weights,
        random: np.random.Generator,
        *,
        decision_aware: bool,
        alpha: float = ALPHA,
        fine_tuning: bool = True,
        keep: int = MAX_SAMPLES,
    ) -> None:
        """A policy whose surrogate was trained before.

        Args:
            weights: of the surrogate.
            random: for jitter and for the order of learning.
            decision_aware: DASO rather than GOBI.
            alpha: weight of energy in equation 10.
            fine_tuning: whether `end_period` asks for training.
            keep: how many of the newest tasks are learnt from.
        """
        self.name = "daso" if decision_aware else "gobi"
        self._weights = dict(weights)
        self._random = random
        self._decision_aware = decision_aware
        self._alpha = alpha
        self._fine_tuning = fine_tuning
        self._pending: OrderedDict[str, _Pending] = OrderedDict()
        self._left: list[_Left] = []
        self._samples: deque[PlacementSample] = deque(maxlen=keep)

    # --- placing ---------------------------------------------------------------------------------------

    @override
    def place(self, request: PlacementRequest, cluster: ClusterView, now_ms: float) -> Placement | Infeasible:
        names = candidates(request, cluster)
        if isinstance(names, Infeasible):
            return names
        asked = self._asked(request, cluster, now_ms)
        hopeless = np.flatnonzero(~asked.allowed.any(axis=1))
        if len(hopeless):
            return no_room(request, cluster, asked.stages[hopeless[0]])
        columns, surrogate = cluster.columns, Relaxed(self._weights, asked)
        chosen = self._best(surrogate, asked, columns, self._first_guess(asked))
        if (chosen < 0).any():
            return no_room(request, cluster, asked.stages[int(chosen.argmin())])
        nodes = {stage.name: columns.names[host] for stage, host in zip(asked.stages, chosen, strict=True)}
        prediction = predict(
            cluster, request.job, nodes, now_ms, start_ms=request.start_ms, due_ms=request.due_ms
        )
        self._note(request, asked, surrogate.placed(one_hot(chosen, surrogate.hosts)), chosen)
        return Placement(nodes, prediction)

    @override
    def rearrange(
        self, active: Sequence[ActiveJob], cluster: ClusterView, now_ms: float
    ) -> Mapping[str, Mapping[str, str]]:
        """Only tasks that gain by it are moved, and only if all together gain."""
        columns = cluster.columns
        open_jobs = [(one, PlacingJob(one.job, one.due_ms, one.remaining)) for one in active]
        open_jobs = [
            (one, placing)
            for one, placing in open_jobs
            if placing.open_stages
            and all(one.nodes.get(s.name) in columns.index for s in placing.open_stages)
        ]
        if not open_jobs:
            return {}
        asked = problem(
            [placing for _, placing in open_jobs],
            columns,
            now_ms,
            columns.unexplained_ms(now_ms),
            columns.usable(frozenset()),
            decision_aware=self._decision_aware,
        )
        jobs = [one for one, _ in open_jobs]
        stand = np.array(
            [
                columns.index[jobs[task].nodes[stage.name]]
                for task, stage in zip(asked.task, asked.stages, strict=True)
            ]
        )
        asked.allowed[np.arange(len(stand)), stand] = True  # its memory is reserved there
        surrogate = Relaxed(self._weights, asked)
        hosts = len(columns.names)
        before = one_hot(stand, hosts)
        chosen = rounded(climb(surrogate, STAY * before, asked.allowed), asked, Room(asked, columns))
        values = surrogate.values(before)
        gains = surrogate.values(one_hot(chosen, hosts)) - values
        stays = (gains < LEAST_GAIN)[asked.task] | (chosen < 0)
        chosen = np.where(stays, stand, chosen)
        if surrogate.values(one_hot(chosen, hosts)).sum() < values.sum() + LEAST_GAIN:
            return {}
        moves: dict[str, dict[str, str]] = {}
        for index in np.flatnonzero(chosen != stand).tolist():
            task = jobs[asked.task[index]].task
            moves.setdefault(task, {})[asked.stages[index].name] = columns.names[chosen[index]]
        for task in moves:
            self._pending.pop(task, None)  # what comes of it is due to no single placement
        return moves

    def _asked(self, request: PlacementRequest, cluster: ClusterView, now_ms: float) -> Problem:
        columns = cluster.columns
        return problem(
            [PlacingJob(request.job, request.due_ms)],
            columns,
            now_ms,
            columns.ready_ms(now_ms, request.due_ms) - now_ms,
            columns.usable(request.avoid),
            decision_aware=self._decision_aware,
        )

    def _first_guess(self, asked: Problem) -> Array:
        """Logits of hosts for new fragments: higher where they are through sooner, and a little chance."""
        sooner = -np.log(asked.time + asked.waiting / asked.unit[:, None] + np.float32(1e-6))
        return sooner + self._random.normal(0, JITTER, sooner.shape).astype(np.float32)

    @staticmethod
    def _best(surrogate: Relaxed, asked: Problem, columns: ClusterColumns, guess: Array) -> Chosen:
        """What the search finds; where its answer cannot be given room, what it began with."""
        for placement in (climb(surrogate, guess, asked.allowed), softmax(guess)):
            room = Room(asked, columns)
            chosen = rounded(placement, asked, room)
            if (chosen >= 0).all():
                return settled(surrogate, chosen, room)
        return chosen

    # --- learning --------------------------------------------------------------------------------------

    def observe(
        self,
        request: PlacementRequest,
        nodes: Mapping[str, str],
        cluster: ClusterView,
        now_ms: float,
        *,
        state: str = "",
    ) -> None:
        """Another policy places a task, on the cluster as it is: `learn` will tell what comes of it.

        Args:
            request: the task.
            nodes: its placement.
            cluster: the nodes, without the task.
            now_ms: the present moment.
            state: the same for several placements of a task, of which at most one is real.
        """
        asked = self._asked(request, cluster, now_ms)
        chosen = np.array([cluster.columns.index[nodes[stage.name]] for stage in asked.stages], dtype=np.intp)
        surrogate = Relaxed(self._weights, asked)
        self._note(request, asked, surrogate.placed(one_hot(chosen, surrogate.hosts)), chosen, state)

    def _note(
        self, request: PlacementRequest, asked: Problem, placed: Fragments, chosen: Chosen, state: str = ""
    ) -> None:
        rows = np.arange(len(chosen))
        sample = PlacementSample(
            asked.features[rows, chosen],
            placed.measures,
            asked.about[0],
            target=0.0,
            state=state,
        )
        expense = float(asked.work[rows, chosen].sum() / asked.own[0])
        self._pending[request.task] = _Pending(
            request.job.variant.name, len(request.job.micro_batches), sample, float(asked.own[0]), expense
        )
        self._pending.move_to_end(request.task)
        while len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)

    @override
    def learn(self, outcome: TaskFinished) -> None:
        """A task that was placed as another variant in the end teaches nothing."""
        pending = self._pending.pop(outcome.task, None)
        if pending is None or pending.variant != outcome.variant:
            return
        took_ms = sum(report.compute_ms for report in outcome.stages)
        self._left.append(
            _Left(
                pending.sample,
                charged(outcome, pending.micro_batches),
                took_ms / pending.own_ms if took_ms > 0 else pending.expense,
            )
        )

    @override
    def end_period(self, outcome: PeriodOutcome) -> Training | None:
        """Targets by equation 10 as `objective.py` reads it, then equation 11."""
        left, self._left = self._left, []
        mean = sum(one.expense for one in left) / len(left) if left else 0.0
        for one in left:
            energy = outcome.energy * (one.expense / mean if mean > 0 else 1.0)
            target = objective(one.charged.reward, energy, one.charged.response, self._alpha)
            self._samples.append(replace(one.sample, target=target))
        if not left or not self._fine_tuning or len(self._samples) < LEAST_SAMPLES:
            return None
        seed = int(self._random.integers(1 << 31))
        return partial(self._train, dict(self._weights), list(self._samples), seed)

    @property
    def samples(self) -> Sequence[PlacementSample]:
        """What it has seen, the newest last: for the first training."""
        return tuple(self._samples)

    def expected(self, sample: PlacementSample) -> float:
        """The objective it expects of a task, seen or not."""
        return float(predicted(self._weights, [sample])[0])

    def _train(self, weights: Weights, samples: Sequence[PlacementSample], seed: int) -> partial[None]:
        """Runs beside decisions: reads nothing of `self` that they change."""
        random = np.random.default_rng(seed)
        tuned = fit(weights, samples, random, steps=FINE_TUNING_STEPS, learning_rate=FINE_TUNING_RATE)
        return partial(self._adopt, tuned)

    def _adopt(self, weights: Weights) -> None:
        self._weights = dict(weights)

    def state(self) -> State:
        """The weights. What was seen is not kept: it is learnt."""
        return weights_state(self._weights)

    def restore(self, state: State) -> None:
        """Take up weights. Raises StateError."""
        self._adopt(weights_of(state))
