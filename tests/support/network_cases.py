"""Tiny networks in the forms that real files have at their beginning and end."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIDE = 16
_CLASSES = 4

Nodes = Sequence[onnx.NodeProto]
Weights = dict[str, NDArray[Any]]


def _node(operator: str, *names: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, list(names[:-1]), [names[-1]], **attributes)


def _body(dtype: type = np.float32) -> tuple[list[onnx.NodeProto], Weights]:
    """Return two convolutions, pooling and a product, from `x` to `logits`; `r1` is the last map."""
    random = np.random.default_rng(0)

    def weight(*shape: int) -> NDArray[Any]:
        return (0.3 * random.standard_normal(shape)).astype(dtype)

    nodes = [
        _node("Conv", "x", "w0", "c0", pads=[1] * 4),
        _node("Relu", "c0", "r0"),
        _node("Conv", "r0", "w1", "c1", pads=[1] * 4),
        _node("Relu", "c1", "r1"),
        _node("GlobalAveragePool", "r1", "p"),
        _node("Flatten", "p", "f"),
        _node("Gemm", "f", "wf", "logits"),
    ]
    return nodes, {"w0": weight(8, 3, 3, 3), "w1": weight(8, 8, 3, 3), "wf": weight(8, _CLASSES)}


def _model(nodes: Nodes, weights: Weights, opset: int = 17, **ends: Any) -> onnx.ModelProto:
    shape = ends.get("shape", ["N", 3, SIDE, SIDE])
    graph = helper.make_graph(
        list(nodes),
        "case",
        [helper.make_tensor_value_info("x", ends.get("dtype", TensorProto.FLOAT), shape)],
        [
            helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None)
            for name in ends.get("outputs", ["y"])
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    for output in graph.output:
        output.type.tensor_type.elem_type = ends.get("gives", TensorProto.FLOAT)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _ending(*steps: str, opset: int = 17) -> onnx.ModelProto:
    nodes, weights = _body()
    names = ["logits", *(f"e{number}" for number in range(len(steps) - 1)), "y"]
    ends = [_node(step, names[number], names[number + 1]) for number, step in enumerate(steps)]
    return _model([*nodes, *ends], weights, opset)


def _free_sides() -> onnx.ModelProto:
    nodes, weights = _body()
    return _model([*nodes, _node("Identity", "logits", "y")], weights, shape=["N", 3, "H", "W"])


def _multiples_of_64() -> onnx.ModelProto:
    """Return a network that adds its pictures to coarse ones: both have one size for multiples of 64 only."""
    nodes, weights = _body()
    nodes[0] = _node("Conv", "sum", "w0", "c0", pads=[1] * 4)
    coarse = [
        _node("MaxPool", "x", "small", kernel_shape=[64, 64], strides=[64, 64]),
        _node("Resize", "small", "", "larger", "coarse"),
        _node("Add", "x", "coarse", "sum"),
    ]
    weights["larger"] = np.array([1, 1, 64, 64], np.float32)
    ends = [_node("Identity", "logits", "y")]
    return _model([*coarse, *nodes, *ends], weights, shape=["N", 3, "H", "W"])


def _constants() -> onnx.ModelProto:
    nodes, weights = _body()
    made = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name))
        for name, value in weights.items()
    ]
    return _model([*made, *nodes, _node("Identity", "logits", "y")], {})


def _float16() -> onnx.ModelProto:
    nodes, weights = _body(np.float16)
    ends = {"dtype": TensorProto.FLOAT16, "gives": TensorProto.FLOAT16}
    return _model([*nodes, _node("Identity", "logits", "y")], weights, **ends)


def _map() -> onnx.ModelProto:
    nodes, weights = _body()
    head = np.random.default_rng(1).standard_normal((_CLASSES, 8, 1, 1)).astype(np.float32)
    return _model([*nodes[:4], _node("Conv", "r1", "wo", "y")], {**weights, "wo": head})


def _two_outputs() -> onnx.ModelProto:
    nodes, weights = _body()
    more = [_node("Identity", "logits", "y"), _node("Gemm", "f", "wf", "boxes")]
    return _model([*nodes, *more], weights, outputs=["y", "boxes"])


def _skip() -> onnx.ModelProto:
    nodes, weights = _body()
    ends = [
        _node("Concat", "r0", "r1", "k", axis=1),
        _node("GlobalAveragePool", "k", "p"),
        _node("Flatten", "p", "f"),
        _node("Gemm", "f", "ws", "y"),
    ]
    wide = np.random.default_rng(2).standard_normal((16, _CLASSES)).astype(np.float32)
    return _model([*nodes[:4], *ends], {**weights, "ws": wide})


def _tokens() -> onnx.ModelProto:
    random = np.random.default_rng(3)
    nodes = [
        _node("Gather", "table", "x", "g"),
        _node("ReduceMean", "g", "m", axes=[1], keepdims=0),
        _node("Gemm", "m", "wf", "y"),
    ]
    weights = {
        "table": random.standard_normal((30, 8)).astype(np.float32),
        "wf": random.standard_normal((8, _CLASSES)).astype(np.float32),
    }
    return _model(nodes, weights, dtype=TensorProto.INT32, shape=["N", 64])


CASES: dict[str, Callable[[], onnx.ModelProto]] = {
    "softmax_last": lambda: _ending("Softmax"),
    "softmax_then_identity": lambda: _ending("Softmax", "Identity"),
    "sigmoid_last": lambda: _ending("Sigmoid"),
    "opset_11": lambda: _ending("Identity", opset=11),
    "free_sides": _free_sides,
    "multiples_of_64": _multiples_of_64,
    "weights_in_constants": _constants,
    "float16": _float16,
    "map_output": _map,
    "two_outputs": _two_outputs,
    "long_skip": _skip,
    "int_tokens": _tokens,
}
