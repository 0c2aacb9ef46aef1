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

from collections.abc import Sequence
from dataclasses import dataclass
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
        borders = np.arange(BINS + 1) / BINS_PER_OCTAVE + LEAST_OCTAVE
        return float(2 ** np.interp(q, 1 - self.survival, borders))


@dataclass(slots=True)
class _Counts:
    """Discounted counts of tasks, by bin of their ratio; float64 of shape (`BINS`,) each."""

    seen: Vector
    censored: Vector

    @property
    def tasks(self) -> float:
        return float(self.seen.sum() + self.censored.sum())

    def fade(self) -> None:
        self.seen *= 1 - 1 / WINDOW_TASKS
        self.censored *= 1 - 1 / WINDOW_TASKS

    def update(self, prior: Belief) -> Belief:
        """The posterior: hazard `(m f0 + d) / (m S0 + n)` in each bin, with n at risk and d of them seen."""
        weight = min(PRIOR_TASKS, prior.tasks)
        before = prior.survival[:-1]
        at_risk = np.cumsum((self.seen + self.censored)[::-1])[::-1] - self.censored
        mass = weight * before + at_risk
        seen = weight * (before - prior.survival[1:]) + self.seen
        hazard = np.divide(seen, mass, out=np.zeros(BINS), where=mass > 0)
        survival = np.concatenate(([1.0], np.cumprod(np.clip(1 - hazard, 0.0, 1.0))))
        return Belief(survival, self.tasks + weight, self.tasks)


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
        self._everything = _empty()
        self._applications: dict[str, dict[str, list[_Counts]]] = {}
        """Counts by application, variant and load bin."""
        self._beliefs: dict[tuple[str, str, int], Belief] = {}
        """What was computed since the last outcome."""

    def belief(self, application: str, arm: Arm) -> Belief:
        """What is believed of an arm's ratio now."""
        load = load_of(arm)
        key = (application, arm.variant, load)
        if key not in self._beliefs:
            loads = self._applications.get(application, {}).get(arm.variant, [])
            belief = self._everything.update(_FIRST)
            if loads:
                belief = loads[load].update(_sum(loads).update(belief))
            self._beliefs[key] = belief if loads else Belief(belief.survival, PRIOR_TASKS, 0.0)
        return self._beliefs[key]

    def learn(self, context: SplitContext, outcome: TaskFinished) -> None:
        """What became of a prediction. A task that was not run, or had no prediction, teaches nothing."""
        arm = next((arm for arm in context.arms if arm.variant == outcome.variant), None)
        if arm is None or not arm.predicted_ms:
            return
        actual_ms = outcome.response_ms - (context.deadline_ms - context.slack_ms)
        ratio = max(0.0, actual_ms) / arm.predicted_ms
        variants = self._applications.setdefault(context.application, {})
        loads = variants.setdefault(arm.variant, [_empty() for _ in range(LOADS)])
        self._everything.fade()
        for counts_of in variants.values():
            for counts in counts_of:
                counts.fade()
        index = min(BINS - 1, int(_position(ratio)))
        for counts in (self._everything, loads[load_of(arm)]):
            (counts.seen if outcome.in_full else counts.censored)[index] += 1
        self._beliefs.clear()

    def state(self) -> State:
        """All counts."""
        applications: dict[str, Json] = {
            application: {
                "variants": {variant: [_saved(one) for one in loads] for variant, loads in variants.items()}
            }
            for application, variants in self._applications.items()
        }
        return {"everything": _saved(self._everything), "applications": applications}

    def restore(self, state: State) -> None:
        """Take up saved counts. Raises StateError."""
        memory = remembered(_Memory, state)
        self._everything = _counts(memory.everything)
        self._applications = {
            application: {
                variant: [_counts(one) for one in loads] for variant, loads in variants.variants.items()
            }
            for application, variants in memory.applications.items()
        }
        self._beliefs.clear()


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


def _first_belief() -> Belief:
    """Ratios around 1, of which a few are any number of times greater."""
    octaves = [LEAST_OCTAVE + index / BINS_PER_OCTAVE for index in range(BINS + 1)]
    usual = [0.5 * (1 - erf(octave * log(2) / (PRIOR_SPREAD * sqrt(2)))) for octave in octaves]
    trouble = [1 - max(0.0, octave) / MOST_OCTAVE for octave in octaves]
    survival = (1 - PRIOR_TROUBLE) * np.array(usual) + PRIOR_TROUBLE * np.array(trouble)
    survival[0], survival[-1] = 1.0, 0.0
    return Belief(survival, PRIOR_TASKS, 0.0)


def _empty() -> _Counts:
    return _Counts(np.zeros(BINS), np.zeros(BINS))


def _sum(parts: Sequence[_Counts]) -> _Counts:
    seen = np.sum([part.seen for part in parts], axis=0)
    return _Counts(seen, np.sum([part.censored for part in parts], axis=0))


def _saved(counts: _Counts) -> dict[str, Json]:
    """Bins with next to nothing in them are left out."""
    bins = np.flatnonzero(counts.seen + counts.censored > _NEGLIGIBLE)
    return {
        "bins": bins.tolist(),
        "seen": counts.seen[bins].tolist(),
        "censored": counts.censored[bins].tolist(),
    }


def _counts(memory: _CountsMemory) -> _Counts:
    counts = _empty()
    for index, seen, censored in zip(memory.bins, memory.seen, memory.censored, strict=True):
        counts.seen[index] = seen
        counts.censored[index] = censored
    return counts


_FIRST = _first_belief()
