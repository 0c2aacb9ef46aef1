"""GOBI and DASO: gradient search over a surrogate of the objective (sections 4.2 and 4.3 of the paper).

Both are one class. DASO (decision-aware) gives the surrogate the split decision, the variant's accuracy and
the slack, GOBI does not.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from typing_extensions import override

from splitplace.messages.task import TaskFinished
from splitplace.policies.cluster import ClusterView
from splitplace.policies.cluster_columns import ClusterColumns
from splitplace.policies.placement.feasibility import candidates, no_room
from splitplace.policies.placement.features import PlacingJob, Problem, build_problem
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
from splitplace.policies.placement.search import (
    Chosen,
    FreeMemory,
    local_search,
    mirror_ascent,
    one_hot,
    rounded,
    softmax,
)
from splitplace.policies.placement.surrogate import Array, PlacedStages, SurrogateObjective, Weights
from splitplace.policies.placement.training import PlacementSample, fit, predicted
from splitplace.policies.placement.weights import weights_of, weights_state
from splitplace.policies.prediction import on_nodes, scheduled
from splitplace.policies.state import State

Search = Literal["gradient", "no-gradient", "warm-start"]
"""From a guess by predicted times along the gradient; the guess as it is; along the gradient from where the
latest task of the same kind stands (P_t-1 of equation 12). All end with the best moves of single stages."""

FINE_TUNING_STEPS = 10
FINE_TUNING_RATE = 5e-4
"""A quarter of the rate of the first training, so that one interval does not undo it."""

LEAST_SAMPLES = 64
"""Tasks that must have finished before the weights change."""

MAX_SAMPLES = 4_000
"""Newest samples that are kept for training."""

MAX_PENDING = 10_000
"""Placements without an outcome; beyond it, the oldest is dropped."""

JITTER = 0.1
"""Standard deviation of noise on the first logits, so that equal stages do not all go to the first of equal
nodes."""

STAY = 3.0
"""Logit of a stage's current node; that of the others is 0."""

LEAST_GAIN = 0.01
"""Objective that a task must gain by moving."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """A task that was placed and has not finished."""

    variant: str
    micro_batches: int
    sample: PlacementSample
    solo_ms: float
    """Its computing time on a node of mean speed."""
    expense: float
    """Expected `_FinishedTask.expense`."""


@dataclass(frozen=True, slots=True)
class _FinishedTask:
    """A task that finished in this interval: all but the energy of its target is known."""

    sample: PlacementSample
    charged: Charged
    expense: float
    """Computing time it took, over what it takes on a node of mean speed."""


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
        search: Search = "gradient",
    ) -> None:
        """Make a policy from a trained surrogate.

        Args:
            weights: weights of the surrogate.
            random: draws the jitter and the batches of training.
            decision_aware: DASO rather than GOBI.
            alpha: weight of energy in equation 10.
            fine_tuning: whether `end_period` asks for training.
            keep: number of the newest tasks to train on.
            search: how placements are searched.
        """
        self.name = "daso" if decision_aware else "gobi"
        if search != "gradient":
            self.name += f"-{search}"
        self._search = search
        self._previous: dict[tuple[str, str], Mapping[str, str]] = {}
        """Latest placement of each application and variant."""
        self._weights = dict(weights)
        self._random = random
        self._decision_aware = decision_aware
        self._alpha = alpha
        self._fine_tuning = fine_tuning
        self._pending: OrderedDict[str, _Pending] = OrderedDict()
        self._finished: list[_FinishedTask] = []
        self._samples: deque[PlacementSample] = deque(maxlen=keep)

    # --- placing ---------------------------------------------------------------------------------------

    @override
    def place(self, request: PlacementRequest, cluster: ClusterView, now_ms: float) -> Placement | Infeasible:
        names = candidates(request, cluster)
        if isinstance(names, Infeasible):
            return names
        problem = self._asked(request, cluster, now_ms)
        hopeless = np.flatnonzero(~problem.allowed.any(axis=1))
        if len(hopeless):
            return no_room(request, cluster, problem.stages[hopeless[0]])
        columns, surrogate = cluster.columns, SurrogateObjective(self._weights, problem)
        first = self._where_it_was if self._search == "warm-start" else self._first_guess
        chosen = self._best(surrogate, problem, columns, first(problem, request, columns))
        if (chosen < 0).any():
            return no_room(request, cluster, problem.stages[int(chosen.argmin())])
        nodes = {stage.name: columns.names[node] for stage, node in zip(problem.stages, chosen, strict=True)}
        schedule = scheduled(
            cluster, request.job, on_nodes(nodes), now_ms, start_ms=request.start_ms, due_ms=request.due_ms
        )
        self._previous[request.job.application.name, request.job.variant.name] = nodes
        self._note(request, problem, surrogate.placed(one_hot(chosen, surrogate.node_count)), chosen)
        return Placement.of(schedule)

    @override
    def rearrange(
        self, active: Sequence[ActiveJob], cluster: ClusterView, now_ms: float
    ) -> Mapping[str, Mapping[str, str]]:
        """Move only tasks that gain by it, and only if all together gain."""
        columns = cluster.columns
        open_jobs = [(task, PlacingJob(task.job, task.due_ms, task.remaining)) for task in active]
        open_jobs = [
            (task, placing)
            for task, placing in open_jobs
            if placing.open_stages
            and all(task.nodes.get(stage.name) in columns.index for stage in placing.open_stages)
        ]
        if not open_jobs:
            return {}
        problem = build_problem(
            [placing for _, placing in open_jobs],
            columns,
            now_ms,
            columns.unexplained_ms(now_ms),
            columns.usable(frozenset()),
            decision_aware=self._decision_aware,
        )
        jobs = [task for task, _ in open_jobs]
        current = np.array(
            [
                columns.index[jobs[task].nodes[stage.name]]
                for task, stage in zip(problem.task, problem.stages, strict=True)
            ]
        )
        problem.allowed[np.arange(len(current)), current] = True  # its memory is reserved there
        surrogate = SurrogateObjective(self._weights, problem)
        before = one_hot(current, surrogate.node_count)
        chosen = rounded(
            mirror_ascent(surrogate, STAY * before, problem.allowed), problem, FreeMemory(problem, columns)
        )
        values = surrogate.values(before)
        gains = surrogate.values(one_hot(chosen, surrogate.node_count)) - values
        stays = (gains < LEAST_GAIN)[problem.task] | (chosen < 0)
        chosen = np.where(stays, current, chosen)
        if surrogate.values(one_hot(chosen, surrogate.node_count)).sum() < values.sum() + LEAST_GAIN:
            return {}
        moves: dict[str, dict[str, str]] = {}
        for index in np.flatnonzero(chosen != current).tolist():
            task = jobs[problem.task[index]].task
            moves.setdefault(task, {})[problem.stages[index].name] = columns.names[chosen[index]]
        for task in moves:
            self._pending.pop(task, None)  # its outcome is due to no single placement
        return moves

    def _asked(self, request: PlacementRequest, cluster: ClusterView, now_ms: float) -> Problem:
        columns = cluster.columns
        return build_problem(
            [PlacingJob(request.job, request.due_ms)],
            columns,
            now_ms,
            columns.ready_ms(now_ms, request.due_ms) - now_ms,
            columns.usable(request.avoid),
            decision_aware=self._decision_aware,
        )

    def _where_it_was(self, problem: Problem, request: PlacementRequest, columns: ClusterColumns) -> Array:
        """Return the logits of P_t-1: where the latest task of the same kind stands; of the first, noise."""
        logits = self._random.normal(0, JITTER, problem.time.shape).astype(np.float32)
        before = self._previous.get((request.job.application.name, request.job.variant.name), {})
        for row, stage in enumerate(problem.stages):
            node = columns.index.get(before.get(stage.name, ""))
            if node is not None:
                logits[row, node] += STAY
        return logits

    def _first_guess(self, problem: Problem, *_: object) -> Array:
        """Return logits for new stages: higher where they are done sooner, with a little noise."""
        sooner = -np.log(problem.time + problem.waiting / problem.unit[:, None] + np.float32(1e-6))
        return sooner + self._random.normal(0, JITTER, sooner.shape).astype(np.float32)

    def _best(
        self, surrogate: SurrogateObjective, problem: Problem, columns: ClusterColumns, guess: Array
    ) -> Chosen:
        """Return what the search finds; if that does not fit, the rounded first guess."""
        starts = [softmax(guess)]
        if self._search != "no-gradient":
            starts.insert(0, mirror_ascent(surrogate, guess, problem.allowed))
        for placement in starts:
            room = FreeMemory(problem, columns)
            chosen = rounded(placement, problem, room)
            if (chosen >= 0).all():
                return local_search(surrogate, chosen, room)
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
        """Note the placement of another policy; `learn` gets the outcome.

        Args:
            request: the request of the task.
            nodes: its placement.
            cluster: the nodes, without the task.
            now_ms: the present moment.
            state: the same text for several placements of a task, at most one of them real.
        """
        problem = self._asked(request, cluster, now_ms)
        chosen = np.array(
            [cluster.columns.index[nodes[stage.name]] for stage in problem.stages], dtype=np.intp
        )
        surrogate = SurrogateObjective(self._weights, problem)
        self._note(request, problem, surrogate.placed(one_hot(chosen, surrogate.node_count)), chosen, state)

    def _note(
        self,
        request: PlacementRequest,
        problem: Problem,
        placed: PlacedStages,
        chosen: Chosen,
        state: str = "",
    ) -> None:
        rows = np.arange(len(chosen))
        sample = PlacementSample(
            problem.features[rows, chosen],
            placed.pooled_inputs,
            problem.task_features[0],
            target=0.0,
            state=state,
        )
        expense = float(problem.work[rows, chosen].sum() / problem.solo_ms[0])
        self._pending[request.task] = _Pending(
            request.job.variant.name,
            len(request.job.micro_batches),
            sample,
            float(problem.solo_ms[0]),
            expense,
        )
        self._pending.move_to_end(request.task)
        while len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)

    @override
    def learn(self, outcome: TaskFinished) -> None:
        """Note the outcome; a task that was finally placed as another variant is ignored."""
        pending = self._pending.pop(outcome.task, None)
        if pending is None or pending.variant != outcome.variant:
            return
        took_ms = sum(report.compute_ms for report in outcome.stages)
        self._finished.append(
            _FinishedTask(
                pending.sample,
                charged(outcome, pending.micro_batches),
                took_ms / pending.solo_ms if took_ms > 0 else pending.expense,
            )
        )

    @override
    def end_period(self, outcome: PeriodOutcome) -> Training | None:
        """Compute targets by equation 10 as `objective.py` reads it, then ask for training by equation 11."""
        finished, self._finished = self._finished, []
        mean = sum(task.expense for task in finished) / len(finished) if finished else 0.0
        for task in finished:
            energy = outcome.energy * (task.expense / mean if mean > 0 else 1.0)
            target = objective(task.charged.reward, energy, task.charged.response, self._alpha)
            self._samples.append(replace(task.sample, target=target))
        if not finished or not self._fine_tuning or len(self._samples) < LEAST_SAMPLES:
            return None
        seed = int(self._random.integers(1 << 31))
        return partial(self._train, dict(self._weights), list(self._samples), seed)

    @property
    def samples(self) -> Sequence[PlacementSample]:
        """All samples, the newest last: for the first training."""
        return tuple(self._samples)

    def expected(self, sample: PlacementSample) -> float:
        """Return the predicted objective of a sample."""
        return float(predicted(self._weights, [sample])[0])

    def _train(self, weights: Weights, samples: Sequence[PlacementSample], seed: int) -> partial[None]:
        """Train beside decisions; reads nothing of `self` that they change."""
        random = np.random.default_rng(seed)
        tuned = fit(weights, samples, random, steps=FINE_TUNING_STEPS, learning_rate=FINE_TUNING_RATE)
        return partial(self._adopt, tuned)

    def _adopt(self, weights: Weights) -> None:
        self._weights = dict(weights)

    def state(self) -> State:
        """Return the weights. Samples are not saved."""
        return weights_state(self._weights)

    def restore(self, state: State) -> None:
        """Replace the weights by saved ones. Raises StateError."""
        self._adopt(weights_of(state))
