"""Handle large networks without copies of their weights."""

import onnx
from onnx import TensorProto, helper

from splitplace.messages.limits import MEBIBYTE

LARGE_WEIGHT_BYTES = 4096
"""Weights above this size are not shapes or axes, so shape inference does not need their values."""
LARGE_MODEL_BYTES = 64 * MEBIBYTE
"""The weights of networks above this size are kept in files: each copy of a model would copy them, too."""


def is_outside(tensor: onnx.TensorProto) -> bool:
    """Whether a weight lies in another file than its model."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def without_weights(model: onnx.ModelProto) -> tuple[onnx.ModelProto, frozenset[str]]:
    """Return a model whose large weights are inputs instead, and their names. The model is not changed."""
    bare, weights = without_initializers(model), set()
    for tensor in model.graph.initializer:
        if is_outside(tensor) or tensor.ByteSize() > LARGE_WEIGHT_BYTES:
            bare.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
            weights.add(tensor.name)
        else:
            bare.graph.initializer.append(tensor)
    return bare, frozenset(weights)


def without_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model without its weights."""
    bare = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _copy(bare, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _copy(bare.graph, field.name, value)
    return bare


def _copy(target: onnx.ModelProto | onnx.GraphProto, name: str, value: object) -> None:
    if isinstance(value, int | str | bytes):
        setattr(target, name, value)
    else:
        getattr(target, name).MergeFrom(value)
