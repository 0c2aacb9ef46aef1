"""Yes, perhaps or no, and the cheapest change that would help. Pure but for the simulations."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, inf
from typing import Literal

from splitplace.planning.forecast import Forecast, Simulator, forecast, in_turn
from splitplace.planning.kinds import NodeKind
from splitplace.planning.question import OutOfReachError, Question, changed, check_reach

Verdict = Literal["yes", "perhaps", "no"]

SLOWER = (0.8, 0.5, 0.25, 0.1)
"""Factors on the rate that are tried."""
LONGER = (1.0, 1.4, 2.0, 2.8, 4.0, 8.0)
"""Factors on the deadline that seemed to be enough, tried until one is."""
_ROOM = 1.05
"""A deadline that is proposed is at least this much longer than what seemed to be enough."""
_SEEDS = 5
"""Simulations of each change that is tried."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change that would help, and what it costs."""

    words: str
    price: float
    """Dollars; 0 for a change of settings, infinite where no price is known."""
    hit_rate: float


def verdict(found: Forecast, wanted: float) -> Verdict:
    """Say whether the wanted hit rate is reached: by the whole interval, by none of it, or undecided."""
    if found.hit_rate.low >= wanted:
        return "yes"
    return "no" if found.hit_rate.high < wanted else "perhaps"


def changes(
    question: Question, found: Forecast, kinds: Mapping[str, NodeKind], simulator: Simulator = in_turn
) -> list[Change]:
    """Return changes that reach the wanted hit rate, each by itself, the cheapest first.

    Settings are free and come first: a longer deadline, fewer tasks a second. Then one more node, of the
    cheapest kind that helps.

    Args:
        question: what is asked; its answer was not yes.
        found: its forecast.
        kinds: nodes that can be bought.
        simulator: runs simulations.
    """
    short = changed(question, seeds=min(question.seeds, _SEEDS))
    tried = (_longer(short, found, simulator), _slower(short, simulator), _one_more(short, kinds, simulator))
    return sorted([change for change in tried if change is not None], key=lambda change: change.price)


def _longer(question: Question, found: Forecast, simulator: Simulator) -> Change | None:
    if question.given:
        return None
    least_ms = max(found.enough_ms or 0.0, question.deadline_ms) * _ROOM
    for factor in LONGER:
        deadline_ms = _round_up(least_ms * factor)
        tried = forecast(changed(question, deadline_ms=deadline_ms), simulator)
        if verdict(tried, question.wanted) == "yes":
            return Change(f"a deadline of {deadline_ms:g} ms", 0.0, tried.hit_rate.value)
    return None


def _slower(question: Question, simulator: Simulator) -> Change | None:
    if question.given:
        return None
    for factor in SLOWER:
        tried = forecast(changed(question, rate=question.rate * factor), simulator)
        if verdict(tried, question.wanted) == "yes":
            rate = f"{question.rate * factor:.2g}"
            return Change(f"at most {rate} tasks a second", 0.0, tried.hit_rate.value)
    return None


def _one_more(question: Question, kinds: Mapping[str, NodeKind], simulator: Simulator) -> Change | None:
    there = {group.name: group.kind for group in question.cluster.groups}
    offered = {
        name: kind for name, kind in {**there, **kinds}.items() if kind.price is not None or name in there
    }
    for name, kind in sorted(offered.items(), key=lambda each: _price(each[1])):
        larger = changed(question, cluster=question.cluster.with_one_more(name, kind))
        try:
            check_reach(larger)
        except OutOfReachError:
            continue
        tried = forecast(larger, simulator)
        if verdict(tried, question.wanted) == "yes":
            return Change(f"one more {name}", _price(kind), tried.hit_rate.value)
    return None


def _price(kind: NodeKind) -> float:
    return inf if kind.price is None else kind.price


def _round_up(milliseconds: float) -> float:
    """Round up to two figures."""
    scale = 10 ** max(0, len(str(int(milliseconds))) - 2)
    return float(ceil(milliseconds / scale) * scale)
