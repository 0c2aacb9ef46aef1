"""Plan a chain: where to cut, what each stage costs, and how far that is from the optimum."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from splitplace.workshop.cutting.balance import Partition, PartitionError, Target, partition
from splitplace.workshop.cutting.layer_split import CutError
from splitplace.workshop.onnx.graph import Graph
from splitplace.workshop.pieces.chain import MeasuredNetwork


@dataclass(frozen=True)
class PlannedStage:
    """One fragment of a chain, on the node it is planned for."""

    first_segment: int
    last_segment: int
    """Range of the segments that the fragment consists of, both ends inclusive."""
    compute_ms: float
    """Time to compute one image."""
    send_ms: float
    """Time to send the output for one image; 0 for the last stage."""
    sent_bytes_per_image: float
    """Estimated size on the wire; 0 for the last stage."""
    flops_per_image: int
    weight_bytes: int
    peak_memory_bytes: int
    """Weights, plus the peak of live activations for a micro-batch."""
    outputs: tuple[str, ...]
    """Names of the tensors that it hands on."""


@dataclass(frozen=True)
class CutPlan:
    """A chain balanced for given nodes."""

    stages: tuple[PlannedStage, ...]
    micro_batch: int
    pace_ms: float
    """Time of the pipeline's slowest part, computing or sending, for one image."""
    least_pace_ms: float
    """Pace of the fastest chain with as many stages. A chain nearly as fast is chosen if it sends less."""
    ideal_pace_ms: float
    """Pace if the work could be divided anywhere among these nodes with nothing to send."""

    @property
    def cuts(self) -> tuple[int, ...]:
        """Numbers of the places where it is cut, ascending."""
        return tuple(stage.last_segment for stage in self.stages[:-1])

    @property
    def tensors(self) -> tuple[tuple[str, ...], ...]:
        """Names of the tensors that cross at each cut, in order."""
        return tuple(stage.outputs for stage in self.stages[:-1])


def plan_chain(network: MeasuredNetwork, stages: int, target: Target, *, micro_batch: int = 16) -> CutPlan:
    """Plan where to cut a network so that the slowest stage is as fast as possible.

    Args:
        network: From `pieces.chain.measured`.
        stages: Number of fragments to make.
        target: Nodes and links to balance for.
        micro_batch: Images per call; determines the memory that a stage needs.

    Raises:
        CutError: The network has too few places to cut for that many stages, or they do not fit into memory.
        TargetError: There are several nodes, but not one for each stage.
    """
    best = _best(network, stages, target, micro_batch)
    return plan_of(network, best.cuts, target, micro_batch, best.least_pace_ms)


def plan_of(
    network: MeasuredNetwork, cuts: Sequence[int], target: Target, micro_batch: int, least_pace_ms: float
) -> CutPlan:
    """Describe a chain that is cut at the given places.

    Args:
        network: From `pieces.chain.measured`.
        cuts: Numbers of places, ascending.
        target: Nodes and links that it is described for.
        micro_batch: Images per call.
        least_pace_ms: Pace of the fastest chain with as many stages.
    """
    graph = Graph(network.model)
    ends = [network.places[cut].end for cut in cuts]
    nodes = target.for_stages(len(cuts) + 1)
    bounds = pairwise((0, *(cut + 1 for cut in cuts), len(network.milliseconds)))
    planned = []
    for (first, end), node, span, flops in zip(
        bounds, nodes, graph.spans(ends), graph.flops_between(ends), strict=True
    ):
        place = network.places[end - 1] if end <= len(network.places) else None
        sent = 0.0 if place is None else place.sent_bytes_per_image
        planned.append(
            PlannedStage(
                first_segment=first,
                last_segment=end - 1,
                compute_ms=sum(network.milliseconds[first:end]) * node.slowdown,
                send_ms=sent / node.link_bytes_per_ms,
                sent_bytes_per_image=sent,
                flops_per_image=flops,
                weight_bytes=span.weight_bytes,
                peak_memory_bytes=span.weight_bytes + micro_batch * span.activation_bytes_per_image,
                outputs=graph.outputs if place is None else place.tensors,
            )
        )
    pace_ms = max(max(stage.compute_ms, stage.send_ms) for stage in planned)
    ideal_ms = sum(network.milliseconds) / sum(1 / node.slowdown for node in nodes)
    return CutPlan(tuple(planned), micro_batch, pace_ms, least_pace_ms, ideal_ms)


def _best(network: MeasuredNetwork, stages: int, target: Target, micro_batch: int) -> Partition:
    chain = network.segments
    if chain.places + 1 < stages:
        raise CutError(f"the network has {chain.places} places to cut, too few for {stages} stages")
    spans = Graph(network.model).spans([place.end for place in network.places])
    activations = [micro_batch * span.activation_bytes_per_image for span in spans]
    try:
        return partition(replace(chain, activation_bytes=activations), stages, target)
    except PartitionError as error:
        raise CutError(str(error)) from error
