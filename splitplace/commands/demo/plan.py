"""Plan the nodes of a demo: three speeds, and memory that not every whole network fits. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from splitplace.errors import SplitPlaceError
from splitplace.messages.application import Application, Fragment, Variant
from splitplace.messages.limits import MEBIBYTE

MIN_NODES = 6

_SHARES = {"fast": 0.28, "medium": 0.16, "slow": 0.10}
"""Share of one core by speed. Two nodes of each speed: 1.08 cores."""

_USABLE = 0.55
"""Share of all cores for all nodes together. The services, the broker and the sensors need the rest, and
parallel branches only run in parallel if no node waits for another's processor."""

_COMFORT = 1.2
"""Memory budget over what must fit."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node to start."""

    name: str
    cpu_share: float
    """Share of one core."""
    memory_budget_bytes: int

    @property
    def memory_budget_mb(self) -> float:
        """The budget in MiB, the unit of the node's setting."""
        return self.memory_budget_bytes / MEBIBYTE


class PlanError(SplitPlaceError, ValueError):
    """The demo cannot be planned."""


def plan_nodes(count: int, cores: int, applications: Sequence[Application]) -> tuple[NodePlan, ...]:
    """Return nodes of three speeds in a mix as even as `count` allows, fast ones first.

    Slow nodes can hold every piece of the split networks, one at a time, but not the whole network of the
    application with the largest one; medium nodes can just hold that; fast nodes have room for several.

    Args:
        count: Number of nodes.
        cores: Cores of this machine; they bound the sum of all shares.
        applications: What the nodes will run.

    Raises:
        PlanError: Fewer than six nodes, or no application has a whole network larger than the pieces.
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
        nodes.append(NodePlan(f"{speed}-{numbers[speed]}", round(_SHARES[speed] * scale, 4), budgets[speed]))
    return tuple(nodes)


def _budgets(applications: Sequence[Application]) -> dict[str, int]:
    """Return the memory in bytes for each speed."""
    wholes, pieces = [0], [0]
    for application in applications:
        for variant in application.variants:
            sizes = [fragment.peak_memory_bytes for fragment in _fragments(application, variant)]
            (wholes if len(sizes) == 1 else pieces).append(max(sizes))
    whole, piece = max(wholes), max(pieces)
    if piece >= whole:
        raise PlanError(
            f"no whole network (largest {whole} bytes) is larger than the largest piece ({piece} bytes)"
        )
    return {
        "fast": int(3 * whole * _COMFORT),
        "medium": int(whole * _COMFORT),
        "slow": min(int(piece * _COMFORT), (piece + whole) // 2),
    }


def _fragments(application: Application, variant: Variant) -> list[Fragment]:
    return [application.fragment(stage.fragment) for stage in variant.stages]
