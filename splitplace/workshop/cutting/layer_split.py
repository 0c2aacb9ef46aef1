"""Layer splitting: cut an ONNX graph into a chain of fragments that together compute the same.

A graph is cut only where exactly one tensor crosses: at the dominators of its output. The fragments hold the
nodes and weights of the whole unchanged, so the chain equals the whole by construction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import onnx
from onnx import helper

from splitplace.errors import SplitPlaceError
from splitplace.workshop.onnx.batch_size import BATCH_SIZE, batch_size_nodes
from splitplace.workshop.onnx.branches import reads
from splitplace.workshop.onnx.file import BATCH
from splitplace.workshop.onnx.graph import Graph

AFTER_RELU_SHARE = 0.6
"""Share that compression leaves of a tensor after a ReLU, about half of whose values are zero, before it was
measured."""


@dataclass(frozen=True)
class CutPoint:
    """One place where a graph can be cut."""

    tensor: str
    bytes_per_image: int
    """Size of the tensor as computed."""
    sent_share: float = 1.0
    """Share of it that is left when nodes compress it: measured, or expected."""

    @property
    def sent_bytes_per_image(self) -> float:
        """Size on the wire, for one image."""
        return self.bytes_per_image * self.sent_share


def expected_share(*, after_relu: bool) -> float:
    """Return the share of a tensor that is expected to be left when nodes compress it."""
    return AFTER_RELU_SHARE if after_relu else 1.0


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
                share = expected_share(after_relu=graph.is_after_relu(node))
                points.append(CutPoint(tensor, graph.bytes_per_image(tensor), share))
    return tuple(points)


def cut(model: onnx.ModelProto, tensors: Sequence[str]) -> tuple[onnx.ModelProto, ...]:
    """Cut a model at the given tensors.

    Args:
        model: The whole network.
        tensors: Names from `cut_points`, in order.

    Returns:
        One fragment more than there are tensors.

    Raises:
        CutError: The network has several inputs or outputs.
    """
    graph = Graph(model)
    if len(graph.inputs) > 1 or len(graph.outputs) > 1:
        raise CutError(
            "only networks of one input and one output are cut where a single tensor crosses; this one has "
            f"{len(graph.inputs)} and {len(graph.outputs)}"
        )
    ends = (graph.input, *tensors, graph.output)
    return tuple(_fragment(model, graph, first, last) for first, last in pairwise(ends))


def _fragment(model: onnx.ModelProto, graph: Graph, first: str, last: str) -> onnx.ModelProto:
    """Extract the part of a model that computes one tensor from another."""
    # `onnx.utils.Extractor` selects the same nodes and weights: at all cuts of the shipped networks its
    # result, once corrected, is the same byte for byte. The corrections would be longer than this code: it
    # renames the graph and its producer, keeps value_info, needs value_info for both ends, and ignores
    # BATCH_SIZE.
    nodes = _nodes_between(model.graph.node, first, last)
    if any(BATCH_SIZE in node.input for node in nodes):
        nodes = [*batch_size_nodes(first), *nodes]
    source, result = _end(graph, first), _end(graph, last)
    read = {name for node in nodes for name in reads(node)}
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
            needed.update(reads(node))
            found.append(node)
    return found[::-1]


def _end(graph: Graph, name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, graph.element_type(name), [BATCH, *graph.shape(name)])
