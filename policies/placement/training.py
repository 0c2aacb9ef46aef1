"""How the surrogate learns: mean square error (equation 11) with AdamW (Loshchilov and Hutter 2019).

Most of what tells one objective from another is the task: its deadline, its split, how crowded the cluster
is. A search needs the small rest, what the place adds. So where several placements of the same task in the
same state are known (`Sample.state`), their errors about the mean error of that state count again:

    L = mean (f - o)^2 + WITHIN * mean ((f - o) - mean_state (f - o))^2

Where each state has one sample, as in a running system, the second term is zero and this is equation 11.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policies.placement.surrogate import (
    Array,
    Fragments,
    Tasks,
    Weights,
    embed,
    embed_gradients,
    fragment_gradients,
    pool,
    pool_gradients,
)

LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-4
BATCH = 64
"""States in a step."""

WITHIN = 16.0
"""Weight of telling apart the placements of one state."""

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8

_Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Sample:
    """One placed task of n fragments, as the surrogate saw it, and what came of it: an element of Lambda."""

    features: Array
    """[n, INPUTS] of each fragment on its host."""
    time: Array
    """[n]"""
    waiting: Array
    """[n]"""
    same: Array
    """[n]"""
    about: Array
    """[TASK_FEATURES]"""
    target: float
    """The objective that was realised."""
    state: str = ""
    """Neighbours with the same one are placements of one task in one state; with "" each is of its own."""


class _Batch:
    """Samples one behind the other; samples may be taken out of it without touching them one by one."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.features: Array = np.concatenate([sample.features for sample in samples], dtype=np.float64)
        self.measures: Array = np.concatenate(
            [np.stack((sample.time, sample.waiting, sample.same)) for sample in samples],
            axis=1,
            dtype=np.float64,
        )
        self.about: Array = np.stack([sample.about for sample in samples]).astype(np.float64)
        self.target: Array = np.array([sample.target for sample in samples])
        self.sizes = np.array([len(sample.time) for sample in samples], dtype=np.intp)
        self.states = _sizes_of_states(samples)
        """[S] how many samples each state has."""

    def taken(self, states: _Indices) -> "_Batch":
        """The samples of some states, in that order."""
        taken = object.__new__(_Batch)
        taken.states = self.states[states]
        chosen = _members(self.states, states)
        rows = _members(self.sizes, chosen)
        taken.features, taken.measures = self.features[rows], self.measures[:, rows]
        taken.about, taken.target, taken.sizes = self.about[chosen], self.target[chosen], self.sizes[chosen]
        return taken

    def within(self, values: Array) -> Array:
        """Values of samples, each less the mean of its state."""
        means = np.add.reduceat(values, np.cumsum(self.states) - self.states) / self.states
        within: Array = values - np.repeat(means, self.states)
        return within

    @property
    def tasks(self) -> Tasks:
        """The samples that the fragments belong to."""
        return Tasks(np.repeat(np.arange(len(self.sizes)), self.sizes))

    def fragments(self, said: Array) -> Fragments:
        """With what the network says of them."""
        time, waiting, same = self.measures
        return Fragments(said, time, waiting, same)


def _sizes_of_states(samples: Sequence[Sample]) -> _Indices:
    begins = [
        not one.state or one.state != before.state
        for one, before in zip(samples[1:], samples[:-1], strict=True)
    ]
    starts = np.flatnonzero([True, *begins])
    return np.diff(starts, append=len(samples))


def _members(sizes: _Indices, chosen: _Indices) -> _Indices:
    """Places of all members of some groups that stand one behind the other, in groups of these sizes."""
    counts = sizes[chosen]
    ends = np.cumsum(sizes)
    members: _Indices = np.repeat((ends - sizes)[chosen] - (np.cumsum(counts) - counts), counts)
    return members + np.arange(counts.sum())


def predicted(weights: Weights, samples: Sequence[Sample]) -> Array:
    """What the surrogate expects of each sample."""
    batch = _Batch(samples)
    said, _ = embed(weights, batch.features)
    return pool(weights, batch.fragments(said), batch.tasks, batch.about)[0]


def loss_and_gradients(weights: Weights, samples: Sequence[Sample]) -> tuple[float, dict[str, Array]]:
    """The loss over some samples, and its gradient in every weight."""
    return _loss_and_gradients(weights, _Batch(samples))


def fit(
    weights: Weights,
    samples: Sequence[Sample],
    random: np.random.Generator,
    *,
    steps: int,
    learning_rate: float = LEARNING_RATE,
) -> dict[str, Array]:
    """New weights after so many steps on random batches of states; the old ones stay as they are.

    The learning rate falls to nothing along a cosine.

    Raises:
        ValueError: there are no samples.
    """
    if not samples:
        msg = "nothing to learn from"
        raise ValueError(msg)
    fitted: dict[str, Array] = {name: values.astype(np.float64) for name, values in weights.items()}
    first = {name: np.zeros_like(values) for name, values in fitted.items()}
    second = {name: np.zeros_like(values) for name, values in fitted.items()}
    everything = _Batch(samples)
    states = len(everything.states)
    for step in range(1, steps + 1):
        chosen = random.choice(states, size=min(BATCH, states), replace=False)
        _, gradients = _loss_and_gradients(fitted, everything.taken(chosen))
        rate = learning_rate * 0.5 * (1 + np.cos(np.pi * (step - 1) / steps))
        for name, gradient in gradients.items():
            first[name] += (1 - _BETAS[0]) * (gradient - first[name])
            second[name] += (1 - _BETAS[1]) * (gradient**2 - second[name])
            direction = (first[name] / (1 - _BETAS[0] ** step)) / (
                np.sqrt(second[name] / (1 - _BETAS[1] ** step)) + _EPSILON
            )
            decay = WEIGHT_DECAY if name.startswith("w") else 0.0
            fitted[name] = fitted[name] - rate * direction - rate * decay * fitted[name]
    return fitted


def _loss_and_gradients(weights: Weights, batch: _Batch) -> tuple[float, dict[str, Array]]:
    said, hidden = embed(weights, batch.features)
    tasks = batch.tasks
    values, trace = pool(weights, batch.fragments(said), tasks, batch.about)
    error = values - batch.target
    within = batch.within(error)
    d_value = 2 * (error + WITHIN * within) / len(error)
    d_said = fragment_gradients(weights, trace, tasks, d_value).said
    gradients = pool_gradients(weights, trace, d_value)
    gradients |= embed_gradients(weights, batch.features, hidden, d_said)
    return float((error**2).mean() + WITHIN * (within**2).mean()), gradients


def rank_correlation(one: Array, other: Array) -> float:
    """Spearman's: the correlation of ranks, equal values sharing theirs."""
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def correlation_within(one: Array, other: Array, samples: Sequence[Sample]) -> float:
    """Mean of Spearman's correlation over the states of which several placements differ in both values."""
    ends = np.cumsum(_sizes_of_states(samples))[:-1]
    found = [
        rank_correlation(mine, its)
        for mine, its in zip(np.split(one, ends), np.split(other, ends), strict=True)
        if np.ptp(mine) > 0 and np.ptp(its) > 0
    ]
    return float(np.mean(found)) if found else float("nan")


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]
