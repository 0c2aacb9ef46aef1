"""The fewest nodes of one memory budget that hold a network together. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from splitplace.errors import SplitPlaceError
from splitplace.messages.application import Application
from splitplace.messages.groupings import cut_places, derived_fragment, free_chain
from splitplace.messages.pieces import PieceRun
from splitplace.policies.memory import least_budget_bytes, megabytes


class BudgetError(SplitPlaceError, ValueError):
    """Nodes of this memory budget cannot hold the network, however it is split."""


@dataclass(frozen=True, slots=True)
class BudgetStage:
    """A stage on a node of its own."""

    first: int
    """Its first piece."""
    last: int
    bytes: int
    """The memory budget that its node needs: to prepare it, and to run a micro-batch."""


def fewest_stages(application: Application, budget_bytes: float) -> tuple[BudgetStage, ...]:
    """Part a network into the fewest stages that fit nodes of a memory budget.

    Args:
        application: Its manifest.
        budget_bytes: The memory budget of each node.

    Raises:
        BudgetError: The network has no cut where one is needed, or would have more stages than are allowed.
    """
    variant = next((each for each in application.variants if each.most_stages is not None), None)
    named = free_chain(application, variant) if variant is not None else None
    if variant is None or named is None:
        return _uncut(application, budget_bytes)
    places = (0, *cut_places(application, named), len(named.chain.pieces))
    needed = {
        (first, end): least_budget_bytes(
            derived_fragment(application, PieceRun(chain=named.name, first=first, end=end))
        )
        for first, end in combinations(places, 2)
    }
    best: dict[int, tuple[BudgetStage, ...]] = {0: ()}
    for end in places[1:]:
        ways = [
            (*best[first], BudgetStage(first, end - 1, needed[first, end]))
            for first in best
            if needed[first, end] <= budget_bytes
        ]
        if ways:
            best[end] = min(ways, key=len)
    if places[-1] not in best:
        raise BudgetError(_too_large(needed, max(best), budget_bytes))
    found = best[places[-1]]
    if len(found) > (variant.most_stages or 1):
        raise BudgetError(
            f"{len(found)} stages of {megabytes(budget_bytes)} would be needed, "
            f"{variant.most_stages} are allowed"
        )
    return found


def _too_large(needed: Mapping[tuple[int, int], int], start: int, budget_bytes: float) -> str:
    """Say which pieces, from one on, no node holds."""
    size, end = min((size, end) for (first, end), size in needed.items() if first == start)
    pieces = f"piece {start} needs" if end == start + 1 else f"pieces {start} to {end - 1} need"
    return f"{pieces} {megabytes(size)}, a node has {megabytes(budget_bytes)}"


def _uncut(application: Application, budget_bytes: float) -> tuple[BudgetStage, ...]:
    fragment = application.fragment(application.variants[0].stages[0].fragment)
    size = least_budget_bytes(fragment)
    if size > budget_bytes:
        raise BudgetError(
            f"it cannot be cut and needs {megabytes(size)}, a node has {megabytes(budget_bytes)}"
        )
    return (BudgetStage(0, max(fragment.end - 1, 0), size),)
