"""Looks into a network: where it can be cut, what lies between, and how it is best divided among nodes."""

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
"""From fragments and a micro-batch to milliseconds an image, as `workshop.cutting.profile.segment_times`."""

_SHORTER = {
    "BatchNormalization": "BatchNorm",
    "LayerNormalization": "LayerNorm",
    "AveragePool": "AvgPool",
    "DequantizeLinear": "Dequantize",
    "QuantizeLinear": "Quantize",
}
"""Operators whose names are longer than what they are usually called."""


@dataclass(frozen=True)
class Segment:
    """What lies between two neighbouring cut points."""

    operators: tuple[str, ...]
    """Kinds of its nodes, in order."""
    milliseconds: float
    """Measured, of one image."""
    flops_per_image: int
    weight_bytes: int

    @property
    def label(self) -> str:
        """Its operators, with equal neighbours counted."""
        return describe(self.operators)


@dataclass(frozen=True)
class Inspection:
    """A network seen as a chain of segments, and the best way to divide it."""

    name: str
    points: tuple[CutPoint, ...]
    segments: tuple[Segment, ...]
    """One more than there are points."""
    plan: CutPlan

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
    """Finds all cut points, times what lies between them on this machine, and plans a chain.

    Args:
        model: One input, one output, batch first.
        name: What it is called in tables and drawings.
        stages: How many fragments to plan.
        target: Nodes and links to plan for.
        micro_batch: Images in a call.
        measure: How the segments are timed.

    Raises:
        GraphError: Something needed cannot be told from the graph.
        CutError: It cannot be cut into so many stages, or they do not fit into memory.
    """
    points = cut_points(model)
    pieces = cut(model, [point.tensor for point in points])
    milliseconds = tuple(measure(pieces, micro_batch))
    plan = plan_chain(model, points, milliseconds, stages, target, micro_batch=micro_batch)
    segments = []
    for graph, time in zip(map(Graph, pieces), milliseconds, strict=True):
        kinds = tuple(node.op_type for node in graph.nodes)
        segments.append(Segment(kinds, time, graph.flops_per_image, graph.weight_bytes))
    return Inspection(name, points, tuple(segments), plan)


@dataclass(frozen=True)
class Balance:
    """How a chain that exists compares with the best that could be cut, by computing alone."""

    slowest_ms: float
    """The chain's slowest stage, measured, for one image."""
    best_ms: float
    """That of the best chain of as many stages, by the times of the segments."""

    @property
    def ratio(self) -> float:
        """1: nothing could be better."""
        return self.slowest_ms / self.best_ms if self.best_ms else 1.0


def balance(
    inspection: Inspection,
    fragments: Sequence[onnx.ModelProto],
    *,
    micro_batch: int,
    measure: SegmentTimes = segment_times,
) -> Balance:
    """Measures a chain of the inspected network, and compares.

    Raises:
        PartitionError: It has more stages than the network has segments.
    """
    chain = Chain([segment.milliseconds for segment in inspection.segments], [0.0] * len(inspection.points))
    alike = Target((Device(slowdown=1.0),), tolerance=0.0)
    best = partition(chain, len(fragments), alike)
    return Balance(max(measure(fragments, micro_batch)), best.pace_ms)


def describe(operators: Sequence[str]) -> str:
    """Kinds of operators in order, equal neighbours counted: `Relu, 2 Conv, Add`."""
    runs = ((_SHORTER.get(kind, kind), len(list(same))) for kind, same in groupby(operators))
    return ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in runs)
