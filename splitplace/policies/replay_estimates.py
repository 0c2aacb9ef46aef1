"""Estimate the mean reward that another policy would have earned on logged tasks: the second half. Pure.

Two estimators of the value of a policy from decisions that another one took with known probabilities p:

* **Self-normalised inverse propensity** (Swaminathan and Joachims 2015): the mean reward of the tasks on
  which both chose the same, each weighted by 1 / p. Needs no model; wide if both seldom agree.
* **Doubly robust** (Dudik et al. 2011): a model's prediction for the policy's choice, plus, if both chose
  the same, the model's error weighted by 1 / p. Unbiased if the propensities are right, narrow if the model
  is good.

The model is a mean of rewards for each application, variant and bin of slack / predicted response, shrunk to
that of the variant in the application, that to the variant's, and that to the mean of all; the task in
question is left out. A refusal is known to earn 0.

Intervals are 95 % percentile intervals of a circular block bootstrap (Politis and Romano 1992): tasks that
follow each other share a load, so they are drawn in runs.

No estimator can know the queues that the policy itself would have left behind. Every decision is judged in
the queues that the logging policy left.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor, isfinite, log2, nan

import numpy as np
from numpy.typing import NDArray

from splitplace.errors import SplitPlaceError
from splitplace.policies.replay import ReplayedTask
from splitplace.policies.splitting.interface import SplitContext

Vector = NDArray[np.float64]
Indices = NDArray[np.int64]

REPLICATES = 1000
"""Replicates of the bootstrap."""

FEWEST_KNOWN = 0.5
"""Share of the replicates that must hold a task on which both agree; else there is no interval."""

PRIOR_TASKS = 2.0
"""Weight of a coarser mean in the next finer one, in tasks."""

_PRIOR_MEAN = 0.5
_LEAST_OCTAVE, _MOST_OCTAVE = -2, 3
"""Bins of slack / predicted response, an octave each; beyond them the outermost count."""

_Cell = tuple[object, ...]


class NoSupportError(SplitPlaceError, ValueError):
    """The log cannot tell how another policy would have fared; the text says why."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ReplayEstimate:
    """What a log says about a policy. Shares are of all tasks."""

    tasks: int
    agreement: float
    """Share on which both chose the same."""
    refused: float
    """Share that the policy would have refused."""
    unsupported: float
    """Share on which the policy chose what the logging policy never would. The log holds no outcome of that:
    the doubly robust estimate relies on its model alone there, the other one leaves these tasks out."""
    effective_tasks: float
    """Effective sample size `(sum w)^2 / sum w^2` of the weights 1 / p of tasks on which both agree."""
    logged: Interval
    """Mean reward of the log itself."""
    self_normalised: Interval | None
    """None where both hardly ever agree."""
    doubly_robust: Interval
    gain: Interval
    """The doubly robust estimate less the mean reward of the log, task by task."""


def estimate(tasks: Sequence[ReplayedTask], *, replicates: int = REPLICATES, seed: int = 0) -> ReplayEstimate:
    """Estimate the mean reward of the replayed policy.

    Args:
        tasks: in the order in which they ended.
        replicates: number of bootstrap replicates.
        seed: seed of the bootstrap.

    Raises:
        NoSupportError: there are no tasks, or every logged decision was certain, so that nothing is known
            about any other.
    """
    if not tasks:
        raise NoSupportError("the log holds no task with both its decision and its end")
    if all(task.propensity >= 1 for task in tasks):
        raise NoSupportError(
            f"all {len(tasks)} decisions were certain (propensity 1): a policy that never draws says nothing "
            "about what it did not choose. Log with one that does: random, thompson, expected-reward, "
            "gillis, or mab while training"
        )
    terms = _terms(tasks)
    random = np.random.default_rng(seed)
    replicated = np.array([terms.at(_blocks(len(tasks), random)).figures() for _ in range(replicates)])
    logged, plain, robust, gain = map(_interval, terms.figures(), replicated.T)
    known = isfinite(plain.value) and np.isfinite(replicated[:, 1]).mean() >= FEWEST_KNOWN
    return ReplayEstimate(
        tasks=len(tasks),
        agreement=sum(task.agrees for task in tasks) / len(tasks),
        refused=1 - float(terms.answered.mean()),
        unsupported=sum(map(_is_unsupported, tasks)) / len(tasks),
        effective_tasks=_effective_tasks(terms.weights),
        logged=logged,
        self_normalised=plain if known else None,
        doubly_robust=robust,
        gain=gain,
    )


@dataclass(frozen=True, slots=True)
class _Terms:
    """Terms of the estimators; float64 of shape (tasks,) each."""

    rewards: Vector
    answered: Vector
    """1 where the policy under test would not have refused, else 0."""
    weights: Vector
    """1 / p where both chose the same variant, else 0."""
    robust: Vector
    """Terms of the doubly robust estimate."""

    def at(self, tasks: Indices) -> "_Terms":
        """Return the terms of some tasks; a task may occur several times."""
        return _Terms(self.rewards[tasks], self.answered[tasks], self.weights[tasks], self.robust[tasks])

    def figures(self) -> tuple[float, float, float, float]:
        """Return the log's mean reward, both estimates (the first may be NaN), the gain by the second."""
        total = float(self.weights.sum())
        seen = float(self.weights @ self.rewards) / total if total > 0 else nan
        logged, robust = float(self.rewards.mean()), float(self.robust.mean())
        answered = float(self.answered.mean())
        return logged, answered * seen if answered > 0 else 0.0, robust, robust - logged


def _terms(tasks: Sequence[ReplayedTask]) -> _Terms:
    rewards = np.array([task.reward for task in tasks])
    answered = np.array([task.chosen is not None for task in tasks], np.float64)
    weights = answered * np.array([task.agrees / task.propensity for task in tasks])
    model = _Model(tasks)
    of_choice = np.array([model.expected(task, task.chosen) for task in tasks])
    of_logged = np.array([model.expected(task, task.logged) for task in tasks])
    return _Terms(rewards, answered, weights, of_choice + weights * (rewards - of_logged))


class _Model:
    """Mean rewards, from coarse to fine."""

    def __init__(self, tasks: Iterable[ReplayedTask]) -> None:
        self._sums: defaultdict[_Cell, float] = defaultdict(float)
        self._counts: defaultdict[_Cell, int] = defaultdict(int)
        for task in tasks:
            if task.logged is not None:
                for cell in _cells(task.context, task.logged):
                    self._sums[cell] += task.reward
                    self._counts[cell] += 1

    def expected(self, task: ReplayedTask, variant: str | None) -> float:
        """Return the expected reward of a variant for a task, from all other tasks; 0 for a refusal."""
        if variant is None:
            return 0.0
        own = set(_cells(task.context, task.logged)) if task.logged is not None else set()
        mean = _PRIOR_MEAN
        for cell in _cells(task.context, variant):
            count = self._counts.get(cell, 0) - (cell in own)
            total = self._sums.get(cell, 0.0) - task.reward * (cell in own)
            mean = (total + PRIOR_TASKS * mean) / (count + PRIOR_TASKS)
        return mean


def _cells(context: SplitContext, variant: str) -> tuple[_Cell, ...]:
    """Return the means that a variant's reward is part of, from coarse to fine."""
    application = context.application
    return (), (variant,), (application, variant), (application, variant, _octave(context, variant))


def _octave(context: SplitContext, variant: str) -> int | None:
    """Return the bin of slack / predicted response; None without a prediction."""
    predicted_ms = next((ms for arm, ms in context.feasible if arm.variant == variant), None)
    if not predicted_ms:
        return None
    share = max(context.slack_ms, 1e-3) / predicted_ms
    return min(_MOST_OCTAVE, max(_LEAST_OCTAVE, floor(log2(share))))


def _is_unsupported(task: ReplayedTask) -> bool:
    return task.chosen is not None and not task.agrees and task.propensity >= 1


def _effective_tasks(weights: Vector) -> float:
    total = float(weights.sum())
    return total**2 / float(weights @ weights) if total > 0 else 0.0


def _blocks(count: int, random: np.random.Generator) -> Indices:
    """Return as many task numbers as there are tasks, in runs from random starts, modulo their count."""
    length = max(1, round(count ** (1 / 3)))
    starts = random.integers(0, count, -(-count // length))
    numbers: Indices = ((starts[:, np.newaxis] + np.arange(length)) % count).ravel()[:count]
    return numbers


def _interval(value: float, replicated: Vector) -> Interval:
    """Return the interval of the replicates in which the figure exists."""
    low, high = np.nanquantile(replicated, (0.025, 0.975)) if np.isfinite(replicated).any() else (nan, nan)
    return Interval(value, float(low), float(high))
