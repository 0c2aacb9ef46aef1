"""Layer splitting: cuts an ONNX graph into a chain of fragments that together compute the same.

A graph is cut only where exactly one tensor crosses: at the dominators of its output. The fragments hold the
very nodes and weights of the whole, so joined they equal it by construction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import onnx
from onnx.utils import Extractor

from models.balance import Target, choose_cuts
from models.graph import Graph

FLOAT16_SHARE = 0.5
"""Between nodes tensors travel as float16."""
AFTER_RELU_SHARE = 0.5
"""What compression leaves of a tensor after a ReLU: about half of it are zeros."""


@dataclass(frozen=True)
class CutPoint:
    """One place where a graph can be cut."""

    tensor: str
    bytes_per_image: int
    """Size of the tensor as float32."""
    after_relu: bool

    @property
    def sent_bytes_per_image(self) -> float:
        """Estimated size on the wire."""
        return self.bytes_per_image * FLOAT16_SHARE * (AFTER_RELU_SHARE if self.after_relu else 1.0)


class CutError(Exception):
    """A graph that has too few places where a single tensor crosses."""


def cut_points(model: onnx.ModelProto) -> tuple[CutPoint, ...]:
    """Every place where a single tensor crosses, from the input to the output, both excluded."""
    graph = Graph(model)
    points = []
    for position, node in enumerate(graph.nodes[:-1]):
        live = graph.live_after(position)
        if len(live) != 1 or live[0] not in node.output:
            continue
        points.append(CutPoint(live[0], graph.bytes_per_image(live[0]), node.op_type == "Relu"))
    return tuple(points)


def cut(model: onnx.ModelProto, tensors: Sequence[str]) -> tuple[onnx.ModelProto, ...]:
    """The fragments before, between and after the given tensors (in order, names from `cut_points`)."""
    graph = Graph(model)
    extractor = Extractor(model)
    ends = (graph.input, *tensors, graph.output)
    return tuple(extractor.extract_model([first], [last]) for first, last in pairwise(ends))


def balanced_chain(
    model: onnx.ModelProto,
    points: Sequence[CutPoint],
    segment_ms: Sequence[float],
    stages: int,
    target: Target,
) -> tuple[onnx.ModelProto, ...]:
    """Cuts a model into a chain whose slowest stage is as fast as can be.

    Args:
        model: The whole network.
        points: Its cut points.
        segment_ms: Measured time of each of the `len(points) + 1` segments between them.
        stages: How many fragments to make.
        target: What to balance for.

    Raises:
        CutError: The graph has too few cut points for so many stages.
    """
    if len(points) + 1 < stages:
        msg = f"the graph has {len(points)} places where one tensor crosses, too few for {stages} stages"
        raise CutError(msg)
    chosen = choose_cuts(segment_ms, [point.sent_bytes_per_image for point in points], stages, target)
    return cut(model, [points[index].tensor for index in chosen])
