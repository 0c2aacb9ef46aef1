"""Where to cut a chain of measured segments so that a pipeline's slowest part is fastest. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitplace.errors import SplitPlaceError

Costs = NDArray[np.float64]


class TargetError(SplitPlaceError, ValueError):
    """Nodes that do not fit a chain."""


@dataclass(frozen=True)
class Device:
    """A device that runs one stage, and its link to the next one.

    The defaults are a small board behind 100 Mbit/s Ethernet.
    """

    slowdown: float = 6.0
    """How many times slower it computes than the machine that measured."""
    link_bytes_per_ms: float = 12_500.0
    memory_bytes: float = inf
    """What a stage may need for weights and activations."""


@dataclass(frozen=True)
class Target:
    """The devices a chain is balanced for."""

    nodes: tuple[Device, ...] = (Device(),)
    """One for each stage, in order; a single one stands for every stage."""
    tolerance: float = 0.05
    """Cuts whose slowest part is slower by at most this share are held to be equal; of those, the one that
    sends least is taken."""

    def for_stages(self, stages: int) -> tuple[Device, ...]:
        """The node of each stage.

        Raises:
            TargetError: There are several nodes, but not one for each stage.
        """
        if len(self.nodes) == 1:
            return self.nodes * stages
        if len(self.nodes) != stages:
            raise TargetError(f"{len(self.nodes)} nodes are given for {stages} stages")
        return self.nodes


@dataclass(frozen=True)
class Chain:
    """S segments, one behind the other, and what crosses between them."""

    milliseconds: Sequence[float]
    """Measured time of each segment, for one image."""
    crossing_bytes: Sequence[float]
    """What crosses each of the S - 1 places between neighbours, for one image."""
    weight_bytes: Sequence[float] = field(default=())
    """Of each segment; none where memory plays no part."""
    activation_bytes: Sequence[float] = field(default=())
    """Of each segment: the most that exists at the same time while a micro-batch goes through."""

    @property
    def places(self) -> int:
        """How many places there are to cut."""
        return len(self.milliseconds) - 1


@dataclass(frozen=True)
class Partition:
    """Which places are cut, and how good that is."""

    cuts: tuple[int, ...]
    """`stages - 1` ascending indices into the places to cut."""
    pace_ms: float
    """The slowest part of the pipeline, computing or sending, for one image."""
    least_pace_ms: float
    """That of the fastest of all partitions: at most the tolerance below `pace_ms`."""


class PartitionError(SplitPlaceError, ValueError):
    """A chain that cannot be divided as wanted."""


def partition(chain: Chain, stages: int, target: Target) -> Partition:
    """Groups segments into stages of at least one segment each, exactly, by dynamic programming.

    A stage computes one micro-batch while it sends the one before, so computing and sending are both parts of
    the pipeline, and the slowest of all of them sets its pace. A stage needs the weights of its segments and
    the activations of the one that has most. Takes O(stages * S^2) time.

    Raises:
        PartitionError: The lengths do not fit together, there are fewer segments than stages, or no partition
            fits into the nodes' memory.
        TargetError: There are several nodes, but not one for each stage.
    """
    count = len(chain.milliseconds)
    if len(chain.crossing_bytes) != count - 1 or not 1 <= stages <= count:
        raise PartitionError(
            f"cannot make {stages} stages of {count} segments and {len(chain.crossing_bytes)} places to cut"
        )
    nodes = target.for_stages(stages)
    compute, memory = _spans(chain)
    crossing = np.array([*chain.crossing_bytes, 0.0])
    paces = [
        np.where(
            memory <= node.memory_bytes,
            np.maximum(compute * node.slowdown, crossing / node.link_bytes_per_ms),
            inf,
        )
        for node in nodes
    ]
    least, _ = _cheapest(paces, np.maximum)
    if least == inf:
        raise PartitionError(f"no way to make {stages} stages fits into the memory of the nodes")
    limit = least * (1 + target.tolerance)
    _, cuts = _cheapest([np.where(pace <= limit, crossing, inf) for pace in paces], np.add)
    bounds = pairwise((0, *(cut + 1 for cut in cuts), count))
    pace = max(pace[first, end - 1] for pace, (first, end) in zip(paces, bounds, strict=True))
    return Partition(cuts, float(pace), float(least))


def _spans(chain: Chain) -> tuple[Costs, Costs]:
    """Milliseconds and bytes of memory of every span of segments, `[first, last]`.

    Below the diagonal both are infinite, which keeps stages from being empty.
    """
    count = len(chain.milliseconds)
    weights, activations = (
        np.array(values or np.zeros(count), float) for values in (chain.weight_bytes, chain.activation_bytes)
    )
    compute = _sums(np.array(chain.milliseconds, float))
    peaks = np.triu(np.broadcast_to(activations, (count, count)))
    memory = _sums(weights) + np.maximum.accumulate(peaks, axis=1)
    return compute, memory


def _sums(values: Costs) -> Costs:
    totals = np.concatenate([[0.0], np.cumsum(values)])
    sums: Costs = totals[None, 1:] - totals[:-1, None]
    sums[np.tril_indices(len(values), -1)] = inf
    return sums


def _cheapest(costs: Sequence[Costs], join: Any) -> tuple[float, tuple[int, ...]]:  # noqa: ANN401 - a ufunc
    """Least joined cost of dividing all segments among the stages, and the places between them.

    Args:
        costs: For each stage, the cost of its being the segments `[first, last]`.
        join: Of the cost of the stages before and that of the next.
    """
    best = costs[0][0]
    starts = []
    for cost in costs[1:]:
        # joined[first, last]: the stages before end with segment first, this one is first + 1 to last.
        joined = join(best[:-1, None], cost[1:])
        starts.append(joined.argmin(axis=0))
        best = joined.min(axis=0)
    cuts: list[int] = []
    last = len(best) - 1
    for start in reversed(starts):
        last = int(start[last])
        cuts.append(last)
    return float(best[-1]), tuple(reversed(cuts))
