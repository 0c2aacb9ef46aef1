"""Deal the micro-batches of a stage to its replicas. Pure.

Each micro-batch, in the order in which they become ready, goes to the replica where it would be finished
first: after its transfer, the node's other work and the micro-batches dealt before. So a replica's share is
in proportion to its speed, less what its queue and its link cost. For equal micro-batches that are ready
together no other dealing ends sooner.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from splitplace.messages.limits import CHUNK_BYTES
from splitplace.policies.cost import HOP_MS


@dataclass(frozen=True, slots=True)
class Replica:
    """A node that may take micro-batches of a stage."""

    node: str
    free_ms: float
    """When it can begin."""
    byte_ms: float
    """Time to move a byte over its link."""
    call_ms: float
    image_ms: float
    """Time of a call, and of each image in it."""
    latency_ms: float = 0.0
    """From the broker to it."""
    received_ms: float = 0.0
    """When its link is free of other tensors of the job."""


class ReadyInput(NamedTuple):
    """The input of a micro-batch, where it is made."""

    ready_ms: float
    images: int
    sender: str = ""
    """The node that makes it; empty: the gateway, whose link is not known."""
    byte_ms: float = 0.0
    """Time to move a byte over the sender's link."""
    latency_ms: float = 0.0
    """From the sender to the broker."""
    ratio: float = 1.0
    """What is left of it when the sender has encoded it."""
    broker_ms: float = 0.0
    """When the broker's link has carried it; 0 where that never takes longer."""


class Dealt(NamedTuple):
    """Where a micro-batch goes, and when its output is ready there."""

    node: str
    finish_ms: float
    received_ms: float
    """When its input has crossed the node's link."""


def deal(
    inputs: Sequence[ReadyInput],
    replicas: Sequence[Replica],
    image_bytes: float,
    given: Sequence[str] | None = None,
    *,
    hop_ms: float = HOP_MS,
) -> tuple[Dealt, ...]:
    """Deal micro-batches to replicas. The first of equal replicas wins.

    A sender sends one tensor after the other, a receiver receives one after the other, and each goes at the
    speed of the slower of the two links. A chunk crosses the faster link by itself (`cost.relay_ms`).

    Args:
        inputs: the micro-batches by number.
        replicas: the nodes, each once; at least one.
        image_bytes: size of an image of the input.
        given: node of each micro-batch, where that is settled: then only the times are computed.
        hop_ms: time of a hop besides.

    Returns:
        The deal of each micro-batch, by its number.
    """
    free_ms = {replica.node: replica.free_ms for replica in replicas}
    received_ms = {replica.node: replica.received_ms for replica in replicas}
    sent_ms: dict[str, float] = {}
    dealt: dict[int, Dealt] = {}
    most_images = max(made.images for made in inputs)
    for number in sorted(range(len(inputs)), key=lambda number: inputs[number].ready_ms):
        made = inputs[number]
        size = made.images * image_bytes * made.ratio
        chunk_bytes = min(CHUNK_BYTES, image_bytes * made.ratio * most_images)
        begin_ms = max(made.ready_ms, sent_ms.get(made.sender, 0.0))
        sent_ms[made.sender] = begin_ms + size * made.byte_ms
        best: Dealt | None = None
        for replica in replicas:
            node = replica.node
            if given is not None and given[number] != node:
                continue
            crossed_ms = max(begin_ms, received_ms[node]) + size * max(made.byte_ms, replica.byte_ms)
            crossed_ms = max(crossed_ms, made.broker_ms)
            way_ms = hop_ms + made.latency_ms + replica.latency_ms
            way_ms += chunk_bytes * min(made.byte_ms, replica.byte_ms)
            finish_ms = max(crossed_ms + way_ms, free_ms[node])
            finish_ms += replica.call_ms + made.images * replica.image_ms
            if best is None or finish_ms < best.finish_ms:
                best = Dealt(node, finish_ms, crossed_ms)
        if best is None:
            raise KeyError(f"micro-batch {number} has no replica")
        free_ms[best.node], received_ms[best.node] = best.finish_ms, best.received_ms
        dealt[number] = best
    return tuple(dealt[number] for number in range(len(inputs)))


def numbers_by_node(nodes: Sequence[str]) -> Mapping[str, tuple[int, ...]]:
    """Return the micro-batches of each node, of the node of each micro-batch."""
    numbers: dict[str, list[int]] = {}
    for number, node in enumerate(nodes):
        numbers.setdefault(node, []).append(number)
    return {node: tuple(taken) for node, taken in numbers.items()}
