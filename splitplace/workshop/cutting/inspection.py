"""Inspect a network: where it can be cut, what lies between, and how to divide it among nodes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import onnx

from splitplace.workshop.cutting.balance import Chain, Device, Target, partition
from splitplace.workshop.cutting.layer_split import CutPoint, cut, cut_points
from splitplace.workshop.cutting.plan import CutPlan, plan_chain
from splitplace.workshop.cutting.profile import segment_times
from splitplace.workshop.onnx.graph import Graph

SegmentTimes = Callable[[Sequence[onnx.ModelProto], int], Sequence[float]]
"""From fragments and a micro-batch to ms per image, as `workshop.cutting.profile.segment_times`."""

_SHORT_NAMES = {
    "BatchNormalization": "BatchNorm",
    "LayerNormalization": "LayerNorm",
    "AveragePool": "AvgPool",
    "DequantizeLinear": "Dequantize",
    "QuantizeLinear": "Quantize",
}
"""Usual short names of operators."""


@dataclass(frozen=True)
class Segment:
    """The part of a network between two neighbouring cut points."""

    operators: tuple[str, ...]
    """Types of its ONNX nodes, in order."""
    milliseconds: float
    """Measured time for one image."""
    flops_per_image: int
    weight_bytes: int

    @property
    def label(self) -> str:
        """The operators, with equal neighbours counted."""
        return describe(self.operators)


@dataclass(frozen=True)
class InspectedPiece:
    """A piece of a network, as it is stored or would be."""

    chain: str
    """Name of its chain."""
    number: int
    """Place in the chain, from 1."""
    milliseconds: float
    """Time for one image inside a run of the whole."""
    weight_bytes: int
    """Memory of its weights."""
    memory_bytes: int
    """Weights, plus the peak of live activations for a micro-batch."""
    crossing: tuple[str, ...]
    """Tensors that it hands on."""
    crossing_bytes: int
    """Their size for one image."""
    cut_by: tuple[str, ...] = ()
    """Variants that are cut after it."""


@dataclass(frozen=True)
class Inspection:
    """A network as a chain of segments, with a plan for dividing it."""

    name: str
    points: tuple[CutPoint, ...]
    segments: tuple[Segment, ...]
    """One more than `points`."""
    plan: CutPlan
    pieces: tuple[InspectedPiece, ...] = ()
    """The pieces of the network and, for an application, of its other networks."""

    @property
    def cuts(self) -> frozenset[int]:
        """Indices of the points where the plan cuts."""
        return frozenset(stage.last_segment for stage in self.plan.stages[:-1])


def inspect(
    model: onnx.ModelProto,
    *,
    name: str,
    stages: int,
    target: Target,
    micro_batch: int,
    measure: SegmentTimes = segment_times,
) -> Inspection:
    """Find all cut points, time the segments between them on this machine, and plan a chain.

    Args:
        model: One input, one output, batch first.
        name: Name for tables and drawings.
        stages: Number of fragments to plan.
        target: Nodes and links to plan for.
        micro_batch: Images per call.
        measure: Function that times the segments.

    Raises:
        GraphError: The graph does not tell a shape or size that is needed.
        CutError: The model cannot be cut into that many stages, or they do not fit into memory.
    """
    points = cut_points(model)
    parts = cut(model, [point.tensor for point in points])
    milliseconds = tuple(measure(parts, micro_batch))
    plan = plan_chain(model, points, milliseconds, stages, target, micro_batch=micro_batch)
    segments = []
    for graph, time in zip(map(Graph, parts), milliseconds, strict=True):
        kinds = tuple(node.op_type for node in graph.nodes)
        segments.append(Segment(kinds, time, graph.flops_per_image, graph.weight_bytes))
    return Inspection(name, points, tuple(segments), plan)


@dataclass(frozen=True)
class Balance:
    """How an existing chain compares with the best possible cut, by computing time alone."""

    slowest_ms: float
    """Measured time of the chain's slowest stage for one image."""
    best_ms: float
    """Time of the slowest stage of the best chain with as many stages, from the times of the segments."""

    @property
    def ratio(self) -> float:
        """`slowest_ms / best_ms`; 1 means that no cut is better."""
        return self.slowest_ms / self.best_ms if self.best_ms else 1.0


def balance(
    inspection: Inspection,
    fragments: Sequence[onnx.ModelProto],
    *,
    micro_batch: int,
    measure: SegmentTimes = segment_times,
) -> Balance:
    """Measure a chain of the inspected network and compare it with the best possible cut.

    Raises:
        PartitionError: The chain has more stages than the network has segments.
    """
    chain = Chain([segment.milliseconds for segment in inspection.segments], [0.0] * len(inspection.points))
    alike = Target((Device(slowdown=1.0),), tolerance=0.0)
    best = partition(chain, len(fragments), alike)
    return Balance(max(measure(fragments, micro_batch)), best.pace_ms)


def describe(operators: Sequence[str]) -> str:
    """Name operators in order, equal neighbours counted: `Relu, 2 Conv, Add`."""
    runs = ((_SHORT_NAMES.get(kind, kind), len(list(same))) for kind, same in groupby(operators))
    return ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in runs)
