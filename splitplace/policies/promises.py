"""Make "in time with probability P" come true: corrected online, for each application. Pure.

A policy says a probability and later hears whether it came true. Its probabilities may lean to one side, or
do so only where choices are close. A Venn-Abers predictor (Vovk and Petej 2014, conformal prediction for
probabilities) corrects them without assuming how: isotonic regression of what came true on what was said,
once with the new task counted as in time and once as late. One of the two is calibrated whatever the
distribution, as long as tasks come in any order; their mix is what is said. The last `WINDOW` decisions of an
application count, so that the correction follows a system that changes.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Annotated, NamedTuple

from pydantic import ConfigDict, Field, RootModel

from splitplace.policies.state import State, validated_state

WINDOW = 400
"""Decisions of an application that count."""
FEWEST = 20
"""Decisions before an application has a correction of its own; until then the last so many of each count, and
before so many of them nothing is corrected."""
LEVELS = 200
"""Steps of the probabilities that are told apart: a correction takes time for every level that was said."""
MAX_APPLICATIONS = 64
"""Beyond it, the application that was heard of least recently is forgotten."""

_Said = tuple[float, bool]
"""A probability that was said, and whether it came true."""
_SavedPair = tuple[Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)], bool]


class _SavedState(RootModel[dict[str, Annotated[list[_SavedPair], Field(max_length=WINDOW)]]]):
    """What was said and came true, by application."""

    model_config = ConfigDict(strict=False)


class Promises:
    """What was promised and kept, for each application."""

    def __init__(self) -> None:
        """Promises of a system that has decided nothing: probabilities stay as they are."""
        self._said: OrderedDict[str, deque[_Said]] = OrderedDict()

    def corrected(self, application: str, probability: float) -> float:
        """Return the probability that may be promised instead of what the policy computed, in [0, 1]."""
        known: Iterable[_Said] = self._said.get(application, ())
        pairs = list(known)
        if len(pairs) < FEWEST:
            pairs = [pair for said in self._said.values() for pair in list(said)[-FEWEST:]]
        if len(pairs) < FEWEST:
            return probability
        return venn_abers(pairs, _level(probability))

    def learn(self, application: str, probability: float, *, came_true: bool) -> None:
        """Count whether a probability came true: the one that the policy computed, before its correction."""
        said = self._said.setdefault(application, deque(maxlen=WINDOW))
        said.append((_level(probability), came_true))
        self._said.move_to_end(application)
        while len(self._said) > MAX_APPLICATIONS:
            self._said.popitem(last=False)

    def state(self) -> State:
        """Return all that counts, to be saved."""
        return {name: [[p, came_true] for p, came_true in said] for name, said in self._said.items()}

    def restore(self, state: State) -> None:
        """Replace all that counts by a saved state. Raises StateError."""
        saved = validated_state(_SavedState, state).root
        self._said = OrderedDict((name, deque(pairs, maxlen=WINDOW)) for name, pairs in saved.items())


def _level(probability: float) -> float:
    return round(LEVELS * probability) / LEVELS


def venn_abers(pairs: Sequence[_Said], probability: float) -> float:
    """Return the calibrated probability of a new one, after others came true or not.

    Args:
        pairs: what was said, in [0, 1], and whether it came true.
        probability: what is said now.
    """
    sums: dict[float, tuple[float, float]] = {probability: (0.0, 1.0)}
    """By probability: how often it came true, and how often it was said. It is late this time."""
    for (said, came_true), times in Counter(pairs).items():
        kept, count = sums.get(said, (0.0, 0.0))
        sums[said] = kept + times * came_true, count + times
    levels = [(said, *sums[said]) for said in sorted(sums)]
    index = bisect_left(levels, (probability,))
    late = _fitted(levels, probability)
    _, kept, count = levels[index]
    levels[index] = probability, kept + 1.0, count
    in_time = _fitted(levels, probability)
    return in_time / (1 - late + in_time)


def _fitted(levels: Sequence[tuple[float, float, float]], at: float) -> float:
    """Return the isotonic regression of outcomes on probabilities, at one of these.

    Pools adjacent violators.

    Args:
        levels: probabilities in order, how often each came true, and how often it was said.
        at: one of them.
    """
    blocks: list[tuple[float, float, float]] = []
    """Greatest probability, outcomes and number of each block, whose means grow."""
    for said, came_true, times in levels:
        kept, count = came_true, times
        while blocks and blocks[-1][1] * count >= kept * blocks[-1][2]:
            _, before, number = blocks.pop()
            kept, count = kept + before, count + number
        blocks.append((said, kept, count))
    for greatest, kept, count in blocks:
        if at <= greatest:
            return kept / count
    raise ValueError(f"{at} is not among the probabilities")


BINS = (0.2, 0.5, 0.8, 0.9, 0.98)
"""Borders of the bins of a reliability table."""


class Kept(NamedTuple):
    """A row of a reliability table."""

    promised: float
    """Mean of the probabilities that were said."""
    kept: float
    """Share that came true."""
    tasks: int


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
        )
        for _, members in sorted(bins.items())
    ]


JUDGED_FROM = 30
"""Promises in a bin from which on its error says something."""


def largest_error(pairs: Iterable[_Said]) -> float | None:
    """Return the largest difference of promised and kept in a bin with enough promises; None without one."""
    errors = [abs(row.promised - row.kept) for row in reliability(pairs) if row.tasks >= JUDGED_FROM]
    return max(errors, default=None)
