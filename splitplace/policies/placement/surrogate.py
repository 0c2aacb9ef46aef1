"""The surrogate network f of equation 11: from state, split decisions and placement to the objective O^P.

It works for any number of nodes N and stages S. Every (stage, node) pair goes through one shared perceptron;
the placement P [S, N], relaxed to probabilities, weights its outputs:

    E_sn = tanh(x_sn W1 + b1) W2 + b2                          shared by all pairs, does not depend on P
    z_s  = sum_n P_sn E_sn                                     embedding of a stage on its node
    t_s  = sum_n P_sn time_sn                                  fetching, receiving, computing
    q_s  = sum_n P_sn (waiting_n + sum_{r != s} P_rn work_rn)  waiting for others, also those placed with it
    c_s  = sum_n P_sn P_source(s)n                             on the node of its source
    o_i  = tanh([sum z, mean z, log sum t, log sum q, log max(t+q), mean c, features_i] W3 + b3) W4 + b4

The last line pools over the stages of task i; O^P is the mean of `o_i` over tasks (`objective.py`). So the
input that equation 11 calls the placement enters where a placement acts: by the node of each stage and by the
stages that share a node. Gradients are written by hand; a test checks them by finite differences.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from splitplace.policies.placement.features import PAIR_FEATURES, STAGE_FEATURES, TASK_FEATURES, Problem

Array = npt.NDArray[np.floating]
Indices = npt.NDArray[np.intp]
Weights = Mapping[str, Array]

HIDDEN = 32
CHANNELS = 8
POOLED_INPUTS = 3
INPUTS = PAIR_FEATURES + STAGE_FEATURES
_POOLED = 2 * CHANNELS + 4 + TASK_FEATURES

SHAPES: Mapping[str, tuple[int, ...]] = {
    "w1": (INPUTS, HIDDEN),
    "b1": (HIDDEN,),
    "w2": (HIDDEN, CHANNELS),
    "b2": (CHANNELS,),
    "w3": (_POOLED, HIDDEN),
    "b3": (HIDDEN,),
    "w4": (HIDDEN,),
    "b4": (1,),
}


def initial_weights(random: np.random.Generator) -> dict[str, Array]:
    """Return untrained weights: normal with variance 1 / inputs; biases 0."""
    return {
        name: random.normal(0, shape[0] ** -0.5, shape) if name.startswith("w") else np.zeros(shape)
        for name, shape in SHAPES.items()
    }


@dataclass(frozen=True, slots=True)
class PlacedStages:
    """Figures of S placed stages of T tasks; the stages of a task are together."""

    embeddings: Array
    """[S, CHANNELS] z."""
    pooled_inputs: Array
    """[S, POOLED_INPUTS] t, q, c."""


class Tasks:
    """Which stages belong to which of T tasks."""

    def __init__(self, sizes: Indices) -> None:
        """Make tasks of so many stages each, [T], at least one; stages are in the order of tasks."""
        self.starts = np.cumsum(sizes) - sizes
        self.task = np.repeat(np.arange(len(sizes)), sizes)
        self.sizes = sizes[:, None].astype(np.float32)

    def sums(self, values: Array) -> Array:
        """Return sums of [S, ...] over the stages of each task."""
        totals: Array = np.add.reduceat(values, self.starts)
        return totals


@dataclass(frozen=True, slots=True)
class Totals:
    """Figures of all stages of each of T tasks, or of one task in T placements."""

    embeddings: Array
    """[T, CHANNELS] sum of z."""
    time: Array
    """[T] sum of t."""
    waiting: Array
    """[T] sum of q."""
    last: Array
    """[T] greatest t + q."""
    same: Array
    """[T] sum of c."""
    sizes: Array
    """[T, 1] number of stages."""


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """Values of the forward pass that the backward pass needs."""

    pooled: Array
    hidden: Array


def embed(weights: Weights, features: Array) -> tuple[Array, Array]:
    """Return `E` of feature rows [..., INPUTS], and the hidden layer."""
    hidden = features @ weights["w1"]
    hidden += weights["b1"]
    np.tanh(hidden, out=hidden)
    return hidden @ weights["w2"] + weights["b2"], hidden


def embed_gradients(
    weights: Weights, features: Array, hidden: Array, d_embeddings: Array
) -> dict[str, Array]:
    """Return gradients of the first two layers for rows [S, INPUTS], from those of `E` [S, CHANNELS]."""
    d_hidden = (d_embeddings @ weights["w2"].T) * (1 - hidden * hidden)
    return {
        "w1": features.T @ d_hidden,
        "b1": d_hidden.sum(axis=0),
        "w2": hidden.T @ d_embeddings,
        "b2": d_embeddings.sum(axis=0),
    }


def together(stages: PlacedStages, tasks: Tasks) -> Totals:
    """Return the figures of tasks from those of their stages."""
    time, waiting, same = tasks.sums(stages.pooled_inputs).T
    last = np.maximum.reduceat(stages.pooled_inputs[:, 0] + stages.pooled_inputs[:, 1], tasks.starts)
    return Totals(tasks.sums(stages.embeddings), time, waiting, last, same, tasks.sizes)


def pool(weights: Weights, totals: Totals, task_features: Array) -> tuple[Array, ForwardPass]:
    """Return the objective of each of T tasks.

    Args:
        weights: weights of the network.
        totals: figures of the tasks.
        task_features: [T, TASK_FEATURES].
    """
    pooled = np.empty((*totals.time.shape, _POOLED), dtype=task_features.dtype)
    pooled[..., :CHANNELS] = totals.embeddings
    pooled[..., CHANNELS : 2 * CHANNELS] = totals.embeddings / totals.sizes
    pooled_inputs = pooled[..., 2 * CHANNELS :]
    pooled_inputs[..., 0] = totals.time
    pooled_inputs[..., 1] = totals.waiting
    pooled_inputs[..., 2] = totals.last
    pooled_inputs[..., :3] += 1
    np.log(pooled_inputs[..., :3], out=pooled_inputs[..., :3])
    pooled_inputs[..., 3] = totals.same / totals.sizes[..., 0]
    pooled_inputs[..., 4:] = task_features
    hidden = pooled @ weights["w3"]
    hidden += weights["b3"]
    np.tanh(hidden, out=hidden)
    return hidden @ weights["w4"] + weights["b4"], ForwardPass(pooled, hidden)


def pooled_gradients(weights: Weights, trace: ForwardPass, d_value: Array) -> tuple[Array, Array]:
    """Return gradients with respect to the inputs of the third layer, and to its outputs before tanh.

    Args:
        weights: weights of the network.
        trace: values of the forward pass.
        d_value: [T] gradient with respect to the objectives.

    Returns:
        [T, _POOLED] and [T, HIDDEN].
    """
    d_hidden = d_value[:, None] * weights["w4"] * (1 - trace.hidden * trace.hidden)
    return d_hidden @ weights["w3"].T, d_hidden


def embedding_gradients(d_pooled: Array, tasks: Tasks) -> Array:
    """Return gradients with respect to the embeddings of stages, [S, CHANNELS]."""
    of_sum, of_mean = d_pooled[:, :CHANNELS], d_pooled[:, CHANNELS : 2 * CHANNELS]
    gradients: Array = (of_sum + of_mean / tasks.sizes)[tasks.task]
    return gradients


def pooled_input_gradients(d_pooled: Array, trace: ForwardPass, stages: PlacedStages, tasks: Tasks) -> Array:
    """Return gradients with respect to the pooled inputs of stages, [S, POOLED_INPUTS]."""
    measured = slice(2 * CHANNELS, 2 * CHANNELS + 3)
    of_time, of_waiting, of_last = (d_pooled[:, measured] * np.exp(-trace.pooled[:, measured])).T
    end = stages.pooled_inputs[:, 0] + stages.pooled_inputs[:, 1]
    slowest = (end == np.maximum.reduceat(end, tasks.starts)[tasks.task]).astype(end.dtype)
    of_end = slowest * (of_last / tasks.sums(slowest))[tasks.task]  # equals share it
    gradients = np.empty_like(stages.pooled_inputs)
    gradients[:, 0] = of_time[tasks.task] + of_end
    gradients[:, 1] = of_waiting[tasks.task] + of_end
    gradients[:, 2] = (d_pooled[:, measured.stop] / tasks.sizes[:, 0])[tasks.task]
    return gradients


def pool_gradients(trace: ForwardPass, d_hidden: Array, d_value: Array) -> dict[str, Array]:
    """Return gradients of the last two layers, from those of the hidden layer and of the objective [T]."""
    return {
        "w3": trace.pooled.T @ d_hidden,
        "b3": d_hidden.sum(axis=0),
        "w4": trace.hidden.T @ d_value,
        "b4": d_value.sum(keepdims=True),
    }


class SurrogateObjective:
    """`f([S_t, P_t, D_t]; theta)` of one state as a function of the placement alone."""

    def __init__(self, weights: Weights, problem: Problem) -> None:
        """Compute everything that does not depend on the placement."""
        self._problem = problem
        self._weights = {name: values.astype(problem.features.dtype) for name, values in weights.items()}
        self._embeddings, _ = embed(self._weights, problem.features)
        self._tasks = Tasks(np.bincount(problem.task))
        self._has_source = np.flatnonzero(problem.source >= 0)
        self._sources = problem.source[self._has_source]
        self._neighbours = np.zeros((len(problem.source),) * 2, dtype=problem.time.dtype)
        self._neighbours[self._has_source, self._sources] = 1
        self._neighbours[self._sources, self._has_source] = 1

    @property
    def node_count(self) -> int:
        """Number of nodes, N."""
        return len(self._problem.waiting)

    def placed(self, placement: Array) -> PlacedStages:
        """Return the figures of the stages under a placement [S, N], relaxed or not."""
        return self._placed(placement, self._ahead(placement))

    def _placed(self, placement: Array, ahead: Array) -> PlacedStages:
        problem = self._problem
        pooled_inputs = np.zeros((len(placement), POOLED_INPUTS), dtype=placement.dtype)
        pooled_inputs[:, 0] = np.einsum("sn,sn->s", placement, problem.time)
        pooled_inputs[:, 1] = np.einsum("sn,sn->s", placement, ahead) / problem.unit
        if len(self._sources):
            both = np.einsum("sn,sn->s", placement[self._has_source], placement[self._sources])
            pooled_inputs[self._has_source, 2] = both
        return PlacedStages(np.matmul(placement[:, None, :], self._embeddings)[:, 0, :], pooled_inputs)

    def _ahead(self, placement: Array) -> Array:
        """Return [S, N] the work in ms that each stage would wait for on each node."""
        own = placement * self._problem.work
        ahead: Array = self._problem.waiting + own.sum(axis=0) - own
        return ahead

    def values(self, placement: Array) -> Array:
        """Return the objective of each task, [T]."""
        return pool(
            self._weights, together(self.placed(placement), self._tasks), self._problem.task_features
        )[0]

    def gradient(self, placement: Array) -> Array:
        """Return the gradient of the sum of all tasks' objectives in the placement, [S, N]."""
        problem, tasks = self._problem, self._tasks
        ahead = self._ahead(placement)
        stages = self._placed(placement, ahead)
        values, trace = pool(self._weights, together(stages, tasks), problem.task_features)
        d_pooled, _ = pooled_gradients(self._weights, trace, np.ones_like(values))
        d_time, d_waiting, d_same = pooled_input_gradients(d_pooled, trace, stages, tasks).T[:, :, None]
        d_waiting = d_waiting / problem.unit[:, None]
        weighted = placement * d_waiting
        gradient: Array = np.matmul(self._embeddings, embedding_gradients(d_pooled, tasks)[:, :, None])[
            :, :, 0
        ]
        gradient += d_time * problem.time
        gradient += d_waiting * ahead
        gradient += problem.work * (weighted.sum(axis=0) - weighted)
        if len(self._sources):
            d_same = d_same[self._has_source]
            gradient[self._has_source] += d_same * placement[self._sources]
            np.add.at(gradient, self._sources, d_same * placement[self._has_source])
        return gradient

    def moves(self, chosen: Indices) -> Array:
        """Return the objective of a single task after each move of one of its stages to a node, [S, N].

        The others stay. Only the effect of a move is computed: all figures of the moved stage s, and the
        waiting of every other stage r, which is less by s's work on the old node and more by it on the new
        one.

        Args:
            chosen: [S] current node of each stage; staying there is one of the moves.
        """
        problem, rows = self._problem, np.arange(len(chosen))
        here = np.zeros_like(problem.work)
        here[rows, chosen] = 1
        unit, ahead = problem.unit[:, None], self._ahead(here)
        standing = self._placed(here, ahead)
        work, ahead = problem.work / unit, ahead / unit
        beside = here @ here.T
        # Waiting of r if s goes to n: [r, s, n].
        waits = (standing.pooled_inputs[:, 1:2] - beside * work[rows, chosen])[:, :, None] + here[
            :, None
        ] * work
        waits[rows, rows] = ahead
        ends = waits + standing.pooled_inputs[:, :1, None]
        ends[rows, rows] = ahead + problem.time
        near = self._neighbours @ here
        totals = Totals(
            embeddings=standing.embeddings.sum(axis=0) + (self._embeddings - standing.embeddings[:, None]),
            time=standing.pooled_inputs[:, 0].sum() + (problem.time - standing.pooled_inputs[:, :1]),
            waiting=waits.sum(axis=0),
            last=ends.max(axis=0),
            same=standing.pooled_inputs[:, 2].sum() + (near - near[rows, chosen][:, None]),
            sizes=self._tasks.sizes,
        )
        return pool(self._weights, totals, problem.task_features)[0]
