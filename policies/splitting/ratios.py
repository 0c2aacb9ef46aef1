"""How far off predictions are: learnt distributions of actual / predicted response time.

A ratio is kept as a count in a bin of an eighth of an octave. A task without an answer tells only that its
ratio lies above what had passed (censored). So distributions are the estimate of Susarla and Van Ryzin
(1976): a Dirichlet prior, combined with the product-limit (Kaplan-Meier) estimate of what was seen. The
prior of

* an application's variant under a load is the variant's distribution under all loads;
* of that, the distribution of all tasks of the system;
* of that, a log-normal one around 1, mixed with some trouble.

So a variant that was never run is judged by how predictions fare in general, and by itself once it was.
"""

from dataclasses import dataclass, field
from math import erf, log, log2, sqrt
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from messages.base import Name, Part
from messages.task import TaskFinished
from policies.splitting.interface import Arm, SplitContext
from policies.state import Json, State, remembered

Vector = npt.NDArray[np.float64]

BINS_PER_OCTAVE = 8
LEAST_OCTAVE, MOST_OCTAVE = -3, 6
"""Ratios below 1/8 and above 64 count as these."""

BINS = (MOST_OCTAVE - LEAST_OCTAVE) * BINS_PER_OCTAVE

PRIOR_TASKS = 5.0
"""What a prior counts for, in tasks."""

PRIOR_SPREAD = 0.2
"""Standard deviation of the log of a ratio before anything was seen."""

PRIOR_TROUBLE = 0.1
"""Share of tasks with which something goes wrong, before anything was seen: any factor up to the greatest.

Without it, a task that is late would still be expected soon.
"""

WINDOW_TASKS = 200
"""About so many of an application's last tasks count: what was seen loses 1/200 with each that ends."""

WAITING_SHARES = (0.1, 0.5)
"""Borders of the load bins: share of a prediction that is waiting for other tasks' work."""

LOADS = len(WAITING_SHARES) + 1

_NEGLIGIBLE = 1e-3
_BORDERS = np.arange(BINS + 1) / BINS_PER_OCTAVE + LEAST_OCTAVE
"""Of the bins, in octaves."""


@dataclass(frozen=True, slots=True)
class Belief:
    """A distribution of ratios."""

    survival: Vector
    """Probability that the ratio lies above each border of the bins; float64 of shape (`BINS` + 1,)."""
    tasks: float
    """How many tasks it rests on, with those of its priors."""
    own_tasks: float
    """How many of those were of this very application and variant under this load."""

    def probability(self, ratio: float) -> float:
        """Of a ratio of at most this."""
        if ratio <= 0:
            return 0.0
        position = _position(ratio)
        index = min(BINS - 1, int(position))
        left, right = self.survival[index : index + 2].tolist()
        return 1.0 - float(left + (position - index) * (right - left))

    def quantile(self, q: float) -> float:
        """The ratio that is not exceeded with probability q, in (0, 1); at most 2 ** `MOST_OCTAVE`."""
        return float(2 ** np.interp(q, 1 - self.survival, _BORDERS))


def posterior(counts: Vector, prior: Vector, prior_tasks: Vector | float) -> tuple[Vector, Vector]:
    """Survival functions after tasks were seen, for any number of distributions at once.

    The hazard of a bin is `(m f0 + d) / (m S0 + n)`: with n tasks at risk, of which d ended in the bin, and a
    prior worth m tasks, whose probability is f0 in the bin and S0 in it or above. A censored task is at risk
    in the bins below its own.

    Args:
        counts: tasks seen and tasks censored by bin; float64 of shape (..., 2, `BINS`).
        prior: survival functions; float64 of shape (..., `BINS` + 1), broadcast against `counts`.
        prior_tasks: how many tasks each prior rests on; it counts for `PRIOR_TASKS` at most.

    Returns:
        Survival functions, float64 of shape (..., `BINS` + 1), and how many tasks each rests on.
    """
    seen, censored = counts[..., 0, :], counts[..., 1, :]
    both = seen + censored
    weight = np.minimum(PRIOR_TASKS, prior_tasks)
    before = weight[..., None] * prior[..., :-1]
    after = weight[..., None] * prior[..., 1:]
    mass = before + both[..., ::-1].cumsum(axis=-1)[..., ::-1] - censored
    hazard = np.divide(before - after + seen, mass, out=np.zeros_like(mass), where=mass > 0)
    survival = np.ones((*mass.shape[:-1], BINS + 1))
    np.cumprod(np.clip(1 - hazard, 0.0, 1.0), axis=-1, out=survival[..., 1:])
    return survival, both.sum(axis=-1) + weight


@dataclass(slots=True)
class _Application:
    """Discounted counts of the tasks of one application."""

    variants: list[str] = field(default_factory=list)
    counts: Vector = field(default_factory=lambda: np.zeros((0, LOADS, 2, BINS)))
    """Of each variant under each load, seen and censored, by bin."""
    beliefs: tuple[Vector, Vector] | None = None
    """Posteriors of all; None where they are out of date."""

    def index(self, variant: str) -> int:
        """The variant's place, a new one where it has none."""
        if variant not in self.variants:
            self.variants.append(variant)
            self.counts = np.concatenate((self.counts, np.zeros((1, LOADS, 2, BINS))))
        return self.variants.index(variant)


class _CountsMemory(Part):
    """Bins that are not empty."""

    bins: Annotated[list[Annotated[int, Field(ge=0, lt=BINS)]], Field(max_length=BINS)]
    seen: Annotated[list[Annotated[float, Field(ge=0, le=1e9)]], Field(max_length=BINS)]
    censored: Annotated[list[Annotated[float, Field(ge=0, le=1e9)]], Field(max_length=BINS)]

    @model_validator(mode="after")
    def _has_as_many_of_each(self) -> Self:
        if not len(self.bins) == len(self.seen) == len(self.censored):
            msg = "not as many bins as counts"
            raise ValueError(msg)
        return self


class _ApplicationMemory(Part):
    variants: dict[Name, Annotated[list[_CountsMemory], Field(min_length=LOADS, max_length=LOADS)]]


class _Memory(Part):
    """The saved state."""

    everything: _CountsMemory
    applications: dict[Name, _ApplicationMemory]


class Ratios:
    """Distributions for every application, variant and load."""

    def __init__(self) -> None:
        self._everything = np.zeros((2, BINS))
        self._pooled: Vector | None = None
        """Posterior of all tasks; None where it is out of date."""
        self._applications: dict[str, _Application] = {}

    def belief(self, application: str, arm: Arm) -> Belief:
        """What is believed of an arm's ratio now."""
        if self._pooled is None:
            self._pooled, _ = posterior(self._everything, _FIRST, PRIOR_TASKS)
        known = self._applications.get(application)
        if known is None or arm.variant not in known.variants:
            return Belief(self._pooled, PRIOR_TASKS, 0.0)
        if known.beliefs is None:
            survival, tasks = posterior(known.counts.sum(axis=1), self._pooled, PRIOR_TASKS)
            known.beliefs = posterior(known.counts, survival[:, None], tasks[:, None])
        index, load = known.variants.index(arm.variant), load_of(arm)
        survival, tasks = known.beliefs
        own_tasks = float(known.counts[index, load].sum())
        return Belief(survival[index, load], float(tasks[index, load]), own_tasks)

    def learn(self, context: SplitContext, outcome: TaskFinished) -> None:
        """What became of a prediction. A task that was not run, or had no prediction, teaches nothing."""
        arm = next((arm for arm in context.arms if arm.variant == outcome.variant), None)
        if arm is None or not arm.predicted_ms:
            return
        actual_ms = outcome.response_ms - (context.deadline_ms - context.slack_ms)
        known = self._applications.setdefault(context.application, _Application())
        place = known.index(arm.variant)
        self._everything *= 1 - 1 / WINDOW_TASKS
        known.counts *= 1 - 1 / WINDOW_TASKS
        kind = 0 if outcome.status == "answered" else 1
        index = min(BINS - 1, int(_position(max(0.0, actual_ms) / arm.predicted_ms)))
        self._everything[kind, index] += 1
        known.counts[place, load_of(arm), kind, index] += 1
        self._forget_beliefs()

    def state(self) -> State:
        """All counts."""
        applications: dict[str, Json] = {
            name: {
                "variants": {
                    variant: [_saved(counts) for counts in loads]
                    for variant, loads in zip(known.variants, known.counts, strict=True)
                }
            }
            for name, known in self._applications.items()
        }
        return {"everything": _saved(self._everything), "applications": applications}

    def restore(self, state: State) -> None:
        """Take up saved counts. Raises StateError."""
        memory = remembered(_Memory, state)
        self._everything = _counts(memory.everything)
        self._applications = {}
        for name, application in memory.applications.items():
            known = self._applications[name] = _Application()
            for variant, loads in application.variants.items():
                place = known.index(variant)
                known.counts[place] = [_counts(one) for one in loads]
        self._forget_beliefs()

    def _forget_beliefs(self) -> None:
        self._pooled = None
        for known in self._applications.values():
            known.beliefs = None


def load_of(arm: Arm) -> int:
    """The load bin of a prediction, by how much of it is waiting; 0 where nobody says."""
    if not arm.wait_ms or not arm.foreseen_ms:
        return 0
    return sum(arm.wait_ms >= share * arm.foreseen_ms for share in WAITING_SHARES)


def _position(ratio: float) -> float:
    """Where a ratio stands on the axis of the bins, in [0, `BINS`]."""
    if ratio <= 0:
        return 0.0
    return min(float(BINS), max(0.0, (log2(ratio) - LEAST_OCTAVE) * BINS_PER_OCTAVE))


def _first_survival() -> Vector:
    """Ratios around 1, of which a few are any number of times greater."""
    usual = [0.5 * (1 - erf(octave * log(2) / (PRIOR_SPREAD * sqrt(2)))) for octave in _BORDERS]
    trouble = [1 - max(0.0, octave) / MOST_OCTAVE for octave in _BORDERS]
    survival = (1 - PRIOR_TROUBLE) * np.array(usual) + PRIOR_TROUBLE * np.array(trouble)
    survival[0], survival[-1] = 1.0, 0.0
    return survival


def _saved(counts: Vector) -> dict[str, Json]:
    """Bins with next to nothing in them are left out."""
    bins = np.flatnonzero(counts.sum(axis=0) > _NEGLIGIBLE)
    seen, censored = counts[:, bins].tolist()
    return {"bins": bins.tolist(), "seen": seen, "censored": censored}


def _counts(memory: _CountsMemory) -> Vector:
    counts = np.zeros((2, BINS))
    counts[:, memory.bins] = [memory.seen, memory.censored]
    return counts


_FIRST = _first_survival()
