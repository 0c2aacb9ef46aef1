"""Put the fragments that a network was once cut into together again."""

from collections.abc import Sequence
from itertools import pairwise

import onnx

from splitplace.workshop.onnx.batch_size import BATCH_SIZE, batch_size_nodes
from splitplace.workshop.onnx.file import finish

_OF_THE_BATCH = {BATCH_SIZE, *(name for node in batch_size_nodes("") for name in node.output)}
"""Tensors that every part computes from its own input."""


def merged(parts: Sequence[onnx.ModelProto]) -> onnx.ModelProto | None:
    """Return the network that was cut into these parts; None if they do not fit together.

    Args:
        parts: Models with one input and one output, each but the first reading what the one before gives.
    """
    whole = onnx.ModelProto()
    whole.CopyFrom(parts[0])
    graph = whole.graph
    for before, part in pairwise(parts):
        (source,), (result,) = part.graph.input, before.graph.output
        if source.name != result.name or list(part.opset_import) != list(whole.opset_import):
            return None
    if not all(_add(graph, part.graph) for part in parts[1:]):
        return None
    del graph.output[:], graph.value_info[:]
    graph.output.extend(parts[-1].graph.output)
    try:
        return finish(whole)
    except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return None


def _add(graph: onnx.GraphProto, more: onnx.GraphProto) -> bool:
    """Add the weights and nodes that a graph does not have yet. Return whether none contradicts another."""
    weights = {weight.name: weight for weight in graph.initializer}
    nodes = {name: node for node in graph.node for name in node.output}
    for weight in more.initializer:
        if weight.name not in weights:
            graph.initializer.append(weight)
        elif weights[weight.name] != weight:
            return False
    for node in more.node:
        known = [nodes[name] for name in node.output if name in nodes]
        if not known:
            graph.node.append(node)
        elif not _OF_THE_BATCH.issuperset(node.output) and any(other != node for other in known):
            return False
    return True
