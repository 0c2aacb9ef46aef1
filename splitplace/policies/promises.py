"""Make "in time with probability P" come true: corrected online, for each application. Pure.

A policy says a probability and later hears whether it came true. Its probabilities may lean to one side, or
be too sure or not sure enough. Both are put right on the scale of log odds, by an offset and a slope (Platt
1999), which are learnt as a Bayesian logistic regression: one Newton step for each outcome. Its prior is that
the policy is right, so that few outcomes change little; old outcomes fade. What is left, the mean error of
each bin, is taken off as far as the bin was met, so at the border of two bins the order may change. Isotonic
regression (Venn-Abers) needs no such form, but until it has hundreds of outcomes of all kinds it spoils what
a policy says rightly (docs/policies.md).
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from math import exp, log
from statistics import fmean
from typing import Annotated, NamedTuple, Self

from pydantic import Field, model_validator

from splitplace.messages.base import NonNegative, Part
from splitplace.policies.state import Json, State, validated_state

FEWEST = 50
"""Outcomes before an application has a correction of its own; until then it has that of all together."""
FADING = 1 - 1 / 400
"""Weight that an outcome keeps with each further one."""
MAX_APPLICATIONS = 64
"""Beyond it, the application that was heard of least recently is forgotten."""

SLOPE_DEVIATION, OFFSET_DEVIATION = 0.5, 1.0
"""How far the policy's log odds are expected to be wrong before anything is seen."""
LEAST = 1 / 400
"""Nothing is less probable than this, or more probable than the rest."""

BINS = (0.2, 0.5, 0.8, 0.9, 0.98)
"""Borders of the bins of a reliability table."""
DOUBTED = 30.0
"""Outcomes in a bin for which half of its mean error is believed."""

_SLOPE, _OFFSET = 1.0, 0.0
_SLOPE_PRECISION, _OFFSET_PRECISION = SLOPE_DEVIATION**-2, OFFSET_DEVIATION**-2
_BINS = len(BINS) + 1
_MOST = 50.0
"""Bound of slope and offset: they stay far below, unless all outcomes contradict what was said."""
_Coefficient = Annotated[float, Field(ge=-_MOST, le=_MOST, allow_inf_nan=False)]
_Error = Annotated[float, Field(ge=-1 / (1 - FADING), le=1 / (1 - FADING), allow_inf_nan=False)]

_Said = tuple[float, bool]
"""A probability that was said, and whether it came true."""


@dataclass(slots=True)
class _Correction:
    """A normal distribution of slope and offset, by means and precisions, and the errors left in each bin."""

    slope: float = _SLOPE
    offset: float = _OFFSET
    slope_precision: float = _SLOPE_PRECISION
    shared_precision: float = 0.0
    offset_precision: float = _OFFSET_PRECISION
    outcomes: int = 0
    errors: list[float] = field(default_factory=lambda: [0.0] * _BINS)
    met: list[float] = field(default_factory=lambda: [0.0] * _BINS)
    """How often each bin was met, faded as its errors are."""

    def corrected(self, probability: float) -> float:
        fitted = self._fitted(probability)
        number = bisect_right(BINS, fitted)
        return _bounded(fitted + self.errors[number] / (self.met[number] + DOUBTED))

    def _fitted(self, probability: float) -> float:
        return _probability(max(0.0, self.slope) * _log_odds(probability) + self.offset)

    def learn(self, probability: float, *, came_true: bool) -> None:
        fitted = self._fitted(probability)
        number = bisect_right(BINS, fitted)
        self.errors[number] = FADING * self.errors[number] + came_true - fitted
        self.met[number] = FADING * self.met[number] + 1
        odds = _log_odds(probability)
        expected = _probability(self.slope * odds + self.offset)
        # What fades gives way to the prior: precisions and, by the gradient, means.
        weight, rest = expected * (1 - expected), 1 - FADING
        self.slope_precision = FADING * self.slope_precision + rest * _SLOPE_PRECISION + weight * odds**2
        self.shared_precision = FADING * self.shared_precision + weight * odds
        self.offset_precision = FADING * self.offset_precision + rest * _OFFSET_PRECISION + weight
        error = expected - came_true
        slope_gradient = error * odds + rest * _SLOPE_PRECISION * (self.slope - _SLOPE)
        offset_gradient = error + rest * _OFFSET_PRECISION * (self.offset - _OFFSET)
        determinant = self.slope_precision * self.offset_precision - self.shared_precision**2
        self.slope -= (
            self.offset_precision * slope_gradient - self.shared_precision * offset_gradient
        ) / determinant
        self.offset -= (
            self.slope_precision * offset_gradient - self.shared_precision * slope_gradient
        ) / determinant
        self.slope = min(_MOST, max(-_MOST, self.slope))
        self.offset = min(_MOST, max(-_MOST, self.offset))
        self.outcomes += 1


class _SavedCorrection(Part):
    """A saved correction."""

    slope: _Coefficient
    offset: _Coefficient
    slope_precision: Annotated[NonNegative, Field(gt=0)]
    shared_precision: Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
    offset_precision: Annotated[NonNegative, Field(gt=0)]
    outcomes: Annotated[int, Field(ge=0)]
    errors: Annotated[list[_Error], Field(min_length=_BINS, max_length=_BINS)]
    met: Annotated[list[NonNegative], Field(min_length=_BINS, max_length=_BINS)]

    @model_validator(mode="after")
    def _is_a_distribution(self) -> Self:
        if self.shared_precision**2 > self.slope_precision * self.offset_precision:
            raise ValueError("the precisions are of no distribution")
        return self

    def correction(self) -> _Correction:
        return _Correction(**self.model_dump())


class _SavedState(Part):
    """The correction of all together, and those of applications."""

    together: _SavedCorrection
    applications: Annotated[dict[str, _SavedCorrection], Field(max_length=MAX_APPLICATIONS)]


class Promises:
    """What was promised and kept, for each application."""

    def __init__(self) -> None:
        """Promises of a system that has decided nothing: probabilities stay as they are."""
        self._together = _Correction()
        self._own: OrderedDict[str, _Correction] = OrderedDict()

    def corrected(self, application: str, probability: float) -> float:
        """Return the probability that may be promised instead of what the policy computed, in (0, 1)."""
        own = self._own.get(application)
        used = self._together if own is None or own.outcomes < FEWEST else own
        return used.corrected(probability)

    def learn(self, application: str, probability: float, *, came_true: bool) -> None:
        """Count whether a probability came true: the one that the policy computed, before its correction."""
        for correction in (self._together, self._own.setdefault(application, _Correction())):
            correction.learn(probability, came_true=came_true)
        self._own.move_to_end(application)
        while len(self._own) > MAX_APPLICATIONS:
            self._own.popitem(last=False)

    def state(self) -> State:
        """Return all that counts, to be saved."""
        own: dict[str, Json] = {name: asdict(correction) for name, correction in self._own.items()}
        return {"together": asdict(self._together), "applications": own}

    def restore(self, state: State) -> None:
        """Replace all that counts by a saved state; an empty one is that of the start. Raises StateError."""
        if not state:
            self._together, self._own = _Correction(), OrderedDict()
            return
        saved = validated_state(_SavedState, state)
        self._together = saved.together.correction()
        self._own = OrderedDict((name, each.correction()) for name, each in saved.applications.items())


def _log_odds(probability: float) -> float:
    bounded = _bounded(probability)
    return log(bounded / (1 - bounded))


def _bounded(probability: float) -> float:
    return min(1 - LEAST, max(LEAST, probability))


def _probability(log_odds: float) -> float:
    bounded = min(30.0, max(-30.0, log_odds))
    return 1 / (1 + exp(-bounded))


class Kept(NamedTuple):
    """A row of a reliability table."""

    promised: float
    """Mean of the probabilities that were said."""
    kept: float
    """Share that came true."""
    tasks: int
    low: float
    """Lower border of the bin."""

    @property
    def error(self) -> float:
        """Promised less kept."""
        return self.promised - self.kept


def reliability(pairs: Iterable[_Said]) -> list[Kept]:
    """Return what was promised and kept, for each bin of probabilities that is not empty."""
    bins: dict[int, list[_Said]] = {}
    for pair in pairs:
        bins.setdefault(bisect_right(BINS, pair[0]), []).append(pair)
    return [
        Kept(
            min(1.0, fmean([said for said, _ in members])),
            fmean([came_true for _, came_true in members]),
            len(members),
            (0.0, *BINS)[number],
        )
        for number, members in sorted(bins.items())
    ]


JUDGED_FROM = 30
"""Promises in a bin from which on its error says something."""


def largest_error(pairs: Iterable[_Said]) -> float | None:
    """Return the largest difference of promised and kept in a bin with enough promises; None without one."""
    return largest_of(reliability(pairs))


def largest_of(rows: Iterable[Kept]) -> float | None:
    """Return the largest difference in the rows with enough promises; None without one."""
    return max((abs(row.error) for row in rows if row.tasks >= JUDGED_FROM), default=None)
