"""Plan the nodes of a demo: three speeds, and no memory for the largest network as a whole. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from splitplace.errors import SplitPlaceError
from splitplace.messages.application import Application, Variant
from splitplace.messages.limits import MEBIBYTE
from splitplace.policies.memory import described_bytes, preparing_bytes

MIN_NODES = 6

_SHARES = {"fast": 0.28, "medium": 0.16, "slow": 0.10}
"""Share of one core by speed. Two nodes of each speed: 1.08 cores."""

_LINKS = {"fast": 12.0, "medium": 6.0, "slow": 3.0}
"""MB/s by speed, where links are shaped: Ethernet of 100 Mbit/s, and Wi-Fi near and far."""

_USABLE = 0.55
"""Share of all cores for all nodes together. The services, the broker and the sensors need the rest, and
parallel branches only run in parallel if no node waits for another's processor."""

_COMFORT = 1.2
"""Memory budget over what must fit."""

_TOO_SMALL = 0.95
"""Largest memory budget, as a share of what the largest network needs as a whole."""

_PIECES = 3
"""Pieces of the largest network for which fast nodes have room, unless that is room for the whole."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node to start."""

    name: str
    cpu_share: float
    """Share of one core."""
    memory_budget_bytes: int
    link_megabytes_per_second: float
    """Speed of its link, where links are shaped."""

    @property
    def memory_budget_mb(self) -> float:
        """The budget in MiB, the unit of the node's setting."""
        return self.memory_budget_bytes / MEBIBYTE


class PlanError(SplitPlaceError, ValueError):
    """The demo cannot be planned."""


def largest_network(applications: Iterable[Application]) -> Application:
    """Return the application whose whole network needs most memory. Raises PlanError without applications."""
    found = max(applications, key=whole_bytes, default=None)
    if found is None:
        raise PlanError("no application")
    return found


def whole_bytes(application: Application) -> int:
    """Return the memory that a node needs for the whole network; 0 if there is no such variant."""
    return max(
        (_needed(application, each) for each in application.variants if each.kind == "whole"), default=0
    )


def plan_nodes(count: int, cores: int, applications: Sequence[Application]) -> tuple[NodePlan, ...]:
    """Return nodes of three speeds in a mix as even as `count` allows, fast ones first.

    No node can hold the largest network as a whole, and every node can hold each of its pieces, one at a
    time. Fast nodes can hold each smaller network as a whole, unless it is nearly as large as the largest.

    Args:
        count: Number of nodes.
        cores: Cores of this machine; they bound the sum of all shares.
        applications: What the nodes will run.

    Raises:
        PlanError: Fewer than six nodes, or the largest network is no larger than the pieces.
    """
    if count < MIN_NODES:
        raise PlanError(f"the demo needs at least {MIN_NODES} nodes, two of each speed")
    speeds = [tuple(_SHARES)[index * len(_SHARES) // count] for index in range(count)]
    scale = min(1.0, _USABLE * cores / sum(_SHARES[speed] for speed in speeds))
    budgets = _budgets(applications)
    numbers = dict.fromkeys(_SHARES, 0)
    nodes = []
    for speed in speeds:
        numbers[speed] += 1
        share = round(_SHARES[speed] * scale, 4)
        nodes.append(NodePlan(f"{speed}-{numbers[speed]}", share, budgets[speed], _LINKS[speed]))
    return tuple(nodes)


def _budgets(applications: Sequence[Application]) -> dict[str, int]:
    """Return the memory in bytes for each speed."""
    large = largest_network(applications)
    whole = whole_bytes(large)
    pieces = [
        _needed(application, variant)
        for application in applications
        for variant in application.variants
        if variant.kind in ("layer", "semantic")
    ]
    piece = max(pieces, default=0)
    most = int(_TOO_SMALL * whole)
    if not any(variant.kind in ("layer", "semantic") for variant in large.variants) or piece >= most:
        raise PlanError(
            f"{large.name}: its whole network ({whole} bytes) is not larger than the largest piece "
            f"({piece} bytes) of all networks"
        )
    others = max((whole_bytes(each) for each in applications if each is not large), default=0)
    fast = min(most, int(_COMFORT * max(_PIECES * piece, others)))
    slow = min(int(piece * _COMFORT), (piece + most) // 2)
    return {"fast": fast, "medium": max(slow, (fast + slow) // 2), "slow": slow}


def _needed(application: Application, variant: Variant) -> int:
    """Return the memory that the largest stage of a variant needs on a node."""
    fragments = [application.fragment(stage.fragment) for stage in variant.stages]
    return max(max(preparing_bytes(each), described_bytes(each)) for each in fragments)
