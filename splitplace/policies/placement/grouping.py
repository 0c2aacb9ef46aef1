"""Group the pieces of a chain into stages and choose a node for each stage, both at once. Pure.

A stage is a run of neighbouring pieces on one node. All micro-batches of a job cost alike, so the times of a
stage are described by two numbers: when its first and when its last output is ready. For stage k with
computing time p per micro-batch, ready time r, and inputs that arrive from a to b,

    first = max(a, r) + p
    last = max(max(a, r) + M p, b + p)

for M micro-batches. That is exact for a flow shop of equal jobs: the arrival times are a convex function of
the micro-batch, so only its ends count. A link between two nodes is a machine of the same kind.

Both numbers grow with those of the stage before. So the best groupings are found by dynamic programming over
(piece, node) that keeps a few labels for each: those that end first, and the one that begins first. No node
gets two stages of a chain; a label knows its nodes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from splitplace.messages.limits import CHUNK_BYTES
from splitplace.policies.cost import HOP_MS, RETURN_HOPS, Floats

Indices = npt.NDArray[np.int64]

LABELS = 8
"""Groupings kept for each piece and node. Few miss the optimum with so many: a test counts them."""
MAX_NODES = 62
"""Nodes that a label's bit mask can hold."""


@dataclass(frozen=True, slots=True)
class PieceCosts:
    """What P pieces of a chain cost on N nodes, for one micro-batch."""

    work_ms: Floats
    """[N, P] Computing time."""
    call_ms: Floats
    """[N] Time of a call beside the work of its pieces."""
    load_ms: Floats
    """[N, P, P] Time to have a run in memory, by its first and its last piece; 0 where it is loaded."""
    needed_bytes: Floats
    """[N, P, P] Memory that a run needs, by its first and its last piece; 0 where it is held already."""
    crossing_bytes: Floats
    """[P + 1] What crosses before each piece, and after the last one, on the wire."""


@dataclass(frozen=True, slots=True)
class NodeColumns:
    """The N nodes that may be used."""

    ready_ms: Floats
    """[N] When each could begin."""
    free_bytes: Floats
    """[N] Memory for further stages."""
    byte_ms: Floats
    """[N] Time to bring a byte over its link; infinite without a link."""
    up_byte_ms: Floats
    """[N] Time to send a byte over its link."""
    latency_ms: Floats
    """[N] Time between the node and the broker."""
    hop_ms: float = HOP_MS
    """Time from process to process through the broker, without the transfer of bytes."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the inputs of a chain come from."""

    first_ms: float
    """When the first micro-batch can be sent."""
    last_ms: float
    """When the last one can be sent."""


class PlannedRun(NamedTuple):
    """A stage: pieces `[first_piece, end_piece)` on a node."""

    first_piece: int
    end_piece: int
    node: int


@dataclass(frozen=True, slots=True)
class Grouping:
    """The stages of a chain on their nodes."""

    stages: tuple[PlannedRun, ...]
    first_ms: float
    """When the last stage has its first output."""
    last_ms: float
    """When the last stage has its last output."""
    end_ms: float
    """When the gateway has the whole output, if this chain's output is part of the answer."""


class _Labels(NamedTuple):
    """The kept groupings of the pieces up to a place: arrays [N, L] by the node of their last stage."""

    first_ms: Floats
    last_ms: Floats
    nodes: Indices
    """Bit mask of the nodes in use."""
    stage_start: Indices
    """First piece of the last stage."""
    node_before: Indices
    label_before: Indices


class _Arrivals(NamedTuple):
    """When the inputs of a stage that begins at a place would arrive: arrays [K, N] by the stage's node."""

    first_ms: Floats
    last_ms: Floats
    nodes: Indices
    """Nodes in use; the receiver is not among them wherever the times are finite."""
    node_before: Indices
    label_before: Indices


def group(
    pieces: PieceCosts,
    nodes: NodeColumns,
    micro_batches: int,
    source: Source,
    now_ms: float,
    *,
    max_stages: int | None = None,
    labels: int = LABELS,
) -> Grouping | None:
    """Return the grouping whose answer is complete first; None if no grouping fits the nodes' memory.

    Args:
        pieces: what the pieces cost on these nodes.
        nodes: at most `MAX_NODES` candidates.
        micro_batches: number of micro-batches M.
        source: where the inputs come from.
        now_ms: the present moment: loading can begin.
        max_stages: most stages that may be made; None = any number.
        labels: groupings to keep for each place and node; more are slower and closer to the optimum.

    Raises:
        ValueError: there are too many nodes.
    """
    count = len(pieces.crossing_bytes) - 1
    if len(nodes.ready_ms) > MAX_NODES:
        raise ValueError(f"{len(nodes.ready_ms)} nodes, at most {MAX_NODES} can be compared")
    runs = _Runs(pieces, nodes, micro_batches, now_ms)
    arrivals = [_from_source(pieces, nodes, micro_batches, source)]
    found: list[_Labels] = []
    for end in range(1, count + 1):
        reached = _extend(runs, arrivals, end, labels, max_stages)
        found.append(reached)
        if end < count:
            arrivals.append(_forward(reached, pieces.crossing_bytes[end], nodes, micro_batches, labels))
    return _best(found, pieces, nodes, micro_batches)


class _Runs:
    """Costs of every run of pieces on every node."""

    def __init__(self, pieces: PieceCosts, nodes: NodeColumns, micro_batches: int, now_ms: float) -> None:
        self.micro_batches = micro_batches
        self._pieces, self._nodes, self._now_ms = pieces, nodes, now_ms
        self._work = _totals(pieces.work_ms)

    def ending_at(self, end: int) -> tuple[Floats, Floats]:
        """Return [end, N] each: computing time of the runs `[start, end)`, and when they can begin.

        A run that does not fit a node's memory can never begin there.
        """
        work_ms = (self._work[:, end, None] - self._work[:, :end] + self._pieces.call_ms[:, None]).T
        loaded_ms = self._now_ms + self._pieces.load_ms[:, :end, end - 1].T
        needed = self._pieces.needed_bytes[:, :end, end - 1].T
        begin_ms = np.maximum(self._nodes.ready_ms, loaded_ms)
        begin_ms[needed > self._nodes.free_bytes] = np.inf
        return work_ms, begin_ms


def _totals(values: Floats) -> Floats:
    """Return [N, P + 1] the sums of the first p values of each row."""
    return np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)


def _from_source(pieces: PieceCosts, nodes: NodeColumns, micro_batches: int, source: Source) -> _Arrivals:
    each_ms = pieces.crossing_bytes[0] * nodes.byte_ms
    first_ms, last_ms = _sent(source.first_ms, source.last_ms, each_ms, micro_batches)
    hop_ms = nodes.hop_ms + nodes.latency_ms
    nothing = np.full((1, len(each_ms)), -1)
    return _Arrivals(
        first_ms[None] + hop_ms, last_ms[None] + hop_ms, np.zeros_like(nothing), nothing, nothing
    )


def _sent(
    first_ms: Floats | float, last_ms: Floats | float, each_ms: Floats, micro_batches: int
) -> tuple[Floats, Floats]:
    """Return when the first and the last of the micro-batches have crossed a link."""
    return first_ms + each_ms, np.maximum(first_ms + micro_batches * each_ms, last_ms + each_ms)


def _extend(runs: _Runs, arrivals: list[_Arrivals], end: int, labels: int, max_stages: int | None) -> _Labels:
    """Return the best groupings of the first `end` pieces, from those of all shorter beginnings."""
    work_ms, begin_ms = runs.ending_at(end)
    rows = [len(place.first_ms) for place in arrivals]
    start = np.repeat(np.arange(end), rows)
    came = _Arrivals(*(np.concatenate(arrays) for arrays in zip(*arrivals, strict=True)))
    begins_ms, works_ms = np.maximum(came.first_ms, begin_ms[start]), work_ms[start]
    first_ms = begins_ms + works_ms
    last_ms = np.maximum(begins_ms + runs.micro_batches * works_ms, came.last_ms + works_ms)
    used = np.bitwise_count(came.nodes).astype(np.int64)
    if max_stages is not None:
        last_ms[used >= max_stages] = np.inf
    kept = _keep(first_ms, last_ms, used, labels)
    columns = np.arange(last_ms.shape[1])
    return _Labels(
        first_ms[kept, columns].T,
        last_ms[kept, columns].T,
        (came.nodes[kept, columns] | (1 << columns)).T,
        np.broadcast_to(start[kept], kept.shape).T,
        came.node_before[kept, columns].T,
        came.label_before[kept, columns].T,
    )


def _forward(
    reached: _Labels, crossing_bytes: float, nodes: NodeColumns, micro_batches: int, labels: int
) -> _Arrivals:
    """Return the arrivals at each node of what the groupings send on; a node in use gets nothing."""
    senders, kept_labels = reached.first_ms.shape
    each_ms = crossing_bytes * np.maximum.outer(nodes.up_byte_ms, nodes.byte_ms)
    each_ms = np.repeat(each_ms, kept_labels, axis=0)
    relay_ms = min(crossing_bytes, CHUNK_BYTES) * np.minimum.outer(nodes.up_byte_ms, nodes.byte_ms)
    hop_ms = np.repeat(
        nodes.hop_ms + relay_ms + np.add.outer(nodes.latency_ms, nodes.latency_ms), kept_labels, axis=0
    )
    first_ms, last_ms = _sent(
        reached.first_ms.reshape(-1, 1), reached.last_ms.reshape(-1, 1), each_ms, micro_batches
    )
    first_ms, last_ms = first_ms + hop_ms, last_ms + hop_ms
    used = (reached.nodes.reshape(-1, 1) >> np.arange(senders)) & 1
    last_ms[used == 1] = np.inf
    counts = np.bitwise_count(reached.nodes.reshape(-1, 1)).astype(np.int64)
    kept = _keep(first_ms, last_ms, np.broadcast_to(counts, last_ms.shape), labels)
    columns = np.arange(senders)
    return _Arrivals(
        first_ms[kept, columns],
        last_ms[kept, columns],
        reached.nodes.reshape(-1)[kept],
        kept // kept_labels,
        kept % kept_labels,
    )


def _keep(first_ms: Floats, last_ms: Floats, used: Indices, labels: int) -> Indices:
    """Return [labels, N] the rows to keep for each node.

    Those that end first, the first to begin, and the first to end of those that use fewest nodes: where
    memory is short, all others may be dead ends.

    Args:
        first_ms: [R, N] when each begins to give outputs.
        last_ms: [R, N] when each ends; infinite where it is impossible.
        used: [R, N] number of nodes.
        labels: rows to keep.
    """
    labels = min(labels, len(last_ms))
    kept: Indices = np.lexsort((first_ms, last_ms), axis=0)[:labels]
    possible = np.isfinite(last_ms)
    soonest = np.where(possible, first_ms, np.inf).argmin(axis=0)
    fewest = np.where(possible, used, np.iinfo(used.dtype).max)
    frugal = np.where(fewest == fewest.min(axis=0), last_ms, np.inf).argmin(axis=0)
    for place, wanted in ((-1, soonest), (-2, frugal)):
        missing = ~(kept == wanted).any(axis=0)
        if labels + place >= 0:
            kept[place, missing] = wanted[missing]
    return kept


def _best(
    found: list[_Labels], pieces: PieceCosts, nodes: NodeColumns, micro_batches: int
) -> Grouping | None:
    final = found[-1]
    each_ms = pieces.crossing_bytes[-1] * nodes.up_byte_ms[:, None]
    _, end_ms = _sent(final.first_ms, final.last_ms, each_ms, micro_batches)
    end_ms = end_ms + nodes.latency_ms[:, None]
    node, label = (int(index) for index in np.unravel_index(end_ms.argmin(), end_ms.shape))
    if not np.isfinite(end_ms[node, label]):
        return None
    return Grouping(
        tuple(_stages(found, node, label))[::-1],
        float(final.first_ms[node, label]),
        float(final.last_ms[node, label]),
        float(end_ms[node, label]) + RETURN_HOPS * nodes.hop_ms,
    )


def _stages(found: list[_Labels], node: int, label: int) -> Iterator[PlannedRun]:
    """Yield the stages of a grouping, the last one first."""
    end = len(found)
    while end:
        reached = found[end - 1]
        start = int(reached.stage_start[node, label])
        yield PlannedRun(start, end, node)
        before = int(reached.node_before[node, label]), int(reached.label_before[node, label])
        end, (node, label) = start, before
