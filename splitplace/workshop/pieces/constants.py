"""Turn weights that stand elsewhere into weights: those in `Constant` nodes, and those that are computed.

Exporters of some frameworks keep every weight in a `Constant` node, and some networks make theirs with
`ConstantOfShape`. Only what is a weight is counted, stored apart and mapped.
"""

from math import prod

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from splitplace.errors import SplitPlaceError
from splitplace.workshop.onnx.aside import values_of

MAX_MADE_BYTES = 2 * 1024**3
"""Most bytes of weights that `ConstantOfShape` may make: a file of a few bytes could ask for any number."""

_NUMBERS = {
    "value_float": ("f", np.float32),
    "value_floats": ("floats", np.float32),
    "value_int": ("i", np.int64),
    "value_ints": ("ints", np.int64),
}
"""Attributes of `Constant` that hold plain numbers: where they stand, and their type."""


class ConstantError(SplitPlaceError):
    """A network makes weights that are too large."""


def with_constants_as_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network with `Constant` and constant `ConstantOfShape` nodes as initializers.

    Constants that are no numbers stay nodes.

    Args:
        model: The network. It is not changed.

    Raises:
        ConstantError: `ConstantOfShape` makes more than `MAX_MADE_BYTES`.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    kept, made_bytes = [], 0
    for node in graph.node:
        weight = None
        if node.op_type == "Constant" and not node.domain:
            weight = _constant(node)
        elif node.op_type == "ConstantOfShape" and node.input[0] in weights:
            made_bytes += _made_bytes(node, weights[node.input[0]])
            if made_bytes > MAX_MADE_BYTES:
                raise ConstantError(
                    f"ConstantOfShape nodes make more than {MAX_MADE_BYTES} bytes of weights: the network "
                    "is too large for SplitPlace"
                )
            weight = _of_shape(node, weights[node.input[0]])
        if weight is None:
            kept.append(node)
        else:
            weights[weight.name] = weight
            graph.initializer.append(weight)
    del graph.node[:]
    graph.node.extend(kept)
    return changed


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Return the tensor of a `Constant` node; None if it holds texts or a sparse tensor."""
    (attribute,) = node.attribute
    if attribute.name == "value":
        if attribute.t.data_type == TensorProto.STRING:
            return None
        tensor = onnx.TensorProto()
        tensor.CopyFrom(attribute.t)
        tensor.name = node.output[0]
        return tensor
    if attribute.name not in _NUMBERS:
        return None
    field, dtype = _NUMBERS[attribute.name]
    return numpy_helper.from_array(np.array(getattr(attribute, field), dtype), node.output[0])


def _filling(node: onnx.NodeProto) -> onnx.TensorProto:
    """Return the one value that a `ConstantOfShape` repeats; by default 0.0."""
    for attribute in node.attribute:
        if attribute.name == "value":
            value: onnx.TensorProto = attribute.t
            return value
    return numpy_helper.from_array(np.zeros(1, np.float32))


def _made_bytes(node: onnx.NodeProto, shape: onnx.TensorProto) -> int:
    item = helper.tensor_dtype_to_np_dtype(_filling(node).data_type).itemsize
    return prod(int(size) for size in values_of(shape).ravel()) * item


def _of_shape(node: onnx.NodeProto, shape: onnx.TensorProto) -> onnx.TensorProto:
    value = values_of(_filling(node)).ravel()
    sizes = tuple(int(size) for size in values_of(shape).ravel())
    return numpy_helper.from_array(np.full(sizes, value[0], value.dtype), node.output[0])
