"""Smaller files for the same network: store weights in 16 or 8 bits and widen them on loading.

The widening is part of the ONNX graph, before the operators that read the weights. ONNX Runtime folds it into
constants while it loads the file, so memory and speed are those of float32 weights.
"""

from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Storage = Literal["float32", "float16", "int8"]
"""Type in which weights are stored. `int8` has a scale for every output channel."""

MIN_ELEMENTS = 1024
"""Smaller weights (biases, normalisations) stay float32: they take little space and matter for accuracy."""
_FLOAT16_MAX = 65504.0
_INT8_MAX = 127


def narrowed(model: onnx.ModelProto, storage: Storage) -> onnx.ModelProto:
    """Copy a model with its large float32 weights stored narrower.

    A weight is narrowed in the same way in every fragment that holds it, so a narrowed chain still equals
    the narrowed whole.

    Args:
        model: The model. It is not changed.
        storage: Type to store; `float32` gives a plain copy.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if storage == "float32":
        return copy
    graph = copy.graph
    kept, widening = [], []
    for tensor in graph.initializer:
        weight = numpy_helper.to_array(tensor)
        if weight.dtype != np.float32 or weight.size < MIN_ELEMENTS:
            kept.append(tensor)
        elif storage == "float16" and np.abs(weight).max() <= _FLOAT16_MAX:
            narrow = f"{tensor.name}.float16"
            kept.append(numpy_helper.from_array(weight.astype(np.float16), narrow))
            widening.append(_cast(narrow, tensor.name))
        elif storage == "int8":
            values, scale = _eight_bits(weight, _output_axis(graph, tensor.name))
            narrow, factor, wide = (f"{tensor.name}.{part}" for part in ("int8", "scale", "unscaled"))
            kept.append(numpy_helper.from_array(values, narrow))
            kept.append(numpy_helper.from_array(scale, factor))
            widening.append(_cast(narrow, wide))
            widening.append(helper.make_node("Mul", [wide, factor], [tensor.name]))
        else:
            kept.append(tensor)
    nodes = [*widening, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    return copy


def _cast(narrow: str, wide: str) -> onnx.NodeProto:
    return helper.make_node("Cast", [narrow], [wide], to=TensorProto.FLOAT)


def _output_axis(graph: onnx.GraphProto, name: str) -> int:
    """Return the axis of a weight's output channels: 0, or -1 for the right factor of a product."""
    for node in graph.node:
        if name in node.input:
            transposed = any(item.name == "transB" and item.i for item in node.attribute)
            return -1 if node.op_type == "MatMul" or (node.op_type == "Gemm" and not transposed) else 0
    return 0


def _eight_bits(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return `int8` values and the `float32` scale of each output channel, in a shape that broadcasts."""
    others = tuple(index for index in range(weight.ndim) if index != axis % weight.ndim)
    greatest = np.abs(weight).max(axis=others, keepdims=True)
    scale = np.where(greatest > 0, greatest / _INT8_MAX, 1.0).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale
