"""Policies by name, both in one word: `mab+daso` splits by `mab` and places by `daso`."""

from collections.abc import Iterable
from typing import NamedTuple

from splitplace.policies.placement import PLACEMENT_POLICIES
from splitplace.policies.splitting import SPLIT_POLICIES


class PolicyPair(NamedTuple):
    """How to split and where to place."""

    split: str
    placement: str


def parse_policy(text: str, *, more_splits: Iterable[str] = ()) -> PolicyPair:
    """Return the two names in `split+placement`.

    Args:
        text: such as `mab+daso`.
        more_splits: names that only the caller knows (the simulator's `oracle`).

    Raises:
        ValueError: no plus between two names, or an unknown name; the message lists the known ones.
    """
    split, plus, placement = text.strip().partition("+")
    if not plus:
        raise ValueError(f"policy {text!r} is not of the form split+placement, such as mab+daso")
    _check("split", split, [*SPLIT_POLICIES, *more_splits])
    _check("placement", placement, list(PLACEMENT_POLICIES))
    return PolicyPair(split, placement)


def _check(what: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise ValueError(f"there is no {what} policy {name!r}, only {', '.join(known)}")
