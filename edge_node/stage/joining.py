"""Join pieces into one ONNX model: a small head, then the bodies. Pure.

Protobuf messages concatenate: fields that repeat are appended, and the graphs of several messages become one.
So a stage needs no copy of any weight, and no `onnx` package.
"""

from collections.abc import Sequence

from splitplace.edge_node.stage.body import Body, PieceError, unresolved
from splitplace.edge_node.stage.wire import bytes_field, number_field, text_field
from splitplace.messages.pieces import Bundle, ChainStage, NamedTensor
from splitplace.messages.tensors import DType

BATCH_SIZE = "splitplace.batch_size"
"""Name of the tensor `int64[1]` that holds the number of images. Pieces may read it; the head computes it."""

_BATCH = "batch"
_SHAPE, _ZERO, _ONE = (f"splitplace.size.{name}" for name in ("shape", "zero", "one"))
_OF_THE_HEAD = frozenset({BATCH_SIZE, _SHAPE, _ZERO, _ONE})
_MODEL_IR_VERSION, _MODEL_GRAPH, _MODEL_OPSET = 1, 7, 8
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE, _GRAPH_NAME, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 2, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR = 1, 2, 4
_TENSOR_DIMENSION, _TENSOR_TYPE, _TENSOR_INT64, _TENSOR_NAME = 1, 2, 7, 8
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR, _TENSOR_ELEMENT, _TENSOR_SHAPE = 1, 1, 2
_SHAPE_DIMENSION, _DIMENSION_VALUE, _DIMENSION_NAME = 1, 1, 2
_INT64 = 7
_ELEMENT_TYPES: dict[DType, int] = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "int32": 6,
    "int64": 7,
    "float16": 10,
}


def join(stage: ChainStage, bodies: Sequence[Body]) -> bytes:
    """Return the serialised model of a stage, with its large weights in the pieces' weights files.

    Args:
        stage: What the manifest says of the stage.
        bodies: The checked graph files of its pieces, in order.

    Raises:
        PieceError: The pieces do not fit together: a tensor is made twice, read without being made, or the
            last one does not make what the stage hands on.
    """
    given = frozenset(tensor.name for tensor in stage.inputs)
    missing = set(unresolved(tuple(bodies), given))
    if missing - {BATCH_SIZE}:
        raise PieceError(f"no piece before it makes the tensor {min(missing - {BATCH_SIZE})[:80]!r}")
    made = given.union(*(body.made for body in bodies))
    if made & _OF_THE_HEAD:
        raise PieceError(f"a piece makes the tensor {min(made & _OF_THE_HEAD)!r}, which only the head makes")
    for tensor in stage.outputs:
        if tensor.name not in made:
            raise PieceError(f"no piece of the stage makes its output {tensor.name[:80]!r}")
    return head(stage, with_batch_size=bool(missing)) + b"".join(body.content for body in bodies)


def head(stage: ChainStage, *, with_batch_size: bool) -> bytes:
    """Return a model without any piece: versions, inputs, outputs, and the batch size if it is read."""
    graph = text_field(_GRAPH_NAME, "stage")
    if with_batch_size:
        graph += _batch_size(stage.inputs[0].name)
    graph += _values(_GRAPH_INPUT, stage.inputs)
    graph += _values(_GRAPH_OUTPUT, _computed(stage))
    opsets = b"".join(
        bytes_field(
            _MODEL_OPSET,
            text_field(_OPSET_DOMAIN, opset.domain) + number_field(_OPSET_VERSION, opset.version),
        )
        for opset in stage.opsets
    )
    return number_field(_MODEL_IR_VERSION, stage.ir_version) + opsets + bytes_field(_MODEL_GRAPH, graph)


def _computed(stage: ChainStage) -> Bundle:
    """Return the outputs that the stage computes; others are handed on as they came."""
    given = {tensor.name for tensor in stage.inputs}
    return tuple(tensor for tensor in stage.outputs if tensor.name not in given)


def _values(number: int, bundle: Bundle) -> bytes:
    return b"".join(bytes_field(number, _value(tensor)) for tensor in bundle)


def _value(tensor: NamedTensor) -> bytes:
    """Return the name and type of a tensor, with a free first dimension."""
    shape = bytes_field(_SHAPE_DIMENSION, text_field(_DIMENSION_NAME, _BATCH))
    for size in tensor.spec.shape:
        shape += bytes_field(_SHAPE_DIMENSION, number_field(_DIMENSION_VALUE, size))
    kind = number_field(_TENSOR_ELEMENT, _ELEMENT_TYPES[tensor.spec.dtype]) + bytes_field(
        _TENSOR_SHAPE, shape
    )
    return text_field(_VALUE_NAME, tensor.name) + bytes_field(_VALUE_TYPE, bytes_field(_TYPE_TENSOR, kind))


def _batch_size(source: str) -> bytes:
    """Return nodes and weights that compute `BATCH_SIZE` from a tensor with that first dimension."""
    return (
        _node("Shape", [source], _SHAPE)
        + _node("Slice", [_SHAPE, _ZERO, _ONE], BATCH_SIZE)
        + _weight(_ZERO, 0)
        + _weight(_ONE, 1)
    )


def _node(operator: str, inputs: Sequence[str], output: str) -> bytes:
    node = b"".join(text_field(_NODE_INPUT, name) for name in inputs)
    return bytes_field(
        _GRAPH_NODE, node + text_field(_NODE_OUTPUT, output) + text_field(_NODE_OPERATOR, operator)
    )


def _weight(name: str, value: int) -> bytes:
    tensor = number_field(_TENSOR_DIMENSION, 1) + number_field(_TENSOR_TYPE, _INT64)
    tensor += number_field(_TENSOR_INT64, value) + text_field(_TENSOR_NAME, name)
    return bytes_field(_GRAPH_INITIALIZER, tensor)
