"""How far off predictions are: learnt distributions of actual / predicted response time.

A ratio is kept as a count in a bin of an eighth of an octave. A task without an answer tells only that its
ratio lies above what had passed (censored). So distributions are the estimate of Susarla and Van Ryzin
(1976): a Dirichlet prior, combined with the product-limit (Kaplan-Meier) estimate of what was seen. The
prior of

* an application's variant under a load is the same under all loads;
* of that, the variant of this name in all applications;
* of that, a log-normal one around 1, mixed with some trouble.

So a variant that was never run here is judged by how its like fares elsewhere, and by itself once it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import erf, log, log2, sqrt
from typing import Annotated, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from splitplace.messages.base import Name, Part
from splitplace.messages.task import TaskFinished
from splitplace.policies.splitting.interface import Arm, SplitContext
from splitplace.policies.state import Json, State, validated_state

Vector = npt.NDArray[np.float64]

BINS_PER_OCTAVE = 8
LEAST_OCTAVE, MOST_OCTAVE = -3, 6
"""Ratios below 1/8 and above 64 count as these."""

BINS = (MOST_OCTAVE - LEAST_OCTAVE) * BINS_PER_OCTAVE

PRIOR_TASKS = 5.0
"""Weight of a prior, in tasks."""

PRIOR_SPREAD = 0.2
"""Standard deviation of the log of a ratio before anything was seen."""

PRIOR_TROUBLE = 0.05
"""Share of tasks with which something goes wrong, before anything was seen: any factor up to the greatest.

Without it, a task that is late would still be expected soon.
"""

WINDOW_TASKS = 200
"""Number of an application's last tasks that count: counts lose 1/200 with each task that ends."""

LOAD_SHARES = (0.05, 0.25)
"""Borders of the load bins: mean backlog as a share of the prediction."""

LOADS = len(LOAD_SHARES) + 1

NEWS = 0.05
"""Outcomes, as a share of the tasks that a distribution rests on, after which it is computed again."""

_NEGLIGIBLE = 1e-3
_BORDERS = np.arange(BINS + 1) / BINS_PER_OCTAVE + LEAST_OCTAVE
"""Borders of the bins, in octaves."""


@dataclass(frozen=True, slots=True)
class Belief:
    """A distribution of ratios."""

    survival: Vector
    """Probability that the ratio lies above each border of the bins; float64 of shape (`BINS` + 1,)."""
    tasks: float
    """Number of tasks it rests on, with those of its priors."""
    own_tasks: float
    """Number of those that were of exactly this application, variant and load."""

    def probability(self, ratio: float) -> float:
        """Return the probability of at most this ratio."""
        if ratio <= 0:
            return 0.0
        position = _position(ratio)
        index = min(BINS - 1, int(position))
        left, right = self.survival[index : index + 2].tolist()
        return 1.0 - float(left + (position - index) * (right - left))

    def quantile(self, q: float) -> float:
        """Return the ratio that is not exceeded with probability q, in (0, 1); at most 2 ** `MOST_OCTAVE`."""
        return float(2 ** np.interp(q, 1 - self.survival, _BORDERS))


def posterior(counts: Vector, prior: Vector, prior_tasks: Vector) -> tuple[Vector, Vector]:
    """Return survival functions after tasks were seen, for any number of distributions at once.

    The hazard of a bin is `(m f0 + d) / (m S0 + n)`: with n tasks at risk, d that ended in the bin, and a
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


class _Table:
    """Discounted counts of tasks by variant, load, seen or censored, and bin."""

    def __init__(self) -> None:
        self.variants: list[str] = []
        self.counts: Vector = np.zeros((0, LOADS, 2, BINS))

    def index(self, variant: str) -> int:
        """Return the variant's row, a new one if it has none."""
        if variant not in self.variants:
            self.variants.append(variant)
            self.counts = np.concatenate((self.counts, np.zeros((1, LOADS, 2, BINS))))
        return self.variants.index(variant)

    def count(self, variant: str, load: int, ratio: float, *, censored: bool) -> None:
        """Count one more task; all earlier ones fade."""
        place = self.index(variant)
        self.counts *= 1 - 1 / WINDOW_TASKS
        self.counts[place, load, int(censored), min(BINS - 1, int(_position(ratio)))] += 1

    def counts_of(self, variants: Sequence[str]) -> Vector:
        """Return counts of variants, zeros of those never counted; shape (variants, `LOADS`, 2, `BINS`)."""
        counts = np.zeros((len(variants), LOADS, 2, BINS))
        for row, variant in enumerate(variants):
            if variant in self.variants:
                counts[row] = self.counts[self.variants.index(variant)]
        return counts

    def state(self) -> dict[str, Json]:
        """Return the counts by variant and load."""
        return {
            variant: [_saved(counts) for counts in loads]
            for variant, loads in zip(self.variants, self.counts, strict=True)
        }


class _Posteriors(NamedTuple):
    """The distributions of an application, by variant and load."""

    rows: dict[str, int]
    """Where each variant stands in the arrays."""
    survival: Vector
    """Shape (variants, `LOADS`, `BINS` + 1)."""
    tasks: Vector
    """How many tasks each rests on, with those of its priors; shape (variants, `LOADS`), as the next one."""
    own_tasks: Vector
    until: int
    """Number of outcomes up to which they are used."""


class _CountsMemory(Part):
    """Bins that are not empty."""

    bins: Annotated[list[Annotated[int, Field(ge=0, lt=BINS)]], Field(max_length=BINS)]
    seen: Annotated[list[Annotated[float, Field(ge=0, le=1e9)]], Field(max_length=BINS)]
    censored: Annotated[list[Annotated[float, Field(ge=0, le=1e9)]], Field(max_length=BINS)]

    @model_validator(mode="after")
    def _has_as_many_of_each(self) -> Self:
        if not len(self.bins) == len(self.seen) == len(self.censored):
            raise ValueError("not as many bins as counts")
        return self


_TableMemory = dict[Name, Annotated[list[_CountsMemory], Field(min_length=LOADS, max_length=LOADS)]]


class _SavedState(Part):
    """The saved state."""

    everywhere: _TableMemory
    applications: dict[Name, _TableMemory]


class Ratios:
    """Distributions for every application, variant and load."""

    def __init__(self) -> None:
        self._everywhere = _Table()
        self._applications: dict[str, _Table] = {}
        self._beliefs: dict[str, _Posteriors] = {}
        """By application."""
        self._outcomes = 0

    def belief(self, context: SplitContext, arm: Arm) -> Belief:
        """Return the distribution of an arm's ratio now."""
        known = self._beliefs.get(context.application)
        if (
            known is None
            or known.until < self._outcomes
            or any(each.variant not in known.rows for each in context.arms)
        ):
            variants = dict.fromkeys(
                (*(known.rows if known else ()), *(each.variant for each in context.arms))
            )
            known = self._beliefs[context.application] = self._posteriors(
                context.application, tuple(variants)
            )
        row, load = known.rows[arm.variant], load_of(context, arm.predicted_ms or 0.0)
        own_tasks = float(known.own_tasks[row, load])
        return Belief(known.survival[row, load], float(known.tasks[row, load]), own_tasks)

    def learn(self, context: SplitContext, outcome: TaskFinished) -> None:
        """Learn from an outcome. A task that did not run or had no prediction is ignored."""
        arm = next((arm for arm in context.arms if arm.variant == outcome.variant), None)
        if arm is None or not arm.predicted_ms:
            return
        actual_ms = outcome.response_ms - (context.deadline_ms - context.slack_ms)
        ratio = max(0.0, actual_ms) / arm.predicted_ms
        load = load_of(context, arm.predicted_ms)
        for table in (self._everywhere, self._applications.setdefault(context.application, _Table())):
            table.count(arm.variant, load, ratio, censored=outcome.status != "answered")
        self._outcomes += 1

    def state(self) -> State:
        """Return all counts."""
        applications: dict[str, Json] = {name: table.state() for name, table in self._applications.items()}
        return {"everywhere": self._everywhere.state(), "applications": applications}

    def restore(self, state: State) -> None:
        """Replace the counts by saved ones. Raises StateError."""
        memory = validated_state(_SavedState, state)
        self._everywhere = _table(memory.everywhere)
        self._applications = {name: _table(table) for name, table in memory.applications.items()}
        self._beliefs.clear()

    def _posteriors(self, application: str, variants: Sequence[str]) -> _Posteriors:
        """Return the distributions of an application's variants now, all of them at once."""
        counts = self._applications.get(application, _Table()).counts_of(variants)
        everywhere = self._everywhere.counts_of(variants).sum(axis=1)
        first_tasks = np.full(len(variants), PRIOR_TASKS)
        elsewhere, tasks_elsewhere = posterior(
            counts.sum(axis=1), *posterior(everywhere, _FIRST, first_tasks)
        )
        survival, tasks = posterior(counts, elsewhere[:, None], tasks_elsewhere[:, None])
        own_tasks = counts.sum(axis=(2, 3))
        rows = {variant: row for row, variant in enumerate(variants)}
        return _Posteriors(rows, survival, tasks, own_tasks, self._outcomes + int(NEWS * own_tasks.sum()))


def load_of(context: SplitContext, time_ms: float) -> int:
    """Return the load bin of a prediction, or of a slack: the mean backlog as a share of it."""
    return sum(context.load_ms >= share * time_ms for share in LOAD_SHARES)


def _position(ratio: float) -> float:
    """Return the position of a ratio on the axis of the bins, in [0, `BINS`]."""
    if ratio <= 0:
        return 0.0
    return min(float(BINS), max(0.0, (log2(ratio) - LEAST_OCTAVE) * BINS_PER_OCTAVE))


def _first_survival() -> Vector:
    """Return the first prior: ratios around 1, and a few far greater."""
    usual = [0.5 * (1 - erf(octave * log(2) / (PRIOR_SPREAD * sqrt(2)))) for octave in _BORDERS]
    trouble = [1 - max(0.0, octave) / MOST_OCTAVE for octave in _BORDERS]
    survival = (1 - PRIOR_TROUBLE) * np.array(usual) + PRIOR_TROUBLE * np.array(trouble)
    survival[0], survival[-1] = 1.0, 0.0
    return survival


def _saved(counts: Vector) -> dict[str, Json]:
    """Return the counts without nearly empty bins."""
    bins = np.flatnonzero(counts.sum(axis=0) > _NEGLIGIBLE)
    seen, censored = counts[:, bins].tolist()
    return {"bins": bins.tolist(), "seen": seen, "censored": censored}


def _table(memory: _TableMemory) -> _Table:
    table = _Table()
    for variant, loads in memory.items():
        place = table.index(variant)
        for load, counts in enumerate(loads):
            table.counts[place, load][:, counts.bins] = [counts.seen, counts.censored]
    return table


_FIRST = _first_survival()
