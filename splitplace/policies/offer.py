"""What is expected of a job on given nodes: of a stage, and of all of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Tensors = tuple[Sequence[float], Sequence[float]]
"""When each is ready, in ms, and its bytes."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected response and work of a job on given nodes."""

    response_ms: float
    """From `now_ms` until the gateway has the whole answer; infinite if a node has no link or no speed."""
    work_ms: Mapping[str, float]
    """Computing time of every stage, over all micro-batches and replicas."""
    carried_bytes: float = 0.0
    """What the broker's link carries to nodes; 0 where its bandwidth is not known."""


class PlacedShare(NamedTuple):
    """A stage on a node, or its share on one of several."""

    stage: str
    node: str
    work_ms: float
    """Expected computing time there."""
    micro_batches: tuple[int, ...] | None = None
    """Numbers of the micro-batches that run there; None = all."""


class Offer(NamedTuple):
    """Expected times of a stage on a node, or on its replicas."""

    shares: tuple[PlacedShare, ...]
    """One for each node."""
    finish_ms: Sequence[float]
    """When each micro-batch's output is ready."""
    end_ms: float
    """When the last output is ready; for a sink, when the gateway has it."""
    received_ms: tuple[float, ...] = (0.0,)
    """When the last input has crossed the link of each share's node."""
    tensors: Tensors = ((), ())
    """What the broker's link carries for it, where its bandwidth is known."""

    @property
    def node(self) -> str:
        """The node, or the first of several."""
        return self.shares[0].node

    @property
    def work_ms(self) -> float:
        """Computing time on all nodes together."""
        return sum([share.work_ms for share in self.shares])

    @property
    def nodes(self) -> Sequence[str]:
        """The node of each micro-batch."""
        if len(self.shares) == 1:
            return (self.shares[0].node,) * len(self.finish_ms)
        by_number = {number: share.node for share in self.shares for number in share.micro_batches or ()}
        return [by_number[number] for number in range(len(self.finish_ms))]

    def until_ms(self, share: PlacedShare) -> float:
        """Return when a node is done with its share."""
        if share.micro_batches is None:
            return max(self.finish_ms)
        return max([self.finish_ms[number] for number in share.micro_batches])
