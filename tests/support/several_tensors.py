"""Tiny networks with several inputs and outputs, states, loops and functions, as users have them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

UNITS = 8
FLOAT = TensorProto.FLOAT

Value = tuple[str, int, Sequence[int | str]]


def _node(operator: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, list(inputs), list(outputs), **attributes)


def _weights(**shapes: Sequence[int]) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(0)
    return {name: (0.3 * random.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    weights: dict[str, NDArray[Any]],
    **more: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "several",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [
        helper.make_opsetid("", 17),
        *(helper.make_opsetid(name, 1) for name in more.pop("domains", [])),
    ]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **more)


def two_rows() -> onnx.ModelProto:
    """Two rows of numbers, to four classes."""
    nodes = [
        _node("MatMul", ["a", "wa"], "p"),
        _node("MatMul", ["b", "wb"], "q"),
        _node("Add", ["p", "q"], "s"),
        _node("Relu", ["s"], "t"),
        _node("MatMul", ["t", "w"], "y"),
    ]
    weights = _weights(wa=(16, 32), wb=(8, 32), w=(32, 4))
    return _model(nodes, [("a", FLOAT, ["N", 16]), ("b", FLOAT, ["N", 8])], [("y", FLOAT, ["N", 4])], weights)


def picture_and_numbers() -> onnx.ModelProto:
    """Numbers, and a picture of open size after them, to four classes."""
    nodes = [
        _node("Conv", ["picture", "c"], "f"),
        _node("Relu", ["f"], "g"),
        _node("GlobalAveragePool", ["g"], "p"),
        _node("Flatten", ["p"], "q"),
        _node("Concat", ["q", "numbers"], "k", axis=1),
        _node("Gemm", ["k", "w"], "y"),
    ]
    inputs: list[Value] = [("numbers", FLOAT, ["N", 5]), ("picture", FLOAT, ["N", 3, "H", "W"])]
    return _model(nodes, inputs, [("y", FLOAT, ["N", 4])], _weights(c=(8, 3, 3, 3), w=(13, 4)))


def two_pictures() -> onnx.ModelProto:
    """Two pictures of one size, and a mask of one channel after them: what differs, and the mean of all."""
    nodes = [
        _node("Sub", ["left", "right"], "d"),
        _node("Mul", ["d", "mask"], "m"),
        _node("Conv", ["m", "c"], "f"),
        _node("Relu", ["f"], "g"),
        _node("GlobalAveragePool", ["g"], "p"),
        _node("Flatten", ["p"], "q"),
        _node("Gemm", ["q", "w"], "y"),
    ]
    inputs: list[Value] = [
        ("left", FLOAT, ["N", 3, 16, 16]),
        ("right", FLOAT, ["N", 3, 16, 16]),
        ("mask", FLOAT, ["N", 1, 16, 16]),
    ]
    return _model(nodes, inputs, [("y", FLOAT, ["N", 4])], _weights(c=(8, 3, 3, 3), w=(8, 4)))


def tokens_and_mask() -> onnx.ModelProto:
    """Tokens and their mask, both int64 of an open length, to four classes."""
    nodes = [
        _node("Gather", ["table", "ids"], "g"),
        _node("Cast", ["mask"], "m", to=FLOAT),
        _node("Unsqueeze", ["m", "last"], "mu"),
        _node("Mul", ["g", "mu"], "gm"),
        _node("MatMul", ["gm", "w"], "h"),
        _node("Relu", ["h"], "r"),
        _node("ReduceMean", ["r"], "rm", axes=[1], keepdims=0),
        _node("Gemm", ["rm", "wc"], "y"),
    ]
    sides = ["batch", "sequence"]
    inputs: list[Value] = [("ids", TensorProto.INT64, sides), ("mask", TensorProto.INT64, sides)]
    weights = {**_weights(table=(100, 16), w=(16, 16), wc=(16, 4)), "last": np.array([2])}
    return _model(nodes, inputs, [("y", FLOAT, ["batch", 4])], weights)


def lstm(batch: int | str = "batch", layers_first: int = 1) -> onnx.ModelProto:
    """A step of an LSTM: `h0`, `c0` are its state, `hn`, `cn` the next, with the batch as second axis."""
    nodes = [
        _node("Transpose", ["x"], "xt", perm=[1, 0, 2]),
        _node("LSTM", ["xt", "W", "R", "", "", "h0", "c0"], "", "hn", "cn", hidden_size=UNITS),
        _node("Squeeze", ["hn", "first"], "last"),
        _node("Gemm", ["last", "w"], "y"),
    ]
    state = [layers_first, batch, UNITS]
    weights = _weights(W=(1, 4 * UNITS, 6), R=(1, 4 * UNITS, UNITS), w=(UNITS, 4))
    return _model(
        nodes,
        [("x", FLOAT, [batch, 5, 6]), ("h0", FLOAT, state), ("c0", FLOAT, state)],
        [("y", FLOAT, [batch, 4]), ("hn", FLOAT, state), ("cn", FLOAT, state)],
        {**weights, "first": np.array([0])},
    )


def cache_like_a_picture() -> onnx.ModelProto:
    """Frames of features, and a cache of those before them: it has one channel, as a grey picture."""
    cache: list[int | str] = ["batch", 6, 4, 1]
    nodes = [
        _node("Unsqueeze", ["x", "last"], "frames"),
        _node("Concat", ["in_cache", "frames"], "all", axis=2),
        _node("Slice", ["all", "start", "end", "axis"], "out_cache"),
        _node("ReduceMean", ["all"], "y", axes=[2, 3], keepdims=0),
    ]
    numbers = {"last": np.array([3]), "start": np.array([-4]), "end": np.array([99]), "axis": np.array([2])}
    return _model(
        nodes,
        [("x", FLOAT, ["batch", 6, 2]), ("in_cache", FLOAT, cache)],
        [("y", FLOAT, ["batch", 6]), ("out_cache", FLOAT, cache)],
        numbers,
    )


def loudness(samples: int = 16) -> onnx.ModelProto:
    """A window of sound: `y` is the sum of its squares and of those before it, kept in `state`."""
    nodes = [
        _node("Mul", ["x", "x"], "squares"),
        _node("MatMul", ["squares", "ones"], "here"),
        _node("Add", ["here", "state"], "stateN"),
        _node("Relu", ["stateN"], "y"),
    ]
    state: list[int | str] = ["batch", 1]
    return _model(
        nodes,
        [("x", FLOAT, ["batch", samples]), ("state", FLOAT, state)],
        [("y", FLOAT, state), ("stateN", FLOAT, state)],
        {"ones": np.ones((samples, 1), np.float32)},
    )


def lstm_of_one() -> onnx.ModelProto:
    """The same with a fixed batch of one."""
    return lstm(1)


def gain() -> onnx.ModelProto:
    """A row, and one number for all of a batch."""
    nodes = [
        _node("Mul", ["x", "gain"], "p"),
        _node("MatMul", ["p", "w0"], "q"),
        _node("Relu", ["q"], "r"),
        _node("MatMul", ["r", "w"], "y"),
    ]
    inputs: list[Value] = [("x", FLOAT, ["N", 16]), ("gain", FLOAT, [])]
    return _model(nodes, inputs, [("y", FLOAT, ["N", 4])], _weights(w0=(16, 16), w=(16, 4)))


def _turning() -> onnx.GraphProto:
    value = helper.make_tensor_value_info
    return helper.make_graph(
        [
            _node("Identity", ["go"], "go_on"),
            _node("MatMul", ["v", "turn_weight"], "m"),
            _node("Tanh", ["m"], "next"),
        ],
        "turn",
        [
            value("number", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("v", FLOAT, None),
        ],
        [value("go_on", TensorProto.BOOL, []), value("next", FLOAT, None)],
    )


def loop() -> onnx.ModelProto:
    """Three turns of a `Loop` between layers, with weights from around it."""
    nodes = [
        _node("MatMul", ["x", "w0"], "a"),
        _node("Relu", ["a"], "b"),
        _node("Loop", ["turns", "", "b"], "l", body=_turning()),
        _node("Relu", ["l"], "u"),
        _node("MatMul", ["u", "w"], "y"),
    ]
    weights = {**_weights(w0=(16, 16), turn_weight=(16, 16), w=(16, 4)), "turns": np.array(3)}
    return _model(nodes, [("x", FLOAT, ["N", 16])], [("y", FLOAT, ["N", 4])], weights)


def loops_over_sizes() -> onnx.ModelProto:
    """Two loops, of as many turns as `x` has steps, and as what the first one makes has columns."""
    nodes = [
        _node("ReduceMean", ["x"], "a", axes=[1], keepdims=0),
        _node("Shape", ["x"], "sizes"),
        _node("Gather", ["sizes", "one"], "steps"),
        _node("Loop", ["steps", "", "a"], "l", body=_turning()),
        _node("MatMul", ["l", "w3"], "p"),
        _node("Shape", ["p"], "sizes_of_p"),
        _node("Gather", ["sizes_of_p", "one"], "columns"),
        _node("Loop", ["columns", "", "l"], "k", body=_turning()),
        _node("MatMul", ["k", "w"], "y"),
    ]
    weights = {**_weights(turn_weight=(16, 16), w3=(16, 3), w=(16, 4)), "one": np.array(1)}
    return _model(nodes, [("x", FLOAT, ["N", "steps", 16])], [("y", FLOAT, ["N", 4])], weights)


def loop_over_batch() -> onnx.ModelProto:
    """A `Loop` of as many turns as a task has inputs."""
    nodes = [
        _node("Shape", ["x"], "sizes"),
        _node("Gather", ["sizes", "zero"], "inputs"),
        _node("Loop", ["inputs", "", "x"], "l", body=_turning()),
        _node("MatMul", ["l", "w"], "y"),
    ]
    weights = {**_weights(turn_weight=(16, 16), w=(16, 4)), "zero": np.array(0)}
    return _model(nodes, [("x", FLOAT, ["N", 16])], [("y", FLOAT, ["N", 4])], weights)


def endless_loop() -> onnx.ModelProto:
    """A `Loop` of as many turns as the sender says."""
    nodes = [
        _node("Loop", ["turns", "", "x"], "l", body=_turning()),
        _node("MatMul", ["l", "w"], "y"),
    ]
    inputs: list[Value] = [("x", FLOAT, ["N", 16]), ("turns", TensorProto.INT64, [])]
    return _model(nodes, inputs, [("y", FLOAT, ["N", 4])], _weights(turn_weight=(16, 16), w=(16, 4)))


def function() -> onnx.ModelProto:
    """Calls a function that the file defines."""
    twice = helper.make_function(
        "mine", "Twice", ["a"], ["b"], [_node("Add", ["a", "a"], "b")], [helper.make_opsetid("", 17)]
    )
    nodes = [
        _node("MatMul", ["x", "w0"], "h"),
        _node("Twice", ["h"], "t", domain="mine"),
        _node("Relu", ["t"], "u"),
        _node("MatMul", ["u", "w"], "y"),
    ]
    weights = _weights(w0=(16, 16), w=(16, 4))
    return _model(
        nodes,
        [("x", FLOAT, ["N", 16])],
        [("y", FLOAT, ["N", 4])],
        weights,
        functions=[twice],
        domains=["mine"],
    )


def contributed() -> onnx.ModelProto:
    """An operator of ONNX Runtime whose shapes `onnx` cannot infer."""
    nodes = [
        _node("MatMul", ["x", "w0"], "h"),
        _node("Gelu", ["h"], "g", domain="com.microsoft"),
        _node("MatMul", ["g", "w"], "y"),
    ]
    return _model(
        nodes,
        [("x", FLOAT, ["N", 16])],
        [("y", FLOAT, ["N", 4])],
        _weights(w0=(16, 16), w=(16, 4)),
        domains=["com.microsoft"],
    )


def unknown_operator() -> onnx.ModelProto:
    """An operator that nothing knows."""
    return _model(
        [_node("Mine", ["x"], "y", domain="my.own")],
        [("x", FLOAT, ["N", 16])],
        [("y", FLOAT, ["N", 4])],
        {},
        domains=["my.own"],
    )


def sound_without_batch() -> onnx.ModelProto:
    """Four hundred values of sound, without a batch."""
    nodes = [_node("Unsqueeze", ["x", "first"], "u"), _node("MatMul", ["u", "w"], "y")]
    weights = {**_weights(w=(400, 4)), "first": np.array([0])}
    return _model(nodes, [("x", FLOAT, [400])], [("y", FLOAT, [1, 4])], weights)


def fixed_reshape() -> onnx.ModelProto:
    """A batch of one that a `Reshape` holds on to."""
    nodes = [
        _node("Reshape", ["x", "rows"], "u"),
        _node("MatMul", ["u", "w0"], "v"),
        _node("Reshape", ["v", "flat"], "z"),
        _node("MatMul", ["z", "w"], "y"),
    ]
    weights = {**_weights(w0=(6, 6), w=(24, 4)), "rows": np.array([4, 6]), "flat": np.array([1, 24])}
    return _model(nodes, [("x", FLOAT, [1, 4, 6])], [("y", FLOAT, [1, 4])], weights)


def odd_names() -> onnx.ModelProto:
    """Names with signs, and longer than frames take; a result that is served and read again."""
    nodes = [
        _node("MatMul", ["in put/ä:0", "w"], "y;1 = ü"),
        _node("Add", ["y;1 = ü", "b" * 200], "z" * 200),
    ]
    inputs: list[Value] = [("in put/ä:0", FLOAT, ["N", 16]), ("b" * 200, FLOAT, ["N", 4])]
    outputs: list[Value] = [("z" * 200, FLOAT, ["N", 4]), ("y;1 = ü", FLOAT, ["N", 4])]
    return _model(nodes, inputs, outputs, _weights(w=(16, 4)))


def size_of_values() -> onnx.ModelProto:
    """An output with as many rows as the input has values other than 0."""
    nodes = [_node("NonZero", ["x"], "places"), _node("Transpose", ["places"], "y", perm=[1, 0])]
    return _model(nodes, [("x", FLOAT, [1, 16])], [("y", TensorProto.INT64, ["K", 2])], {})


def wide_types() -> onnx.ModelProto:
    """Inputs and outputs of types that are not sent: doubles and truth values."""
    nodes = [
        _node("Cast", ["x"], "f", to=FLOAT),
        _node("Relu", ["f"], "r"),
        _node("Cast", ["r"], "wide", to=TensorProto.DOUBLE),
        _node("Greater", ["r", "half"], "above"),
    ]
    outputs: list[Value] = [
        ("wide", TensorProto.DOUBLE, ["N", 16]),
        ("above", TensorProto.BOOL, ["N", 16]),
    ]
    weights: dict[str, NDArray[Any]] = {"half": np.array(0.5, np.float32)}
    return _model(nodes, [("x", TensorProto.DOUBLE, ["N", 16])], outputs, weights)


def time_first() -> onnx.ModelProto:
    """Channels of a signal: four numbers for each moment, time first and the batch second."""
    nodes = [
        _node("Transpose", ["x"], "xt", perm=[2, 0, 1]),
        _node("MatMul", ["xt", "w"], "m"),
        _node("Softmax", ["m"], "y", axis=0),
    ]
    inputs: list[Value] = [("x", FLOAT, ["batch", 6, "time"])]
    return _model(nodes, inputs, [("y", FLOAT, ["time", "batch", 4])], _weights(w=(6, 4)))


SEVERAL: dict[str, Callable[[], onnx.ModelProto]] = {
    each.__name__: each
    for each in (
        two_rows,
        picture_and_numbers,
        two_pictures,
        tokens_and_mask,
        lstm,
        lstm_of_one,
        gain,
        loop,
        loops_over_sizes,
        loop_over_batch,
        endless_loop,
        function,
        contributed,
        unknown_operator,
        sound_without_batch,
        fixed_reshape,
        odd_names,
        size_of_values,
        wide_types,
        time_first,
        cache_like_a_picture,
    )
}
