"""Make the inputs of a user's network of what sensors send, and free its batch."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from splitplace.messages.pieces import NamedTensor
from splitplace.workshop.onnx.aside import values_of
from splitplace.workshop.onnx.branches import rename
from splitplace.workshop.onnx.file import BATCH
from splitplace.workshop.user_networks.preprocessing import Preprocessing
from splitplace.workshop.user_networks.reading import UserNetworkError
from splitplace.workshop.user_networks.source import Source, inputs_of, reading_cast, short_name

INPUT = "splitplace.input"
"""Name of the one input of a network that has one; several have their own names."""


def put_reading_in_front(
    model: onnx.ModelProto,
    sources: Sequence[Source],
    preprocessing: Preprocessing | None,
    pictures: Collection[str],
) -> tuple[NamedTensor, ...]:
    """Change a model in place so that it reads what sensors send. Return what they send, in order.

    Args:
        model: The network.
        sources: Its inputs, in the order in which sensors name them.
        preprocessing: Conversion of pictures from bytes; None where it reads bytes.
        pictures: Names of the inputs that are pictures; the others are arrays.

    Raises:
        UserNetworkError: The preprocessing does not fit the channels of one of them.
    """
    graph = model.graph
    given: list[NamedTensor] = []
    nodes: list[onnx.NodeProto] = []
    kept = list(graph.node)
    for number, source in enumerate(sources):
        is_picture = source.name in pictures
        name, inner = INPUT, source.name
        if len(sources) > 1:
            name, inner = short_name(source.name, f"input-{number + 1}"), f"{INPUT}.{number}.{source.name}"
            for node in kept:
                rename(node, {source.name: inner})
        steps, weights = _reading(source, preprocessing, (name, inner), is_picture=is_picture)
        nodes += steps
        graph.initializer.extend(weights)
        given.append(NamedTensor(name=name, spec=source.spec if is_picture else source.array))
    nodes += kept
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend(nodes)
    for tensor in given:
        element = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.spec.dtype))
        graph.input.append(helper.make_tensor_value_info(tensor.name, element, [BATCH, *tensor.spec.shape]))
    return tuple(given)


def with_values(model: onnx.ModelProto, said: Sequence[str]) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return a model whose inputs that always have one value are weights, and notes for people.

    Args:
        model: It is not changed.
        said: The inputs and their values, as NAME=VALUE; the value fills an input of several sizes.

    Raises:
        UserNetworkError: It has no such input, or the value is no number of its type.
    """
    if not said:
        return model, ()
    values = {value.name: value for value in inputs_of(model)}
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for pair in said:
        name, _, number = pair.rpartition("=")
        if name not in values:
            raise UserNetworkError(f"--set {pair}: {name!r} is none of its inputs: {', '.join(values)[:300]}")
        changed.graph.initializer.append(numpy_helper.from_array(_filled(values[name], number, pair), name))
    left = [
        value for value in changed.graph.input if value.name not in {pair.rpartition("=")[0] for pair in said}
    ]
    del changed.graph.input[:]
    changed.graph.input.extend(left)
    return changed, (f"always the same: {', '.join(said)}",)


def _filled(value: onnx.ValueInfoProto, number: str, pair: str) -> NDArray[Any]:
    """Return an input that has a number everywhere. An open size is 1."""
    tensor = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    try:
        wide = float(number)
    except ValueError as error:
        raise UserNetworkError(f"--set {pair}: {number!r} is no number") from error
    is_known = dtype.kind != "O"
    if dtype.kind == "b":
        is_known = wide in {0, 1}
    elif dtype.kind in "iu":
        is_known = wide.is_integer() and np.iinfo(dtype).min <= wide <= np.iinfo(dtype).max
    elif dtype.kind == "f":
        is_known = np.isinf(wide) or abs(wide) <= np.finfo(dtype).max
    if not is_known:
        raise UserNetworkError(f"--set {pair}: {value.name!r} is of type {dtype}, which has no {number}")
    return np.full([side.dim_value or 1 for side in tensor.shape.dim], wide, dtype)


def free_batch(graph: onnx.GraphProto, fixed: int) -> None:
    """Replace sizes that a fixed batch has left in `Reshape` targets, so that any batch works."""
    if not fixed:
        return
    reshapes = [node for node in graph.node if node.op_type == "Reshape"]
    targets = {node.input[1] for node in reshapes}
    for index, tensor in enumerate(graph.initializer):
        if tensor.name in targets:
            graph.initializer[index].CopyFrom(_freed(tensor, fixed))
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] in targets and node.attribute[0].name == "value":
            node.attribute[0].t.CopyFrom(_freed(node.attribute[0].t, fixed))
    for node in reshapes:
        del node.attribute[:]  # the only attribute, `allowzero`, would give 0 another meaning


def _freed(tensor: onnx.TensorProto, batch: int) -> onnx.TensorProto:
    """Return a `Reshape` target whose first side, if it is the batch size, is copied from the input."""
    target = values_of(tensor).copy()
    if target.ndim == 1 and len(target) > 1 and target[0] == batch:
        target[0] = 0
    return numpy_helper.from_array(target, tensor.name)


def _reading(
    source: Source, preprocessing: Preprocessing | None, ends: tuple[str, str], *, is_picture: bool
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return nodes and weights that make an input of the model, the second end, of what sensors send."""
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    weights: list[onnx.TensorProto] = []
    current, last = ends
    if is_picture and preprocessing is not None:
        steps, weights = _of_pictures(source, _for_channels(preprocessing, source), last)
    elif not is_picture and (element := reading_cast(source)) is not None:
        steps.append(("Cast", [], {"to": element}))
    if is_picture and source.is_channels_last:
        steps.append(("Transpose", [], {"perm": [0, 2, 3, 1]}))
    elif source.axis is None:
        weights.append(numpy_helper.from_array(np.array(source.sides, np.int64), f"{last}.sides"))
        steps.append(("Reshape", [f"{last}.sides"], {}))
    elif source.axis:
        order = list(range(1, len(source.sides) + 1))
        order.insert(source.axis, 0)
        steps.append(("Transpose", [], {"perm": order}))
    if not steps:
        steps.append(("Identity", [], {}))
    nodes = []
    for index, (kind, more, attributes) in enumerate(steps):
        made = last if index == len(steps) - 1 else f"{last}.read.{index}"
        nodes.append(helper.make_node(kind, [current, *more], [made], **attributes))
        current = made
    return nodes, weights


def _for_channels(preprocessing: Preprocessing, source: Source) -> Preprocessing:
    """Return the preprocessing of one input of pictures: others may have other channels."""
    try:
        return preprocessing.with_channels(source.spec.shape[0])
    except ValueError as error:
        raise UserNetworkError(f"the pictures {source.name!r}: {error}") from error


def _of_pictures(
    source: Source, preprocessing: Preprocessing, made: str
) -> tuple[list[tuple[str, list[str], dict[str, Any]]], list[onnx.TensorProto]]:
    """Return operators, with weights, from bytes `[N, C, H, W]` in RGB to what a network reads."""
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    weights: list[onnx.TensorProto] = []

    def add(operator: str, name: str, values: NDArray[Any], **attributes: int) -> None:
        weights.append(numpy_helper.from_array(values, f"{INPUT}.{made}.{name}"))
        steps.append((operator, [f"{INPUT}.{made}.{name}"], attributes))

    if preprocessing.is_bgr:
        add("Gather", "order", np.array([2, 1, 0]), axis=1)
    reads_bytes = source.element == TensorProto.UINT8
    if reads_bytes and not preprocessing.is_inverted:
        return steps, weights
    steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
    if preprocessing.is_inverted:
        add("Mul", "negative", np.array(-1, np.float32))
        add("Add", "white", np.array(255, np.float32))
    if not reads_bytes:
        add("Sub", "mean", np.array(preprocessing.mean_bytes, np.float32).reshape(-1, 1, 1))
        add("Div", "deviation", np.array(preprocessing.deviation_bytes, np.float32).reshape(-1, 1, 1))
    if source.element != TensorProto.FLOAT:
        steps.append(("Cast", [], {"to": source.element}))
    return steps, weights
