"""Plan a chain: where to cut, what each stage costs, and how far that is from the optimum."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from splitplace.workshop.cutting.balance import Chain, PartitionError, Target, partition
from splitplace.workshop.cutting.layer_split import CutError, CutPoint, cut
from splitplace.workshop.onnx.graph import Graph, without_weights


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
    output: str
    """Name of the output tensor."""


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
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors that cross the cuts, in order."""
        return tuple(stage.output for stage in self.stages[:-1])


def plan_chain(
    model: onnx.ModelProto,
    points: Sequence[CutPoint],
    segment_ms: Sequence[float],
    stages: int,
    target: Target,
    *,
    micro_batch: int = 16,
) -> CutPlan:
    """Plan where to cut a model so that the slowest stage is as fast as possible.

    Args:
        model: The whole network.
        points: Its cut points.
        segment_ms: Measured time of each of the `len(points) + 1` segments between them, for one image.
        stages: Number of fragments to make.
        target: Nodes and links to balance for.
        micro_batch: Images per call; determines the memory that a stage needs.

    Raises:
        CutError: The graph has too few cut points for that many stages, or they do not fit into memory.
    """
    if len(points) + 1 < stages:
        raise CutError(
            f"the graph has {len(points)} places where one tensor crosses, too few for {stages} stages"
        )
    bare = without_weights(model)
    segments = [Graph(segment) for segment in cut(bare, [point.tensor for point in points])]
    chain = Chain(
        milliseconds=segment_ms,
        crossing_bytes=[point.sent_bytes_per_image for point in points],
        weight_bytes=[segment.weight_bytes for segment in segments],
        activation_bytes=[segment.peak_activation_bytes_per_image * micro_batch for segment in segments],
    )
    try:
        best = partition(chain, stages, target)
    except PartitionError as error:
        raise CutError(str(error)) from error
    starts = (0, *(index + 1 for index in best.cuts))
    ends = (*best.cuts, len(points))
    fragments = cut(bare, [points[index].tensor for index in best.cuts])
    nodes = target.for_stages(stages)
    planned = []
    for first, last, node, graph in zip(starts, ends, nodes, map(Graph, fragments), strict=True):
        sent = points[last].sent_bytes_per_image if last < len(points) else 0.0
        planned.append(
            PlannedStage(
                first_segment=first,
                last_segment=last,
                compute_ms=sum(segment_ms[first : last + 1]) * node.slowdown,
                send_ms=sent / node.link_bytes_per_ms,
                sent_bytes_per_image=sent,
                flops_per_image=graph.flops_per_image,
                weight_bytes=graph.weight_bytes,
                peak_memory_bytes=graph.weight_bytes + micro_batch * graph.peak_activation_bytes_per_image,
                output=graph.output,
            )
        )
    ideal = sum(segment_ms) / sum(1 / node.slowdown for node in nodes)
    return CutPlan(tuple(planned), micro_batch, best.pace_ms, best.least_pace_ms, ideal)
