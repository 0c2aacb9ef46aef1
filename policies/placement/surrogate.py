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

from policies.placement.features import FRAGMENT_FEATURES, PAIR_FEATURES, TASK_FEATURES, Problem

Array = npt.NDArray[np.floating]
Indices = npt.NDArray[np.intp]
Weights = Mapping[str, Array]

HIDDEN = 32
CHANNELS = 8
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
    time: Array
    """[N] t."""
    waiting: Array
    """[N] q."""
    same: Array
    """[N] s."""


class Tasks:
    """Which fragments belong to which of T tasks."""

    def __init__(self, task: Indices) -> None:
        """Tasks 0..T-1 of [N] fragments, ascending, each at least once."""
        self.task = task
        self.starts = np.flatnonzero(np.diff(task, prepend=-1))
        self.sizes = np.diff(self.starts, append=len(task))[:, None]

    def sums(self, values: Array) -> Array:
        """Of [N, ...] over the fragments of each task."""
        totals: Array = np.add.reduceat(values, self.starts)
        return totals


@dataclass(frozen=True, slots=True)
class Trace:
    """What the forward pass leaves for the backward pass."""

    pooled: Array
    hidden: Array
    measures: Array
    """[T, 4] 1 + sum t, 1 + sum q, 1 + max(t+q), mean s."""
    slowest: Array
    """[N] 1 where a fragment is its task's slowest, split among equals."""


def embed(weights: Weights, features: Array) -> tuple[Array, Array]:
    """`E` of feature rows [..., INPUTS], and the hidden layer."""
    hidden = features @ weights["w1"]
    hidden += weights["b1"]
    np.tanh(hidden, out=hidden)
    return hidden @ weights["w2"] + weights["b2"], hidden


def embed_gradients(weights: Weights, features: Array, hidden: Array, d_said: Array) -> dict[str, Array]:
    """Gradients of the first two layers for rows [N, INPUTS], from those of `E` [N, CHANNELS]."""
    d_hidden = (d_said @ weights["w2"].T) * (1 - hidden**2)
    return {
        "w1": features.T @ d_hidden,
        "b1": d_hidden.sum(axis=0),
        "w2": hidden.T @ d_said,
        "b2": d_said.sum(axis=0),
    }


def pool(weights: Weights, fragments: Fragments, tasks: Tasks, about: Array) -> tuple[Array, Trace]:
    """The objective of each of T tasks.

    Args:
        weights: of the network.
        fragments: of all tasks.
        tasks: to which they belong.
        about: [T, TASK_FEATURES].
    """
    said = tasks.sums(fragments.said)
    end = fragments.time + fragments.waiting
    largest = np.maximum.reduceat(end, tasks.starts)
    slowest = (end == largest[tasks.task]).astype(about.dtype)
    slowest /= tasks.sums(slowest)[tasks.task]
    measures = np.empty((len(about), 4), dtype=about.dtype)
    measures[:, 0] = tasks.sums(fragments.time)
    measures[:, 1] = tasks.sums(fragments.waiting)
    measures[:, 2] = largest
    measures[:, :3] += 1
    measures[:, 3] = tasks.sums(fragments.same) / tasks.sizes[:, 0]
    pooled = np.concatenate(
        (said, said / tasks.sizes, np.log(measures[:, :3]), measures[:, 3:], about), axis=1, dtype=about.dtype
    )
    hidden = np.tanh(pooled @ weights["w3"] + weights["b3"])
    value = hidden @ weights["w4"] + weights["b4"]
    return value, Trace(pooled, hidden, measures, slowest)


def fragment_gradients(weights: Weights, trace: Trace, tasks: Tasks, d_value: Array) -> Fragments:
    """Gradients with respect to what is said of fragments, from those of the objective [T]."""
    d_pooled = _d_hidden(weights, trace, d_value) @ weights["w3"][: 2 * CHANNELS + 4].T
    of_sum, of_mean = d_pooled[:, :CHANNELS], d_pooled[:, CHANNELS : 2 * CHANNELS]
    d_said = of_sum + of_mean / tasks.sizes
    d_measures = d_pooled[:, 2 * CHANNELS :]
    d_measures[:, :3] /= trace.measures[:, :3]
    d_measures[:, 3:] /= tasks.sizes
    if len(d_value) > 1:
        d_said, d_measures = d_said[tasks.task], d_measures[tasks.task]
    d_end = d_measures[:, 2] * trace.slowest
    said = np.broadcast_to(d_said, (len(tasks.task), CHANNELS))
    same = np.broadcast_to(d_measures[:, 3], tasks.task.shape)
    return Fragments(said, d_measures[:, 0] + d_end, d_measures[:, 1] + d_end, same)


def pool_gradients(weights: Weights, trace: Trace, d_value: Array) -> dict[str, Array]:
    """Gradients of the last two layers, from those of the objective [T]."""
    d_hidden = _d_hidden(weights, trace, d_value)
    return {
        "w3": trace.pooled.T @ d_hidden,
        "b3": d_hidden.sum(axis=0),
        "w4": trace.hidden.T @ d_value,
        "b4": d_value.sum(keepdims=True),
    }


def _d_hidden(weights: Weights, trace: Trace, d_value: Array) -> Array:
    d_hidden: Array = d_value[:, None] * weights["w4"] * (1 - trace.hidden**2)
    return d_hidden


class Relaxed:
    """`f([S_t, P_t, D_t]; theta)` of one state as a function of the placement alone."""

    def __init__(self, weights: Weights, problem: Problem) -> None:
        """Everything that does not depend on the placement is computed here."""
        self._problem = problem
        self._weights = {name: values.astype(problem.features.dtype) for name, values in weights.items()}
        self._said, _ = embed(self._weights, problem.features)
        self._tasks = Tasks(problem.task)
        self._one = np.ones(len(problem.about), dtype=problem.about.dtype)
        self._has_source = np.flatnonzero(problem.source >= 0)
        self._sources = problem.source[self._has_source]

    @property
    def hosts(self) -> int:
        """H."""
        return len(self._problem.waiting)

    def placed(self, placement: Array) -> Fragments:
        """What is said of the fragments under a placement [F, H], relaxed or not."""
        problem = self._problem
        own = placement * problem.work
        load = own.sum(axis=0)
        waiting = np.einsum("fh,fh->f", placement, problem.waiting + load - own) / problem.unit
        same = np.zeros(len(placement), dtype=placement.dtype)
        if len(self._sources):
            both = placement[self._has_source] * placement[self._sources]
            same[self._has_source] = both.sum(axis=1)
        return Fragments(
            said=np.matmul(placement[:, None, :], self._said)[:, 0, :],
            time=np.einsum("fh,fh->f", placement, problem.time),
            waiting=waiting,
            same=same,
        )

    def values(self, placement: Array) -> Array:
        """The objective of each task, [T]."""
        return pool(self._weights, self.placed(placement), self._tasks, self._problem.about)[0]

    def gradient(self, placement: Array) -> tuple[Array, Array]:
        """The objective of each task [T], and the gradient of their sum in the placement [F, H]."""
        problem = self._problem
        values, trace = pool(self._weights, self.placed(placement), self._tasks, problem.about)
        d = fragment_gradients(self._weights, trace, self._tasks, self._one)
        d_waiting = (d.waiting / problem.unit)[:, None]
        own = placement * problem.work
        weighted = placement * d_waiting
        gradient = np.matmul(self._said, d.said[:, :, None])[:, :, 0]
        gradient += d.time[:, None] * problem.time
        gradient += d_waiting * (problem.waiting + own.sum(axis=0) - own)
        gradient += problem.work * (weighted.sum(axis=0) - weighted)
        if len(self._sources):
            d_same = d.same[self._has_source, None]
            gradient[self._has_source] += d_same * placement[self._sources]
            np.add.at(gradient, self._sources, d_same * placement[self._has_source])
        return values, gradient
