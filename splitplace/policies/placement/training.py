"""How the surrogate learns: mean square error (equation 11) with AdamW (Loshchilov and Hutter 2019).

Most differences between objectives come from the task: its deadline, its split, the load of the cluster. A
search needs the small rest that depends on the placement. So if several placements of the same task in the
same state are known (`PlacementSample.state`), their errors about the mean error of that state count again:

    L = mean (f - o)^2 + WITHIN * mean ((f - o) - mean_state (f - o))^2

If each state has one sample, as in a running system, the second term is zero and this is equation 11.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from splitplace.policies.placement.surrogate import (
    SHAPES,
    Array,
    Indices,
    PlacedStages,
    Tasks,
    Weights,
    embed,
    embed_gradients,
    embedding_gradients,
    pool,
    pool_gradients,
    pooled_gradients,
    together,
)

LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-4
BATCH = 64
"""States in a step."""

WITHIN = 16.0
"""Weight of differences between placements of one state."""

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


@dataclass(frozen=True, slots=True)
class PlacementSample:
    """A placed task of s stages, as the surrogate saw it, with its outcome: an element of Lambda."""

    features: Array
    """[s, INPUTS] Features of each stage on its node."""
    pooled_inputs: Array
    """[s, POOLED_INPUTS] `PlacedStages.pooled_inputs` of each stage."""
    task_features: Array
    """[TASK_FEATURES]"""
    target: float
    """The actual objective."""
    state: str = ""
    """Neighbouring samples with the same text are placements of one task in one state; "" = a state of its
    own."""


class _Groups:
    """Items in a row, in groups of given sizes."""

    def __init__(self, sizes: Indices) -> None:
        self.sizes = sizes
        self.starts = np.cumsum(sizes) - sizes

    def members(self, chosen: Indices) -> Indices:
        """Return the indices of all members of some groups, in that order."""
        sizes = self.sizes[chosen]
        members: Indices = np.repeat(self.starts[chosen] - (np.cumsum(sizes) - sizes), sizes)
        members += np.arange(len(members))
        return members


class _Batch:
    """Samples as one array per field, so that some can be taken without a loop."""

    def __init__(self, samples: Sequence[PlacementSample], dtype: npt.DTypeLike) -> None:
        self.features: Array = np.concatenate([sample.features for sample in samples], dtype=dtype)
        self.pooled_inputs: Array = np.concatenate([sample.pooled_inputs for sample in samples], dtype=dtype)
        self.task_features: Array = np.array([sample.task_features for sample in samples], dtype=dtype)
        self.target: Array = np.array([sample.target for sample in samples], dtype=dtype)
        self.samples = _Groups(np.array([len(sample.pooled_inputs) for sample in samples], dtype=np.intp))
        """Groups of stages."""
        self.states = _Groups(_sizes_of_states(samples))
        """Groups of samples."""

    def taken(self, states: Indices) -> "_Batch":
        """Return the samples of some states, in that order."""
        taken = object.__new__(_Batch)
        samples = self.states.members(states)
        rows = self.samples.members(samples)
        taken.features, taken.pooled_inputs = self.features[rows], self.pooled_inputs[rows]
        taken.task_features, taken.target = self.task_features[samples], self.target[samples]
        taken.samples = _Groups(self.samples.sizes[samples])
        taken.states = _Groups(self.states.sizes[states])
        return taken

    def within(self, values: Array) -> Array:
        """Return values of samples, each minus the mean of its state."""
        sizes = self.states.sizes
        if len(sizes) == len(values):
            return np.zeros_like(values)
        means = (np.add.reduceat(values, self.states.starts) / sizes).astype(values.dtype)
        within: Array = values - np.repeat(means, sizes)
        return within


def _sizes_of_states(samples: Sequence[PlacementSample]) -> Indices:
    begins = [
        not one.state or one.state != before.state
        for one, before in zip(samples[1:], samples[:-1], strict=True)
    ]
    starts = np.flatnonzero([True, *begins])
    return np.diff(starts, append=len(samples))


def predicted(weights: Weights, samples: Sequence[PlacementSample]) -> Array:
    """Return the predicted objective of each sample."""
    batch = _Batch(samples, np.float64)
    embeddings, _ = embed(weights, batch.features)
    totals = together(PlacedStages(embeddings, batch.pooled_inputs), Tasks(batch.samples.sizes))
    return pool(weights, totals, batch.task_features)[0]


def loss_and_gradients(
    weights: Weights, samples: Sequence[PlacementSample]
) -> tuple[float, dict[str, Array]]:
    """Return the loss over some samples and its gradient in every weight, in double precision."""
    return _loss_and_gradients(weights, _Batch(samples, np.float64))


def fit(
    weights: Weights,
    samples: Sequence[PlacementSample],
    random: np.random.Generator,
    *,
    steps: int,
    learning_rate: float = LEARNING_RATE,
) -> dict[str, Array]:
    """Return new weights after so many steps on random batches of states.

    The learning rate falls to 0 along a cosine. Gradients are in single precision, which takes a third of the
    time.

    Raises:
        ValueError: there are no samples.
    """
    if not samples:
        raise ValueError("nothing to learn from")
    fitted = np.concatenate([weights[name].ravel() for name in SHAPES], dtype=np.float64)
    decay = np.concatenate([np.full(weights[name].size, _decay(name)) for name in SHAPES])
    first, second = np.zeros_like(fitted), np.zeros_like(fitted)
    single = np.empty(fitted.shape, dtype=np.float32)
    parts = _by_name(single)
    everything = _Batch(samples, np.float32)
    states = len(everything.states.sizes)
    for step in range(1, steps + 1):
        chosen = random.choice(states, size=min(BATCH, states), replace=False)
        single[:] = fitted
        _, gradients = _loss_and_gradients(parts, everything.taken(chosen))
        gradient = np.concatenate([gradients[name].ravel() for name in SHAPES], dtype=np.float64)
        first += (1 - _BETAS[0]) * (gradient - first)
        second += (1 - _BETAS[1]) * (gradient * gradient - second)
        deviation = np.sqrt(second / (1 - _BETAS[1] ** step)) + _EPSILON
        rate = learning_rate * 0.5 * (1 + np.cos(np.pi * (step - 1) / steps))
        fitted -= rate * (first / (1 - _BETAS[0] ** step) / deviation + decay * fitted)
    return _by_name(fitted)


def _decay(name: str) -> float:
    """Return the weight decay; biases do not decay."""
    return WEIGHT_DECAY if name.startswith("w") else 0.0


def _by_name(values: Array) -> dict[str, Array]:
    """Return a flat array of all weights as views of their shapes."""
    ends = np.cumsum([prod(shape) for shape in SHAPES.values()])
    parts = np.split(values, ends[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(SHAPES.items(), parts, strict=True)}


def _loss_and_gradients(weights: Weights, batch: _Batch) -> tuple[float, dict[str, Array]]:
    embeddings, hidden = embed(weights, batch.features)
    tasks = Tasks(batch.samples.sizes)
    values, trace = pool(
        weights, together(PlacedStages(embeddings, batch.pooled_inputs), tasks), batch.task_features
    )
    error = values - batch.target
    within = batch.within(error)
    d_value = 2 * (error + WITHIN * within) / len(error)
    d_pooled, d_hidden = pooled_gradients(weights, trace, d_value)
    gradients = pool_gradients(trace, d_hidden, d_value)
    gradients |= embed_gradients(weights, batch.features, hidden, embedding_gradients(d_pooled, tasks))
    return float((error**2).mean() + WITHIN * (within**2).mean()), gradients


def rank_correlation(one: Array, other: Array) -> float:
    """Return Spearman's correlation; equal values share their rank."""
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def correlation_within(one: Array, other: Array, samples: Sequence[PlacementSample]) -> float:
    """Return the mean of Spearman's correlation over the states whose placements differ in both values."""
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
