"""The surrogate network f of equation 11: from state, split decisions and placement to the objective O^P.

It works for any number of hosts H and fragments F. Every (fragment, host) pair goes through one shared
perceptron; the placement P [F, H], relaxed to probabilities, weights what comes out:

    E_fh = tanh(x_fh W1 + b1) W2 + b2                          shared by all pairs, does not depend on P
    z_f  = sum_h P_fh E_fh                                     what is said of a fragment where it is
    t_f  = sum_h P_fh time_fh                                  fetching, receiving, computing
    q_f  = sum_h P_fh (waiting_h + sum_{g != f} P_gh work_gh)  waiting for others, also those placed with it
    s_f  = sum_h P_fh P_source(f)h                             on the host of its source
    o_i  = tanh([sum z, mean z, log sum t, log sum q, log max(t+q), mean s, about_i] W3 + b3) W4 + b4

The last line pools over the fragments of task i; O^P is the mean of `o_i` over tasks (`objective.py`). So the
one input that equation 11 calls the placement enters where a placement acts: by the host of each fragment and
by what stands on a host together. Gradients are written by hand; a test checks them by finite differences.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from splitplace.policies.placement.features import FRAGMENT_FEATURES, PAIR_FEATURES, TASK_FEATURES, Problem

Array = npt.NDArray[np.floating]
Indices = npt.NDArray[np.intp]
Weights = Mapping[str, Array]

HIDDEN = 32
CHANNELS = 8
MEASURES = 3
INPUTS = PAIR_FEATURES + FRAGMENT_FEATURES
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
    """Untrained weights: normal, of variance 1 / inputs; biases of zero."""
    return {
        name: random.normal(0, shape[0] ** -0.5, shape) if name.startswith("w") else np.zeros(shape)
        for name, shape in SHAPES.items()
    }


@dataclass(frozen=True, slots=True)
class Fragments:
    """What is said of N placed fragments of T tasks; the fragments of a task stand together."""

    said: Array
    """[N, CHANNELS] z."""
    measures: Array
    """[N, MEASURES] t, q, s."""


class Tasks:
    """Which fragments belong to which of T tasks."""

    def __init__(self, sizes: Indices) -> None:
        """Tasks of so many fragments each, [T], at least one; fragments stand in the order of tasks."""
        self.starts = np.cumsum(sizes) - sizes
        self.task = np.repeat(np.arange(len(sizes)), sizes)
        self.sizes = sizes[:, None].astype(np.float32)

    def sums(self, values: Array) -> Array:
        """Of [N, ...] over the fragments of each task."""
        totals: Array = np.add.reduceat(values, self.starts)
        return totals


@dataclass(frozen=True, slots=True)
class Totals:
    """What is said of the fragments of each of T tasks together, or of one task in as many placements."""

    said: Array
    """[T, CHANNELS] sum of z."""
    time: Array
    """[T] sum of t."""
    waiting: Array
    """[T] sum of q."""
    last: Array
    """[T] greatest t + q."""
    same: Array
    """[T] sum of s."""
    sizes: Array
    """[T, 1] how many fragments there are."""


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """What the forward pass leaves for the backward pass."""

    pooled: Array
    hidden: Array


def embed(weights: Weights, features: Array) -> tuple[Array, Array]:
    """`E` of feature rows [..., INPUTS], and the hidden layer."""
    hidden = features @ weights["w1"]
    hidden += weights["b1"]
    np.tanh(hidden, out=hidden)
    return hidden @ weights["w2"] + weights["b2"], hidden


def embed_gradients(weights: Weights, features: Array, hidden: Array, d_said: Array) -> dict[str, Array]:
    """Gradients of the first two layers for rows [N, INPUTS], from those of `E` [N, CHANNELS]."""
    d_hidden = (d_said @ weights["w2"].T) * (1 - hidden * hidden)
    return {
        "w1": features.T @ d_hidden,
        "b1": d_hidden.sum(axis=0),
        "w2": hidden.T @ d_said,
        "b2": d_said.sum(axis=0),
    }


def together(fragments: Fragments, tasks: Tasks) -> Totals:
    """What is said of tasks, from what is said of their fragments."""
    time, waiting, same = tasks.sums(fragments.measures).T
    last = np.maximum.reduceat(fragments.measures[:, 0] + fragments.measures[:, 1], tasks.starts)
    return Totals(tasks.sums(fragments.said), time, waiting, last, same, tasks.sizes)


def pool(weights: Weights, totals: Totals, about: Array) -> tuple[Array, ForwardPass]:
    """The objective of each of T tasks.

    Args:
        weights: of the network.
        totals: of the tasks.
        about: [T, TASK_FEATURES].
    """
    pooled = np.empty((*totals.time.shape, _POOLED), dtype=about.dtype)
    pooled[..., :CHANNELS] = totals.said
    pooled[..., CHANNELS : 2 * CHANNELS] = totals.said / totals.sizes
    measures = pooled[..., 2 * CHANNELS :]
    measures[..., 0] = totals.time
    measures[..., 1] = totals.waiting
    measures[..., 2] = totals.last
    measures[..., :3] += 1
    np.log(measures[..., :3], out=measures[..., :3])
    measures[..., 3] = totals.same / totals.sizes[..., 0]
    measures[..., 4:] = about
    hidden = pooled @ weights["w3"]
    hidden += weights["b3"]
    np.tanh(hidden, out=hidden)
    return hidden @ weights["w4"] + weights["b4"], ForwardPass(pooled, hidden)


def pooled_gradients(weights: Weights, trace: ForwardPass, d_value: Array) -> tuple[Array, Array]:
    """Gradients with respect to what enters the third layer, and to what leaves it before tanh is taken.

    Args:
        weights: of the network.
        trace: of the forward pass.
        d_value: [T] gradient with respect to the objectives.

    Returns:
        [T, _POOLED] and [T, HIDDEN].
    """
    d_hidden = d_value[:, None] * weights["w4"] * (1 - trace.hidden * trace.hidden)
    return d_hidden @ weights["w3"].T, d_hidden


def said_gradients(d_pooled: Array, tasks: Tasks) -> Array:
    """Gradients with respect to what is said of fragments, [N, CHANNELS]."""
    of_sum, of_mean = d_pooled[:, :CHANNELS], d_pooled[:, CHANNELS : 2 * CHANNELS]
    gradients: Array = (of_sum + of_mean / tasks.sizes)[tasks.task]
    return gradients


def measure_gradients(d_pooled: Array, trace: ForwardPass, fragments: Fragments, tasks: Tasks) -> Array:
    """Gradients with respect to the measures of fragments, [N, MEASURES]."""
    measured = slice(2 * CHANNELS, 2 * CHANNELS + 3)
    of_time, of_waiting, of_last = (d_pooled[:, measured] * np.exp(-trace.pooled[:, measured])).T
    end = fragments.measures[:, 0] + fragments.measures[:, 1]
    slowest = (end == np.maximum.reduceat(end, tasks.starts)[tasks.task]).astype(end.dtype)
    of_end = slowest * (of_last / tasks.sums(slowest))[tasks.task]  # equals share it
    gradients = np.empty_like(fragments.measures)
    gradients[:, 0] = of_time[tasks.task] + of_end
    gradients[:, 1] = of_waiting[tasks.task] + of_end
    gradients[:, 2] = (d_pooled[:, measured.stop] / tasks.sizes[:, 0])[tasks.task]
    return gradients


def pool_gradients(trace: ForwardPass, d_hidden: Array, d_value: Array) -> dict[str, Array]:
    """Gradients of the last two layers, from those of the hidden layer and of the objective [T]."""
    return {
        "w3": trace.pooled.T @ d_hidden,
        "b3": d_hidden.sum(axis=0),
        "w4": trace.hidden.T @ d_value,
        "b4": d_value.sum(keepdims=True),
    }


class Relaxed:
    """`f([S_t, P_t, D_t]; theta)` of one state as a function of the placement alone."""

    def __init__(self, weights: Weights, problem: Problem) -> None:
        """Everything that does not depend on the placement is computed here."""
        self._problem = problem
        self._weights = {name: values.astype(problem.features.dtype) for name, values in weights.items()}
        self._said, _ = embed(self._weights, problem.features)
        self._tasks = Tasks(np.bincount(problem.task))
        self._has_source = np.flatnonzero(problem.source >= 0)
        self._sources = problem.source[self._has_source]
        self._neighbours = np.zeros((len(problem.source),) * 2, dtype=problem.time.dtype)
        self._neighbours[self._has_source, self._sources] = 1
        self._neighbours[self._sources, self._has_source] = 1

    @property
    def hosts(self) -> int:
        """H."""
        return len(self._problem.waiting)

    def placed(self, placement: Array) -> Fragments:
        """What is said of the fragments under a placement [F, H], relaxed or not."""
        return self._placed(placement, self._ahead(placement))

    def _placed(self, placement: Array, ahead: Array) -> Fragments:
        problem = self._problem
        measures = np.zeros((len(placement), MEASURES), dtype=placement.dtype)
        measures[:, 0] = np.einsum("fh,fh->f", placement, problem.time)
        measures[:, 1] = np.einsum("fh,fh->f", placement, ahead) / problem.unit
        if len(self._sources):
            both = np.einsum("fh,fh->f", placement[self._has_source], placement[self._sources])
            measures[self._has_source, 2] = both
        return Fragments(np.matmul(placement[:, None, :], self._said)[:, 0, :], measures)

    def _ahead(self, placement: Array) -> Array:
        """[F, H] ms of work that each fragment would wait for on each host."""
        own = placement * self._problem.work
        ahead: Array = self._problem.waiting + own.sum(axis=0) - own
        return ahead

    def values(self, placement: Array) -> Array:
        """The objective of each task, [T]."""
        return pool(self._weights, together(self.placed(placement), self._tasks), self._problem.about)[0]

    def gradient(self, placement: Array) -> Array:
        """Of the sum of all tasks' objectives in the placement, [F, H]."""
        problem, tasks = self._problem, self._tasks
        ahead = self._ahead(placement)
        fragments = self._placed(placement, ahead)
        values, trace = pool(self._weights, together(fragments, tasks), problem.about)
        d_pooled, _ = pooled_gradients(self._weights, trace, np.ones_like(values))
        d_time, d_waiting, d_same = measure_gradients(d_pooled, trace, fragments, tasks).T[:, :, None]
        d_waiting = d_waiting / problem.unit[:, None]
        weighted = placement * d_waiting
        gradient: Array = np.matmul(self._said, said_gradients(d_pooled, tasks)[:, :, None])[:, :, 0]
        gradient += d_time * problem.time
        gradient += d_waiting * ahead
        gradient += problem.work * (weighted.sum(axis=0) - weighted)
        if len(self._sources):
            d_same = d_same[self._has_source]
            gradient[self._has_source] += d_same * placement[self._sources]
            np.add.at(gradient, self._sources, d_same * placement[self._has_source])
        return gradient

    def moves(self, chosen: Indices) -> Array:
        """The objective of a single task after each move of one of its fragments to a host, [F, H].

        The others stand where they are. Only what a move changes is computed anew: all that is said of the
        moved fragment f, and what another one g waits for: less by f's work where f stood, more by it where
        f goes.

        Args:
            chosen: [F] where the fragments stand now; staying there is one of the moves.
        """
        problem, rows = self._problem, np.arange(len(chosen))
        here = np.zeros_like(problem.work)
        here[rows, chosen] = 1
        unit, ahead = problem.unit[:, None], self._ahead(here)
        standing = self._placed(here, ahead)
        work, ahead = problem.work / unit, ahead / unit
        beside = here @ here.T
        # Of g, if f goes to h: [g, f, h].
        waits = (standing.measures[:, 1:2] - beside * work[rows, chosen])[:, :, None] + here[:, None] * work
        waits[rows, rows] = ahead
        ends = waits + standing.measures[:, :1, None]
        ends[rows, rows] = ahead + problem.time
        near = self._neighbours @ here
        totals = Totals(
            said=standing.said.sum(axis=0) + (self._said - standing.said[:, None]),
            time=standing.measures[:, 0].sum() + (problem.time - standing.measures[:, :1]),
            waiting=waits.sum(axis=0),
            last=ends.max(axis=0),
            same=standing.measures[:, 2].sum() + (near - near[rows, chosen][:, None]),
            sizes=self._tasks.sizes,
        )
        return pool(self._weights, totals, problem.about)[0]
