"""Divide a chain of measured segments so that the slowest part of the pipeline is fastest. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitplace.errors import ExitCode, SplitPlaceError

Costs = NDArray[np.float64]


class TargetError(SplitPlaceError, ValueError):
    """The number of nodes does not fit the number of stages."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True)
class Device:
    """A device that runs one stage, and its link to the next one.

    The defaults are a small board behind 100 Mbit/s Ethernet.
    """

    slowdown: float = 6.0
    """How many times slower it computes than the machine on which the segments were timed."""
    link_bytes_per_ms: float = 12_500.0
    memory_bytes: float = inf
    """Memory that a stage may use for weights and activations."""


@dataclass(frozen=True)
class Target:
    """The devices a chain is balanced for."""

    nodes: tuple[Device, ...] = (Device(),)
    """One for each stage, in order; a single device stands for every stage."""
    tolerance: float = 0.05
    """Partitions whose slowest part is at most this share slower than the best count as equal; among them the
    one that sends the fewest bytes is chosen."""

    def for_stages(self, stages: int) -> tuple[Device, ...]:
        """Return the node of each stage.

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
    """S segments in sequence, and the size of the tensors between them."""

    milliseconds: Sequence[float]
    """Measured time of each segment for one image."""
    crossing_bytes: Sequence[float]
    """Bytes that cross each of the S - 1 places between neighbours, for one image."""
    weight_bytes: Sequence[float] = field(default=())
    """Weights of each segment; empty if memory is not limited."""
    activation_bytes: Sequence[float] = field(default=())
    """Peak activations of each segment while it computes a micro-batch; empty if memory is not limited."""

    @property
    def places(self) -> int:
        """Number of places where the chain can be cut."""
        return len(self.milliseconds) - 1


@dataclass(frozen=True)
class Partition:
    """The chosen cuts, and the pace that results."""

    cuts: tuple[int, ...]
    """`stages - 1` ascending indices of places between segments."""
    pace_ms: float
    """Time of the pipeline's slowest part, computing or sending, for one image."""
    least_pace_ms: float
    """Pace of the fastest partition; `pace_ms` exceeds it by at most the tolerance."""


class PartitionError(SplitPlaceError, ValueError):
    """The chain cannot be divided as requested."""


def partition(chain: Chain, stages: int, target: Target) -> Partition:
    """Group segments into stages of at least one segment each, optimally, by dynamic programming.

    A stage computes one micro-batch while it sends the previous one, so computing and sending are both parts
    of the pipeline, and the slowest part sets its pace. A stage needs memory for the weights of its segments
    and for the largest of their activations. Takes O(stages * S^2) time.

    Raises:
        PartitionError: The lengths of the chain's fields do not match, there are fewer segments than stages,
            or no partition fits into the nodes' memory.
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
    """Return milliseconds and bytes of memory of every span of segments, indexed `[first, last]`.

    Below the diagonal both are infinite, which excludes empty stages.
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
    """Return the least joined cost of dividing all segments among the stages, and the cuts.

    Args:
        costs: For each stage, the cost of computing the segments `[first, last]`.
        join: Combines the cost of the previous stages with that of the next.
    """
    best = costs[0][0]
    starts = []
    for cost in costs[1:]:
        # joined[first, last]: earlier stages end with segment `first`, this stage is `first + 1` to `last`.
        joined = join(best[:-1, None], cost[1:])
        starts.append(joined.argmin(axis=0))
        best = joined.min(axis=0)
    cuts: list[int] = []
    last = len(best) - 1
    for start in reversed(starts):
        last = int(start[last])
        cuts.append(last)
    return float(best[-1]), tuple(reversed(cuts))
