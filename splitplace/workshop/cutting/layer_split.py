"""Layer splitting: cut an ONNX graph into a chain of fragments that together compute the same.

A graph is cut only where exactly one tensor crosses: at the dominators of its output. The fragments hold the
nodes and weights of the whole unchanged, so the chain equals the whole by construction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import onnx
from onnx import TensorProto, helper

from splitplace.errors import SplitPlaceError
from splitplace.workshop.onnx.batch_size import BATCH_SIZE, batch_size_nodes
from splitplace.workshop.onnx.file import BATCH
from splitplace.workshop.onnx.graph import Graph

FLOAT16_SHARE = 0.5
"""Tensors travel between nodes as float16: half the bytes of float32."""
AFTER_RELU_SHARE = 0.5
"""Share that compression leaves of a tensor after a ReLU, about half of whose values are zero."""

Transport = Literal["float32", "float16"]
"""Type in which a fragment passes its output to the next one."""


@dataclass(frozen=True)
class CutPoint:
    """One place where a graph can be cut."""

    tensor: str
    bytes_per_image: int
    """Size of the tensor as computed."""
    after_relu: bool
    is_float32: bool = True
    """Whether the tensor can be narrowed to float16 for transport."""

    @property
    def sent_bytes_per_image(self) -> float:
        """Estimated size on the wire, for one image."""
        narrowed = FLOAT16_SHARE if self.is_float32 else 1.0
        return self.bytes_per_image * narrowed * (AFTER_RELU_SHARE if self.after_relu else 1.0)


class CutError(SplitPlaceError):
    """The graph cannot be cut as requested."""


def cut_points(model: onnx.ModelProto) -> tuple[CutPoint, ...]:
    """Return every place where a single tensor crosses, in order from input to output, both excluded.

    These are the dominators of the output. If all paths from the input to the output lead through a tensor,
    then every other node of the data flow either feeds it or reads from it. In any topological order the
    former come before it and the latter after it, and no other tensor crosses. So one pass over the nodes
    finds all places: those where exactly one tensor is live.

    Raises:
        GraphError: The shape of such a tensor is unknown.
    """
    graph = Graph(model)
    points = []
    for node, live in zip(graph.nodes[:-1], graph.live(), strict=False):
        if len(live) == 1 and live.issubset(node.output):
            (tensor,) = live
            if graph.is_batch_first(tensor):
                is_float32 = graph.element_type(tensor) == TensorProto.FLOAT
                size = graph.bytes_per_image(tensor)
                points.append(CutPoint(tensor, size, graph.is_after_relu(node), is_float32))
    return tuple(points)


def cut(
    model: onnx.ModelProto, tensors: Sequence[str], transport: Transport = "float32"
) -> tuple[onnx.ModelProto, ...]:
    """Cut a model at the given tensors.

    Args:
        model: The whole network.
        tensors: Names from `cut_points`, in order.
        transport: With `float16`, a fragment with float32 output ends with a cast to float16, and the next
            one starts with a cast back. That halves the bytes, but rounds, and values above 65504 become
            infinite.

    Returns:
        One fragment more than there are tensors.
    """
    graph = Graph(model)
    ends = (graph.input, *tensors, graph.output)
    return tuple(_fragment(model, graph, first, last, transport) for first, last in pairwise(ends))


def _fragment(
    model: onnx.ModelProto, graph: Graph, first: str, last: str, transport: Transport
) -> onnx.ModelProto:
    """Extract the part of a model that computes one tensor from another."""
    # `onnx.utils.Extractor` selects the same nodes and weights: at all cuts of the shipped networks its
    # result, once corrected, is the same byte for byte. The corrections would be longer than this code: it
    # renames the graph and its producer, keeps value_info, needs value_info for both ends, and ignores
    # BATCH_SIZE.
    nodes = _nodes_between(model.graph.node, first, last)
    if any(BATCH_SIZE in node.input for node in nodes):
        nodes = [*batch_size_nodes(first), *nodes]
    source, result = _end(graph, first), _end(graph, last)
    if transport == "float16":
        if first != graph.input and _is_float32(source):
            source = _as_float16(source)
            nodes.insert(0, helper.make_node("Cast", [source.name], [first], to=TensorProto.FLOAT))
        if last != graph.output and _is_float32(result):
            result = _as_float16(result)
            nodes.append(helper.make_node("Cast", [last], [result.name], to=TensorProto.FLOAT16))
    read = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in read]
    fragment = onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, producer_name=model.producer_name
    )
    fragment.graph.CopyFrom(helper.make_graph(nodes, model.graph.name, [source], [result], weights))
    return fragment


def _nodes_between(nodes: Sequence[onnx.NodeProto], first: str, last: str) -> list[onnx.NodeProto]:
    """Return the nodes, constants included, that compute the last tensor from the first."""
    needed = {last}
    found = []
    for node in reversed(nodes):
        if needed.intersection(node.output) and not {first, BATCH_SIZE}.intersection(node.output):
            needed.update(node.input)
            found.append(node)
    return found[::-1]


def _end(graph: Graph, name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, graph.element_type(name), [BATCH, *graph.shape(name)])


def _is_float32(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == TensorProto.FLOAT)


def _as_float16(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    halved = onnx.ValueInfoProto()
    halved.CopyFrom(value)
    halved.name = f"{value.name}.float16"
    halved.type.tensor_type.elem_type = TensorProto.FLOAT16
    return halved
