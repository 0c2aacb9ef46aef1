"""How the surrogate learns: mean square error (equation 11) with AdamW (Loshchilov and Hutter 2019)."""

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
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


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

    def taken(self, chosen: npt.NDArray[np.intp]) -> "_Batch":
        """Some of the samples, in that order."""
        sizes = self.sizes[chosen]
        first = np.repeat((np.cumsum(self.sizes) - self.sizes)[chosen] - (np.cumsum(sizes) - sizes), sizes)
        rows = first + np.arange(sizes.sum())
        taken = object.__new__(_Batch)
        taken.features, taken.measures = self.features[rows], self.measures[:, rows]
        taken.about, taken.target, taken.sizes = self.about[chosen], self.target[chosen], sizes
        return taken

    @property
    def tasks(self) -> Tasks:
        """The samples that the fragments belong to."""
        return Tasks(np.repeat(np.arange(len(self.sizes)), self.sizes))

    def fragments(self, said: Array) -> Fragments:
        """With what the network says of them."""
        time, waiting, same = self.measures
        return Fragments(said, time, waiting, same)


def predicted(weights: Weights, samples: Sequence[Sample]) -> Array:
    """What the surrogate expects of each sample."""
    batch = _Batch(samples)
    said, _ = embed(weights, batch.features)
    return pool(weights, batch.fragments(said), batch.tasks, batch.about)[0]


def loss_and_gradients(weights: Weights, samples: Sequence[Sample]) -> tuple[float, dict[str, Array]]:
    """Equation 11 over some samples, and its gradient in every weight."""
    return _loss_and_gradients(weights, _Batch(samples))


def fit(
    weights: Weights,
    samples: Sequence[Sample],
    random: np.random.Generator,
    *,
    steps: int,
    learning_rate: float = LEARNING_RATE,
) -> dict[str, Array]:
    """New weights after so many steps on random batches; the old ones stay as they are.

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
    for step in range(1, steps + 1):
        chosen = random.choice(len(samples), size=min(BATCH, len(samples)), replace=False)
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
    d_value = 2 * error / len(error)
    d_said = fragment_gradients(weights, trace, tasks, d_value).said
    gradients = pool_gradients(weights, trace, d_value)
    gradients |= embed_gradients(weights, batch.features, hidden, d_said)
    return float((error**2).mean()), gradients


def rank_correlation(one: Array, other: Array) -> float:
    """Spearman's: the correlation of ranks, equal values sharing theirs."""
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]
